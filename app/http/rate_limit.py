"""Token buckets (one atomic Lua script on the bus) with RateLimit-* headers.

While the bus is away each web process keeps buckets of its own: limits then hold per process, and nobody is locked out.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.http.problems import Problem

BUS_SECONDS = 0.5  # a limiter must not be what a visitor waits for
PAUSE_SECONDS = 2.0  # before the bus is tried again after it failed
LOCAL_BUCKETS = 10_000

# KEYS: buckets. ARGV: capacity, tokens a second, for each. All must hold a token, or none is taken.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local tokens, wait, tightest = {}, 0, 1
for i, key in ipairs(KEYS) do
  local capacity, rate = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local stored = redis.call('HMGET', key, 't', 'at')
  local left = tonumber(stored[1]) or capacity
  left = math.min(capacity, left + math.max(0, now - (tonumber(stored[2]) or now)) * rate)
  tokens[i] = left
  if left < 1 then wait = math.max(wait, (1 - left) / rate) end
  if left < tokens[tightest] then tightest = i end
end
for i, key in ipairs(KEYS) do
  if wait == 0 then tokens[i] = tokens[i] - 1 end
  redis.call('HSET', key, 't', tostring(tokens[i]), 'at', tostring(now))
  redis.call('EXPIRE', key, math.ceil(tonumber(ARGV[2 * i - 1]) / tonumber(ARGV[2 * i])) + 1)
end
return {tostring(wait), tightest, tostring(tokens[tightest])}
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `capacity` at once, `per_minute` in the long run."""

    name: str
    capacity: int
    per_minute: float

    @property
    def rate(self) -> float:
        return self.per_minute / 60


# A person types a handful of questions a minute; an office shares an address; a program has a key.
MESSAGES_VISITOR = Limit("message-visitor", 20, 40)
MESSAGES_ADDRESS = Limit("message-address", 120, 240)
MESSAGES_CALLER = Limit("message-caller", 120, 600)
SESSIONS_ADDRESS = Limit("session-address", 60, 60)
READS_VISITOR = Limit("read-visitor", 120, 240)
CALLS_CALLER = Limit("call-caller", 300, 1200)
# One address guesses slowly at one member. The limit of the member alone is wide: a narrow one would lock its owner out.
SIGN_IN_PAIR = Limit("sign-in-pair", 5, 2)
SIGN_IN_ADDRESS = Limit("sign-in-address", 30, 20)
SIGN_IN_EMAIL = Limit("sign-in-email", 100, 20)
PASSWORD_MEMBER = Limit("password-member", 5, 2)


@dataclass(frozen=True, slots=True)
class Verdict:
    limit: Limit
    remaining: float
    wait: float  # seconds; 0 when admitted

    def headers(self) -> dict[str, str]:
        """RateLimit-* of the tightest bucket, resets in seconds (draft-ietf-httpapi-ratelimit-headers-06, section 5)."""
        full = (self.limit.capacity - self.remaining) / self.limit.rate
        return {
            "ratelimit-limit": str(self.limit.capacity),
            "ratelimit-remaining": str(max(0, math.floor(self.remaining))),
            "ratelimit-reset": str(math.ceil(max(full, 0))),
            "ratelimit-policy": f"{self.limit.capacity};w={math.ceil(self.limit.capacity / self.limit.rate)}",
        }


class Limiter:
    def __init__(self, bus: Redis) -> None:
        self._bus = bus
        self._script = bus.register_script(SCRIPT)
        self._local: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._away_until = 0.0

    async def take(self, *wanted: tuple[Limit, str]) -> dict[str, str]:
        """Take one token of each bucket, named by a limit and who is limited; gives the RateLimit-* headers.

        Raises Problem 429 with Retry-After when one of them is empty.
        """
        verdict = await self._ask(wanted)
        if verdict.wait > 0:
            seconds = max(1, math.ceil(verdict.wait))
            raise Problem(
                429,
                "too-many-requests",
                "Too many requests",
                f"Wait {seconds} s and try again.",
                headers={"retry-after": str(seconds), **verdict.headers()},
            )
        return verdict.headers()

    async def _ask(self, wanted: tuple[tuple[Limit, str], ...]) -> Verdict:
        names = [f"bus:limit:{limit.name}:{who}" for limit, who in wanted]
        if time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(BUS_SECONDS):
                    wait, tightest, left = await self._script(
                        keys=names, args=[part for limit, _ in wanted for part in (limit.capacity, limit.rate)]
                    )
                return Verdict(wanted[int(tightest) - 1][0], float(left), float(wait))
            except (RedisError, OSError, TimeoutError) as error:
                self._away_until = time.monotonic() + PAUSE_SECONDS
                log.warning("limiter_without_bus", error=str(error))
        return self._ask_here(names, wanted)

    def _ask_here(self, names: list[str], wanted: tuple[tuple[Limit, str], ...]) -> Verdict:
        now, left = time.monotonic(), []
        for name, (limit, _) in zip(names, wanted, strict=True):
            tokens, at = self._local.get(name, (float(limit.capacity), now))
            left.append(min(limit.capacity, tokens + (now - at) * limit.rate))
        wait = max((1 - tokens) / limit.rate if tokens < 1 else 0.0 for tokens, (limit, _) in zip(left, wanted, strict=True))
        tightest = min(range(len(left)), key=left.__getitem__)
        for index, name in enumerate(names):
            left[index] -= 0 if wait else 1
            self._local[name] = (left[index], now)
            self._local.move_to_end(name)
        while len(self._local) > LOCAL_BUCKETS:
            self._local.popitem(last=False)
        return Verdict(wanted[tightest][0], left[tightest], wait)

"""Manners: robots.txt (RFC 9309) with crawl-delay, two connections a host, and a pause when a host asks for one.

Both are shared by all workers over the bus, so that more workers do not mean less politeness.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from protego import Protego

from app.http.outbound import PRODUCT, OutboundError
from app.redis import host_leases, host_pause, robots_text
from workers.process import Process

ROBOTS_SECONDS = 600  # how long a robots.txt is remembered; a new reading of a source asks again
ROBOTS_BYTES = 512 * 1024  # RFC 9309, section 2.5: at least 500 KiB
ROBOTS_TIMEOUT = 10.0
MAX_DELAY = 10.0  # seconds between requests; a longer crawl-delay is cut to this
CONNECTIONS = 2  # at once to a host
LEASE_SECONDS = 40  # an open request is forgotten after so long: longer than the longest fetch
# A task waits for its turn so long at most; then it gives the page back, so that a pool is not full of sleepers.
PATIENCE_SECONDS = 12.0
MAX_PAUSE = 120.0

# Take a connection to a host, or tell in how many milliseconds to ask again. One round trip, atomic.
TAKE = """
local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
local pause = tonumber(redis.call('GET', KEYS[2]) or '0')
if pause > now then return pause - now end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 50 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if tonumber(ARGV[4]) > 0 then redis.call('SET', KEYS[2], now + tonumber(ARGV[4]), 'PX', ARGV[4]) end
return 0
"""


class Busy(Exception):
    """The host's turn is not ours soon; `seconds` says when to ask again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"wait {seconds:.0f} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Rules:
    """What a site's robots.txt says to Retort."""

    text: str
    refusal: str = ""  # why nothing at all may be read

    def allows(self, url: str) -> bool:
        return not self.refusal and _parsed(self.text).can_fetch(url, PRODUCT)

    @property
    def delay(self) -> float:
        """Seconds between two requests."""
        delay = _parsed(self.text).crawl_delay(PRODUCT)
        return min(max(delay or 0.0, 0.0), MAX_DELAY)

    @property
    def sitemaps(self) -> list[str]:
        return list(_parsed(self.text).sitemaps)


@lru_cache(maxsize=16)
def _parsed(text: str) -> Protego:
    return Protego.parse(text)


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


async def load_rules(process: Process, url: str, *, fresh: bool = False) -> Rules:
    """The rules for the origin of `url`. Raises OutboundError when the server cannot be reached at all."""
    origin = origin_of(url)
    key = robots_text(origin)
    stored = None if fresh else await process.bus.get(key)
    if stored is None:
        text, refusal = await _ask(process, origin)
        stored = json.dumps([text, refusal]).encode()
        await process.bus.set(key, stored, ex=ROBOTS_SECONDS)
    return Rules(*json.loads(stored))


async def _ask(process: Process, origin: str) -> tuple[str, str]:
    try:
        answer = await process.outbound.fetch(f"{origin}/robots.txt", total_seconds=ROBOTS_TIMEOUT, max_bytes=ROBOTS_BYTES)
    except OutboundError as error:
        # RFC 9309, section 2.3.1: what cannot be had for other reasons than the server's being away forbids nothing.
        if error.code in ("too-large", "redirect-loop", "garbled"):
            return "", ""
        raise
    if answer.status == 200:
        return answer.body.decode("utf-8", "replace").replace("\x00", ""), ""
    if answer.status >= 500 or answer.status == 429:
        return "", f"The site's robots.txt answers {answer.status}, so nothing may be read now. Try again later."
    return "", ""


@asynccontextmanager
async def turn(
    process: Process, url: str, delay: float, renew: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Hold one of a host's two connections (one, with a crawl-delay). Raises Busy when the turn is too far off."""
    host = urlsplit(url).netloc.lower()
    token = secrets.token_hex(8)
    keys = [host_leases(host), host_pause(host)]
    arguments = [1 if delay else CONNECTIONS, LEASE_SECONDS * 1000, token, int(delay * 1000)]
    began = time.monotonic()
    while wait := int(await process.bus.eval(TAKE, len(keys), *keys, *arguments)):
        if time.monotonic() - began + wait / 1000 > PATIENCE_SECONDS:
            raise Busy(wait / 1000)
        if renew is not None:
            await renew()
        await asyncio.sleep(min(wait / 1000, 3.0))
    try:
        yield
    finally:
        await process.bus.zrem(keys[0], token)


async def pause(process: Process, url: str, seconds: float) -> float:
    """Ask a host nothing for so long (it said 429 or 503); returns the seconds in effect."""
    seconds = min(max(seconds, 1.0), MAX_PAUSE)
    until = int((time.time() + seconds) * 1000)
    await process.bus.set(host_pause(urlsplit(url).netloc.lower()), until, px=int(seconds * 1000))
    return seconds

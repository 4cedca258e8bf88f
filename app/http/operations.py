"""Health, metrics and the status page: what runs, told from heartbeats and live checks, each within a second."""

from __future__ import annotations

import asyncio
import html
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.openapi import ResponseSpec
from prometheus_client import generate_latest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.conversations.views import moment
from app.db import lookups
from app.http import html as pages
from app.http.services import Services, services_of
from app.redis import process_key

CHECK_SECONDS = 1.0
KEEP_SECONDS = 1.0  # a page that many may open costs one check a second

PROCESSES = (
    ("generator", "Generators", ("generator",), "Write the answers"),
    ("worker", "Workers", ("worker-io", "worker-models"), "Read websites and index them"),
    ("beat", "Beat", ("beat",), "Starts what is due"),
)
STATE_WORDS = {"up": "Running", "down": "Not running", "unknown": "Not known"}
SUMMARY = {"up": "Everything runs", "degraded": "Something does not run", "down": "Answers are not possible right now"}


class Live(msgspec.Struct):
    status: str


class Ready(msgspec.Struct):
    status: str
    postgresql: bool
    bus: bool


@dataclass(slots=True)
class Component:
    """One line of the status page. `state` is up, down or unknown; `ms` how long a server took to answer."""

    key: str
    name: str
    state: str
    detail: str
    count: int | None = None
    ms: float | None = None


class ComponentOut(msgspec.Struct):
    key: str
    name: str
    state: str
    detail: str
    count: int | None
    ms: float | None


class Status(msgspec.Struct):
    status: str
    checked_at: str
    components: list[ComponentOut]


async def _timed(check: Callable[[], Awaitable[Any]]) -> float | None:
    """Milliseconds until the server answered; None when it did not within a second."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except (RedisError, SQLAlchemyError, OSError, TimeoutError):
        return None
    return round((time.perf_counter() - started) * 1000, 1)


async def _ask_database(services: Services) -> None:
    async with services.database.transaction(None) as session:
        await session.execute(text("SELECT 1"))


async def _processes(bus: Redis) -> Counter[str] | None:
    """How many processes of each kind renewed their sign of life lately; None while the bus is away."""
    found: Counter[str] = Counter()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            async for key in bus.scan_iter(match=process_key("*", "*"), count=1000):
                found[key.decode().split(":")[2]] += 1
    except (RedisError, OSError, TimeoutError):
        return None
    return found


def _server(key: str, name: str, ms: float | None, purpose: str) -> Component:
    if ms is None:
        return Component(key, name, "down", f"{purpose}; it did not answer within a second")
    return Component(key, name, "up", purpose, ms=ms)


def _process(key: str, name: str, kinds: tuple[str, ...], purpose: str, seen: Counter[str] | None) -> Component:
    if seen is None:
        return Component(key, name, "unknown", f"{purpose}; not to be seen while the bus is away")
    missing = [kind for kind in kinds if not seen[kind]]
    count = sum(seen[kind] for kind in kinds)
    if missing:
        parts = f" ({', '.join(missing)} missing)" if len(kinds) > 1 and count else ""
        return Component(key, name, "down", f"{purpose}; no sign of life for 15 s{parts}", count=count)
    return Component(key, name, "up", f"{purpose}; {count} running", count=count)


async def check(services: Services) -> dict[str, Any]:
    """The status as data. All checks run at once, so it takes as long as the slowest, at most about a second."""
    database, bus, states, seen = await asyncio.gather(
        _timed(lambda: _ask_database(services)),
        _timed(services.bus.ping),
        _timed(services.states.ping),
        _processes(services.bus),
    )
    components = [
        Component("web", "Web", "up", "Takes questions and shows pages", count=max(1, seen["web"]) if seen else 1),
        *(_process(key, name, kinds, purpose, seen) for key, name, kinds, purpose in PROCESSES),
        _server("postgresql", "PostgreSQL", database, "Keeps everything"),
        _server("bus", "Redis: bus", bus, "Carries events and jobs"),
        _server("states", "Redis: states", states, "Remembers conversations; rebuilt when lost"),
    ]
    down = {c.key for c in components if c.state != "up"}
    vital = {"postgresql", "bus", "generator"}
    status = "up" if not down else "down" if down & vital else "degraded"
    return {"status": status, "checked_at": moment(datetime.now(UTC)), "components": [asdict(c) for c in components]}


class StatusCache:
    """One check at a time, kept for a moment."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._at, self._kept = 0.0, {}

    async def get(self, services: Services) -> dict[str, Any]:
        async with self._lock:
            if time.monotonic() - self._at > KEEP_SECONDS:
                self._kept = await check(services)
                self._at = time.monotonic()
            return self._kept


STYLE = """
h1{display:flex;align-items:center;gap:12px;margin-bottom:4px}i{flex:none;width:10px;height:10px;border-radius:50%}
h1 i{width:14px;height:14px}.up i{background:var(--good)}.down i{background:var(--bad)}.unknown i{background:var(--warn)}
.soft{color:var(--text-2)}p.soft{margin:0 0 24px}ul{list-style:none;margin:0;padding:0;background:var(--surface);
border:1px solid var(--line);border-radius:12px}li{display:flex;gap:12px;align-items:baseline;padding:12px 16px}
li+li{border-top:1px solid var(--line)}li div{flex:1;min-width:0}li b{font-weight:600;display:block}
li span.soft{font-size:13px}.word{flex:none;white-space:nowrap;text-align:right;font-variant-numeric:tabular-nums}
"""


def _line(component: dict[str, Any]) -> str:
    time_taken = "" if component["ms"] is None else f'<br><span class="soft">{component["ms"]:.1f} ms</span>'
    return (
        f'<li class="{component["state"]}"><i aria-hidden="true"></i><div><b>{html.escape(component["name"])}</b>'
        f'<span class="soft">{html.escape(component["detail"])}</span></div>'
        f'<div class="word">{STATE_WORDS[component["state"]]}{time_taken}</div></li>'
    )


def draw(status: dict[str, Any]) -> str:
    """The status as a page."""
    mood = {"up": "up", "degraded": "unknown", "down": "down"}[status["status"]]
    checked = status["checked_at"]
    shown = f"{checked[:10]} {checked[11:19]} UTC"
    body = (
        f'<h1 class="{mood}"><i aria-hidden="true"></i>{SUMMARY[status["status"]]}</h1>\n'
        f'<p class="soft">Checked at <time datetime="{checked}">{shown}</time>. Reload to check again.</p>\n'
        f"<ul>\n{chr(10).join(_line(c) for c in status['components'])}\n</ul>"
    )
    return pages.plain("Status", body, style=STYLE, navigation='<header class="top"><div><b>Retort</b> status</div></header>\n')


@get("/health/live", tags=["Operations"], operation_id="live", responses={200: ResponseSpec(Live, description="It answers")})
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@get(
    "/health/ready",
    tags=["Operations"],
    operation_id="ready",
    responses={200: ResponseSpec(Ready, description="Ready"), 503: ResponseSpec(Ready, description="Not ready")},
)
async def ready(request: Request) -> Response[dict[str, Any]]:
    """PostgreSQL and the bus answer."""
    services = services_of(request)
    database, bus = await asyncio.gather(_timed(lambda: _ask_database(services)), _timed(services.bus.ping))
    ok = database is not None and bus is not None
    body = {"status": "ready" if ok else "not ready", "postgresql": database is not None, "bus": bus is not None}
    return Response(body, status_code=200 if ok else 503)


@get(
    "/status",
    tags=["Operations"],
    operation_id="status",
    responses={200: ResponseSpec(Status, description="As JSON, when asked for")},
)
async def status_page(request: Request) -> Response[Any]:
    """A page that a customer may see; with `Accept: application/json` the same as data."""
    status = await request.app.state.status.get(services_of(request))
    accept = request.headers.get("accept", "")
    if "application/json" in accept and "text/html" not in accept:
        return Response(status, headers={"vary": "accept"})
    page = draw(status)
    return pages.page(page, pages.policy(page), cache="no-store", headers={"vary": "accept"})


@get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response[bytes]:
    """Prometheus' text format."""
    services = services_of(request)

    async def depth() -> None:
        async with services.database.transaction(None) as session:
            services.metrics.queue.set(await lookups.open_messages(session))

    database, bus = await asyncio.gather(_timed(depth), _timed(services.bus.ping))
    services.metrics.database_up.set(database is not None)
    services.metrics.bus_up.set(bus is not None)
    return Response(generate_latest(services.metrics.registry), media_type="text/plain; version=0.0.4")

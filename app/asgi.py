"""The web process: the visitor origin and the dashboard origin, two servers on one event loop (`python -m app.asgi`).

They share the database pool, the Redis clients and the relay of events. Nothing here imports the model.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import structlog
import uvicorn
from litestar import Litestar
from litestar.datastructures import State
from litestar.types import ControllerRouterHandler
from redis.exceptions import RedisError

from app import log as logs
from app.config import Settings, SettingsError, settings
from app.http import guide, operations, pages, reference
from app.http.edge import BODY_BYTES, Edge
from app.http.problems import HANDLERS
from app.http.routes import MEMBERS, OPERATIONS, VISITORS
from app.http.services import Services, open_services
from app.redis import process_key

REFERENCE = (reference.openapi, reference.reference, pages.favicon)
VISITOR_PAGES = (
    pages.frame, pages.full_page, pages.demo, pages.loader, pages.widget_file,
    guide.root, guide.robots, guide.guide_index, guide.guide_page, guide.guide_picture,
)  # fmt: skip
DASHBOARD_PAGES = (pages.dashboard_root, pages.dashboard_page, pages.dashboard_file)

VERSION = "0.1.0"
ALIVE_SECONDS, ALIVE_EVERY = 15, 5.0
KEEP_ALIVE_SECONDS = 65  # above the 60 s of common proxies, so that it is they who close
GRACE_SECONDS = 5  # for requests in flight when the process ends; streams end at once

log = structlog.get_logger()


def _application(
    services: Services, surface: Literal["visitor", "dashboard"], handlers: Sequence[ControllerRouterHandler]
) -> Edge:
    application = Litestar(
        route_handlers=[*handlers, *OPERATIONS, *REFERENCE],
        exception_handlers=HANDLERS,
        openapi_config=None,
        logging_config=None,
        request_max_body_size=BODY_BYTES,
        state=State({"services": services, "status": operations.StatusCache()}),
        debug=False,
    )
    url = services.settings.visitor_url if surface == "visitor" else services.settings.dashboard_url
    return Edge(application, surface, services.metrics, url)


def create_visitor_app(services: Services) -> Edge:
    """The visitor origin: widget, full page, the visitors' API, the guide."""
    return _application(services, "visitor", [*VISITORS, *VISITOR_PAGES])


def create_dashboard_app(services: Services) -> Edge:
    """The dashboard origin: the members' API and dashboard, and metrics."""
    return _application(services, "dashboard", [*MEMBERS, *DASHBOARD_PAGES, operations.metrics])


class Server(uvicorn.Server):
    """A server whose process ends cleanly with streams open: they watch an event instead of being cut."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Two servers share the process: `main` takes its signals and hands them to both.
        yield

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._services.closing.set()
        self._services.relay.close()
        super().handle_exit(sig, frame)


def web_server(services: Services, application: Edge, **options: Any) -> Server:
    """A server for one origin, as every web process runs it; `options` are further ones of uvicorn's."""
    proxies = services.settings.trusted_proxies
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # uvicorn would believe the header from 127.0.0.1 alone: from a local program, and from no real proxy.
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="none",
        **options,
    )
    return Server(config, services)


def _listen(host: str, port: int, variable: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SystemExit(f"Cannot listen on {host}:{port} ({error.strerror}). Set {variable} to a free port.") from None
    listening.set_inheritable(True)
    return listening


async def _stay_alive(services: Services) -> None:
    """Renew the sign of life that /status reads."""
    key = process_key("web", f"{socket.gethostname()}-{os.getpid()}")
    value = msgspec.json.encode({"pid": os.getpid(), "started": time.time(), "version": VERSION})
    while not services.closing.is_set():
        try:
            await services.bus.set(key, value, ex=ALIVE_SECONDS)
        except (RedisError, OSError):
            log.warning("heartbeat_without_bus")
        try:
            async with asyncio.timeout(ALIVE_EVERY):
                await services.closing.wait()
        except TimeoutError:
            continue
    try:
        async with asyncio.timeout(0.5):
            await services.bus.delete(key)
    except (RedisError, OSError, TimeoutError):
        log.info("heartbeat_left_to_expire")


async def serve(chosen: Settings, sockets: tuple[socket.socket, socket.socket]) -> None:
    """Serve both origins until SIGTERM or SIGINT."""
    async with open_services(chosen) as services:
        servers = [web_server(services, make(services)) for make in (create_visitor_app, create_dashboard_app)]
        loop = asyncio.get_running_loop()

        def end(sig: int) -> None:
            for server in servers:
                server.handle_exit(sig, None)

        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, end, sig)
        log.info("web_started", visitors=chosen.visitor_url, dashboard=chosen.dashboard_url)
        alive = asyncio.create_task(_stay_alive(services), name="alive")
        await asyncio.gather(*(server.serve([listening]) for server, listening in zip(servers, sockets, strict=True)))
        services.closing.set()
        await alive
        log.info("web_ended")


def main() -> None:
    """Listen first, so that a port in use is told before anything else is opened."""
    try:
        chosen = settings()
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    logs.configure("web", log_format=chosen.log_format, level=chosen.log_level)
    sockets = (
        _listen(chosen.host, chosen.visitor_port, "RETORT_VISITOR_PORT"),
        _listen(chosen.host, chosen.dashboard_port, "RETORT_DASHBOARD_PORT"),
    )
    asyncio.run(serve(chosen, sockets))
    # Everything is closed by now. Taking the interpreter's modules apart would cost as long again as all that did.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

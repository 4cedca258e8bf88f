"""The outermost layer of both origins: request id, security headers, the access log and metrics, and addresses with NUL.

It wraps the Litestar application, so that what no route answers passes here as well.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from typing import Literal

import structlog
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from app.db.ids import new_id
from app.http.metrics import Metrics
from app.http.problems import Problem, encode
from app.security.loopback import is_loopback_alias

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
BODY_BYTES = 256 * 1024  # 20,000 characters, each escaped as a surrogate pair, still arrive and are told that they are too many
# What has no policy of its own is data: nothing in it runs, and nobody frames it.
CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
REQUEST_SECONDS = 20.0  # to the response's head; whatever hangs behind, the caller does not
TOO_SLOW = Problem(
    503, "too-slow", "This took too long", "The server is busy or a part of it hangs. Try again.", headers={"retry-after": "5"}
)
QUIET = ("/health/live", "/health/ready", "/metrics")

log = structlog.get_logger()


class Edge:
    """An ASGI application around `app`. `surface` is the origin: `visitor` or `dashboard`."""

    def __init__(self, app: ASGIApp, surface: Literal["visitor", "dashboard"], metrics: Metrics, origin: str) -> None:
        self.app, self.surface, self.metrics, self.origin = app, surface, metrics, origin
        referrer = "strict-origin-when-cross-origin" if surface == "visitor" else "same-origin"
        self.defaults = {
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": referrer.encode(),
            b"content-security-policy": CSP.encode(),
            b"cross-origin-resource-policy": b"same-origin",
            b"cross-origin-opener-policy": b"same-origin",
            b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=()",
            b"cache-control": b"no-store",
        }
        if origin.startswith("https://"):
            self.defaults[b"strict-transport-security"] = b"max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else str(new_id())
        scope["request_id"] = request_id  # type: ignore[typeddict-unknown-key]
        started, status = time.perf_counter(), 0

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message.get("headers", ()), request_id, scope.get("limits", {}))
                if not limit.expired():
                    limit.reschedule(None)  # a stream takes as long as it takes
                route = scope.get("path_template") or "unmatched"
                self.metrics.latency.labels(self.surface, route).observe(time.perf_counter() - started)
            await send(message)

        structlog.contextvars.clear_contextvars()  # what a route binds (conversation, message) is this request's alone
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                async with asyncio.timeout(REQUEST_SECONDS) as limit:
                    refused = self._refuse(scope)
                    await (_answer(respond, refused, request_id) if refused else self.app(scope, receive, respond))
            except TimeoutError:
                if not limit.expired() or status:
                    raise
                await _answer(respond, TOO_SLOW, request_id)
            finally:
                self._record(scope, status, time.perf_counter() - started)

    def _headers(
        self, given: Iterable[tuple[bytes, bytes]], request_id: str, limits: dict[str, str]
    ) -> list[tuple[bytes, bytes]]:
        headers = [(name.lower(), value) for name, value in given]
        present = {name for name, _ in headers}
        if b"ratelimit-limit" not in present:
            headers += [(name.encode(), value.encode()) for name, value in limits.items()]
        headers += [(name, value) for name, value in self.defaults.items() if name not in present]
        headers.append((b"x-request-id", request_id.encode()))
        return headers

    def _refuse(self, scope: HTTPScope) -> Problem | None:
        """What is answered before any route: an address with NUL, and a loopback name that is not the configured one."""
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope.get("query_string", b""):
            return Problem(400, "request-invalid", "The request is not valid", "The address holds a NUL.")
        headers = dict(scope["headers"])
        given, wanted = headers.get(b"host", b"").decode("latin-1"), headers.get(b"accept", b"")
        if b"text/html" in wanted and scope["method"] == "GET" and is_loopback_alias(f"http://{given}", self.origin):
            # A browser at http://localhost:8460 instead of http://127.0.0.1:8460: the same server, another origin.
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            target = f"{self.origin}{scope['raw_path'].decode('latin-1')}{query}"
            return Problem(307, "moved", "This is at its own address", f"See {target}", headers={"location": target})
        return None

    def _record(self, scope: HTTPScope, status: int, seconds: float) -> None:
        route = scope.get("path_template") or "unmatched"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "OTHER"
        self.metrics.requests.labels(self.surface, method, route, status).inc()
        if route not in QUIET:
            path = scope["path"][:200]
            log.info("request", surface=self.surface, method=method, path=path, status=status, ms=round(seconds * 1000, 1))


async def _answer(send: Send, problem: Problem, request_id: str) -> None:
    status, headers, body = encode(problem, request_id)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})

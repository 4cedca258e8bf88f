"""The outermost layer of both origins: request id, security headers, the access log and metrics, and addresses with NUL.

It wraps the Litestar application, so that what no route answers passes here as well.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Literal

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.db.ids import new_id
from app.http.metrics import Metrics
from app.http.problems import Problem, encode

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
BODY_BYTES = 256 * 1024  # 20,000 characters, each escaped as a surrogate pair, still arrive and are told that they are too many
# What has no policy of its own is data: nothing in it runs, and nobody frames it.
CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
QUIET = ("/health/live", "/health/ready", "/metrics")

log = structlog.get_logger()


class Edge:
    """An ASGI application around `app`. `surface` is the origin: `visitor` or `dashboard`."""

    def __init__(self, app: ASGIApp, surface: Literal["visitor", "dashboard"], metrics: Metrics, *, https: bool) -> None:
        self.app, self.surface, self.metrics = app, surface, metrics
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
        if https:
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
                message["headers"] = self._headers(message.get("headers", ()), request_id)
                route = scope.get("path_template") or "unmatched"
                self.metrics.latency.labels(self.surface, route).observe(time.perf_counter() - started)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if b"%00" in scope.get("raw_path", b"") or b"%00" in scope.get("query_string", b""):
                    await _refuse_nul(respond, request_id)
                else:
                    await self.app(scope, receive, respond)
            finally:
                self._record(scope, status, time.perf_counter() - started)

    def _headers(self, given: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
        headers = [(name.lower(), value) for name, value in given]
        present = {name for name, _ in headers}
        headers += [(name, value) for name, value in self.defaults.items() if name not in present]
        headers.append((b"x-request-id", request_id.encode()))
        return headers

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("path_template") or "unmatched"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "OTHER"
        self.metrics.requests.labels(self.surface, method, route, status).inc()
        if route not in QUIET:
            path = scope["path"][:200]
            log.info("request", surface=self.surface, method=method, path=path, status=status, ms=round(seconds * 1000, 1))


async def _refuse_nul(send: Send, request_id: str) -> None:
    problem = Problem(400, "request-invalid", "The request is not valid", "The address holds a NUL.")
    status, headers, body = encode(problem, request_id)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""The one error shape: problem documents (RFC 9457) with a stable `code`, for every error of both origins."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap
from litestar.utils.scope.state import ScopeState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.accounts.service import AccountError
from app.assistants.service import AssistantError, KeyReused, SlugTaken
from app.conversations.service import MessageRefused
from app.http import html as pages
from app.http.outbound import TargetError

TYPE = "https://retort.invalid/problems/"
MEDIA_TYPE = "application/problem+json"
PROGRAMS = ("/api/", "/widget/v1/", "/schema/")  # paths that answer data alone
DATABASE_RETRY = 5  # seconds

log = structlog.get_logger()

# Half a surrogate pair as a JSON escape: the decoder refuses it, and the reader should hear why.
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

CODES = {
    400: ("request-invalid", "The request is not valid"),
    401: ("not-signed-in", "You are not signed in"),
    403: ("not-allowed", "You may not do this"),
    404: ("not-found", "There is nothing here"),
    405: ("method-not-allowed", "This address does not take that method"),
    413: ("body-too-large", "The request is too large"),
    415: ("media-type", "The request is not JSON"),
    429: ("too-many-requests", "Too many requests"),
}


class Problem(Exception):
    """An error that the caller is told about. `code` is for programs and never changes; `title` and `detail` are for people."""

    def __init__(
        self, status: int, code: str, title: str, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.title, self.detail = status, code, title, detail
        self.field, self.headers = field, headers or {}

    def document(self) -> dict[str, Any]:
        """The body of the response but for its request id."""
        body: dict[str, Any] = {
            "type": TYPE + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.field:
            body["field"] = self.field
        return body


def not_found(what: str) -> Problem:
    return Problem(404, "not-found", f"There is no such {what}", f"The {what} does not exist, or it belongs to somebody else.")


def encode(problem: Problem, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the response."""
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", **problem.headers}
    return problem.status, headers, msgspec.json.encode(problem.document() | {"request_id": request_id})


def respond(request: Request, problem: Problem) -> Response[Any]:
    """The document; to a browser that asks for a page, a page that says the same."""
    request_id = str(request.scope.get("request_id", ""))
    status, headers, body = encode(problem, request_id)
    drawn = request.method == "GET" and not request.scope["path"].startswith(PROGRAMS)
    if drawn and "text/html" in request.headers.get("accept", ""):
        # A browser that follows a link: the same, drawn.
        text = pages.plain(problem.title, pages.problem(problem.title, problem.detail, request_id))
        return pages.page(text, pages.policy(text), cache="no-store", status=status, headers=problem.headers)
    headers = {name: value for name, value in headers.items() if name != "content-type"}
    return Response(body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def _not_text(request: Request) -> Problem:
    code = "message-not-text" if request.scope["path"].endswith("/messages") else "text-invalid"
    detail = "It holds half a character (a lone surrogate) or bytes that are no UTF-8. Write it again as plain text."
    return Problem(422, code, "The message is not text" if code[0] == "m" else "This is not text", detail)


def _http(request: Request, error: HTTPException) -> Response[Any]:
    body = ScopeState.from_scope(request.scope).body
    if error.status_code == 400 and isinstance(body, bytes) and SURROGATE.search(body):
        return respond(request, _not_text(request))
    if isinstance(error, ValidationException) and error.extra:
        first = error.extra[0] if isinstance(error.extra, list) else {}
        field = str(first.get("key") or "") or None
        message = str(first.get("message") or error.detail)
        return respond(request, Problem(422, "request-invalid", "The request is not valid", f"{message}.", field=field))
    if error.status_code == 400:
        detail = "The body is not the JSON that is expected here. docs/api.md and /docs show what is."
        return respond(request, Problem(400, "request-invalid", "The request is not valid", detail))
    code, title = CODES.get(error.status_code, (f"http-{error.status_code}", "The request was not accepted"))
    if error.status_code >= 500:
        return _unexpected(request, error)
    details = {
        404: f"Nothing is at {request.scope['path'][:200]}.",
        405: f"{request.method} is not answered here.",
        413: "Send less at once.",
        415: "Send application/json.",
    }
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() in ("allow", "retry-after")}
    detail = details.get(error.status_code, error.detail or title)
    return respond(request, Problem(error.status_code, code, title, detail, headers=headers))


def _database(request: Request, error: Exception) -> Response[Any]:
    log.error("database_away", error=str(error).splitlines()[0][:200])
    return respond(
        request,
        Problem(
            503,
            "database-away",
            "The database does not answer",
            "Nothing was stored. Try again in a moment.",
            headers={"retry-after": str(DATABASE_RETRY)},
        ),
    )


def _dbapi(request: Request, error: DBAPIError) -> Response[Any]:
    if error.connection_invalidated:
        return _database(request, error)
    return _unexpected(request, error)


def _unexpected(request: Request, error: Exception) -> Response[Any]:
    log.error("unexpected", exc_info=error, path=request.scope["path"])
    detail = "This is a fault of the server. Try again; if it stays, tell us the request id."
    return respond(request, Problem(500, "internal", "Something went wrong", detail))


HANDLERS: ExceptionHandlersMap = {
    Problem: lambda request, error: respond(request, error),
    MessageRefused: lambda request, e: respond(request, Problem(e.status, e.code, e.title, e.detail, field="text")),
    AssistantError: lambda request, e: respond(
        request, Problem(422, "assistant-invalid", "The assistant cannot be changed so", str(e), field=e.field)
    ),
    SlugTaken: lambda request, e: respond(request, Problem(409, "slug-taken", "This address is taken", str(e), field=e.field)),
    KeyReused: lambda request, e: respond(
        request, Problem(409, "idempotency-key-reused", "The Idempotency-Key was used before", str(e))
    ),
    AccountError: lambda request, e: respond(request, Problem(422, "account-invalid", "This cannot be saved", str(e))),
    TargetError: lambda request, e: respond(request, Problem(422, e.code, "This address cannot be read", e.detail, field="url")),
    UnicodeDecodeError: lambda request, e: respond(request, _not_text(request)),
    HTTPException: _http,
    OperationalError: _database,
    InterfaceError: _database,
    PoolTimeout: _database,
    DBAPIError: _dbapi,
    Exception: _unexpected,
}

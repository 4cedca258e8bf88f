"""Who is calling: a visitor by token, a member by session cookie (with CSRF token on unsafe calls), a program by API key.

Guards run before a body is read. They leave the caller in `request.auth`; a route says what it needs by `opt`:
`opt={"needs": "write"}` asks for a role and, of an API key, a scope that allow it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from sqlalchemy import or_, select, update

from app.accounts.models import ApiKey, Member
from app.accounts.service import KEY_PREFIX, bind_workspace, hash_token
from app.config import Settings
from app.db import lookups
from app.http.problems import Problem
from app.http.rate_limit import CALLS_CALLER, READS_VISITOR
from app.http.services import Services, services_of
from app.security import tokens

CSRF_HEADER = "x-csrf-token"
SAFE = ("GET", "HEAD", "OPTIONS")

# What each role may do. An API key may do what its scopes and its member's role both allow.
ROLES = {
    "owner": ("read", "ask", "write"),
    "admin": ("read", "ask", "write"),
    "agent": ("read", "ask"),
    "viewer": ("read",),
}
KEY_USED_EVERY = timedelta(minutes=1)  # how exactly `last_used_at` is kept


@dataclass(frozen=True, slots=True)
class Caller:
    """A member, or a program that acts for one."""

    workspace_id: UUID
    member_id: UUID
    role: str
    session_id: UUID | None = None
    csrf_token: str | None = None
    key_id: UUID | None = None
    scopes: tuple[str, ...] = ()

    def may(self, need: str) -> bool:
        return need in ROLES.get(self.role, ()) and (self.key_id is None or need in self.scopes)

    @property
    def name(self) -> str:
        """By whom limits count."""
        return f"key:{self.key_id}" if self.key_id else f"member:{self.member_id}"


def cookie_name(settings: Settings) -> str:
    """Under https a browser takes a `__Host-` cookie from this host alone, never from a sibling (RFC 6265bis, section 4.1.3.2)."""
    return "__Host-retort_session" if settings.dashboard_url.startswith("https://") else "retort_session"


def bearer(connection: ASGIConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _tell_limits(connection: ASGIConnection, headers: dict[str, str]) -> None:
    """Every response says what is left (Edge adds these); a route with a narrower limit of its own says that instead."""
    connection.scope["limits"] = headers  # type: ignore[typeddict-unknown-key]


async def visitor_guard(connection: ASGIConnection, _handler: BaseRouteHandler) -> None:
    """Leave the token's claims in `request.auth`. Raises Problem 401, or 429 for a noisy reader."""
    services = services_of(connection)
    token = bearer(connection)
    if token is None:
        raise tokens.token_invalid()
    claims = tokens.read(services.settings.secret, token)
    connection.scope["auth"] = claims
    if connection.scope.get("method") in SAFE:
        _tell_limits(connection, await services.limiter.take((READS_VISITOR, str(claims.visitor_id))))


async def member_guard(connection: ASGIConnection, handler: BaseRouteHandler) -> None:
    """Leave the Caller in `request.auth`, if role and scopes allow what the route needs. Raises Problem 401, 403, 429."""
    services = services_of(connection)
    token = bearer(connection)
    caller = await (_by_key(services, token) if token is not None else _by_cookie(services, connection))
    connection.scope["auth"] = caller
    _tell_limits(connection, await services.limiter.take((CALLS_CALLER, caller.name)))
    need = handler.opt.get("needs", "read")
    if need == "session":
        if caller.session_id is None:
            raise Problem(403, "session-needed", "Sign in for this", "An API key cannot do this; sign in as a member.")
    elif not caller.may(need):
        who = "This API key" if caller.key_id else f"The role {caller.role}"
        raise Problem(
            403, "not-allowed", "You may not do this", f"{who} lacks the permission “{need}”. Ask an owner of the workspace."
        )


async def _by_key(services: Services, token: str) -> Caller:
    if token.startswith(KEY_PREFIX):
        async with services.database.transaction(None) as session:
            owner = await lookups.api_key(session, hash_token(token))
            if owner is not None:
                await bind_workspace(session, owner.workspace_id)
                role = (await session.execute(select(Member.role).where(Member.id == owner.member_id))).scalar_one()
                now = datetime.now(UTC)
                stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - KEY_USED_EVERY)
                await session.execute(update(ApiKey).where(ApiKey.id == owner.key_id, stale).values(last_used_at=now))
                return Caller(owner.workspace_id, owner.member_id, role, key_id=owner.key_id, scopes=tuple(owner.scopes))
    raise Problem(
        401,
        "key-invalid",
        "The API key is not valid",
        "It is unknown or revoked. Send Authorization: Bearer rk_…",
        headers={"www-authenticate": "Bearer"},
    )


async def _by_cookie(services: Services, connection: ASGIConnection) -> Caller:
    cookie = connection.cookies.get(cookie_name(services.settings))
    caller = await signed_in(services, cookie) if cookie else None
    if caller is None:
        raise Problem(401, "not-signed-in", "You are not signed in", "Sign in, or send an API key as Authorization: Bearer rk_…")
    if connection.scope.get("method") not in SAFE:
        given = connection.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode(), (caller.csrf_token or "").encode()):
            raise Problem(
                403,
                "csrf",
                "The request lacks its CSRF token",
                "Send X-CSRF-Token as GET /api/v1/me gives it, or reload the page.",
            )
    return caller


async def signed_in(services: Services, cookie: str) -> Caller | None:
    """The member whose session this cookie names."""
    async with services.database.transaction(None) as session:
        found = await lookups.member_session(session, hash_token(cookie))
        if found is None:
            return None
        await bind_workspace(session, found.workspace_id)
        role = (await session.execute(select(Member.role).where(Member.id == found.member_id))).scalar_one()
    return Caller(found.workspace_id, found.member_id, role, session_id=found.session_id, csrf_token=found.csrf_token)

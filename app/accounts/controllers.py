"""`/api/v1`: signing in and out, and who one is."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post, put
from litestar.datastructures import Cookie
from litestar.di import Provide
from sqlalchemy import select

from app.accounts import service
from app.accounts.models import Member
from app.accounts.schemas import ApiKeyPage, Me, NewApiKey, NewApiKeyOut, NewPassword, SignIn, SignInByLink
from app.db import lookups
from app.http.paging import LIMIT, Cursor, Limit, decode_cursor, encode_cursor, page
from app.http.problems import Problem, not_found
from app.http.rate_limit import PASSWORD_MEMBER, SIGN_IN_ADDRESS, SIGN_IN_EMAIL, SIGN_IN_PAIR
from app.http.routing import answers, client_address, provide_caller, provide_services
from app.http.services import Services
from app.security.guards import Caller, cookie_name, member_guard


def session_cookie(services: Services, token: str, seconds: int) -> Cookie:
    """The cookie that carries a session for so many seconds; 0 takes it out of the browser."""
    secure = services.settings.dashboard_url.startswith("https://")
    name = cookie_name(services.settings)
    return Cookie(key=name, value=token, path="/", max_age=seconds, httponly=True, samesite="lax", secure=secure)


def _check_origin(request: Request, services: Services) -> None:
    """No session yet, so no CSRF token: a foreign page must not sign a browser in as somebody else."""
    origin = request.headers.get("origin")
    if origin is not None and origin != services.settings.dashboard_url:
        raise Problem(403, "origin-not-allowed", "Sign in on the dashboard itself", f"This came from {origin[:200]}.")


async def _signed_in(services: Services, session: Any, member: Member, *, by_link: bool = False) -> Response[dict[str, Any]]:
    opened = await service.open_session(session, member, by_link=by_link)
    body = await service.member_view(session, member) | {"csrf_token": opened.csrf_token}
    cookie = session_cookie(services, opened.token, int(service.SESSION_LIFE.total_seconds()))
    return Response(body, status_code=200, cookies=[cookie])


class SignInController(Controller):
    path = "/api/v1"
    tags = ("Account",)
    dependencies = {"services": Provide(provide_services)}  # noqa: RUF012

    @post("/sign-in", status_code=200, operation_id="signIn", responses=answers(200, Me))
    async def sign_in(self, request: Request, services: Services, data: SignIn) -> Response[dict[str, Any]]:
        """By password."""
        _check_origin(request, services)
        email, address = data.email.strip().lower(), client_address(request)
        known_as = service.hash_token(email)
        await services.limiter.take(
            (SIGN_IN_PAIR, f"{address}:{known_as}"), (SIGN_IN_ADDRESS, address), (SIGN_IN_EMAIL, known_as)
        )
        async with services.database.transaction(None) as session:
            found = await lookups.member_by_email(session, email)
            member = None
            if found is not None:
                await service.bind_workspace(session, found[0])
                member = (await session.execute(select(Member).where(Member.id == found[1]))).scalar_one_or_none()
        # Outside the transaction: the hash takes tens of milliseconds, with or without such a member.
        known = member.password_hash if member else None
        matches = await asyncio.to_thread(service.verify_password, data.password, known)
        if member is None or not matches:
            detail = "The e-mail address or the password is wrong. A member without a password signs in by a link."
            raise Problem(401, "sign-in-failed", "Signing in did not work", detail)
        async with services.database.transaction(member.workspace_id) as session:
            return await _signed_in(services, session, member)

    @post("/sign-in/link", status_code=200, operation_id="signInByLink", responses=answers(200, Me))
    async def by_link(self, request: Request, services: Services, data: SignInByLink) -> Response[dict[str, Any]]:
        """The one-time link, good for 24 hours."""
        _check_origin(request, services)
        await services.limiter.take((SIGN_IN_ADDRESS, client_address(request)))
        async with services.database.transaction(None) as session:
            found = await lookups.sign_in_link(session, service.hash_token(data.token))
            member = None
            if found is not None:
                await service.bind_workspace(session, found[0])
                member = await service.use_sign_in_link(session, found[1])
            if member is None:
                detail = "Each link works once, for 24 hours. `retort owner` with your address prints a fresh one."
                raise Problem(401, "link-used-or-expired", "This link was used or has expired", detail)
            return await _signed_in(services, session, member, by_link=True)


class AccountController(Controller):
    path = "/api/v1"
    tags = ("Account",)
    guards = (member_guard,)
    dependencies = {"services": Provide(provide_services), "caller": Provide(provide_caller)}  # noqa: RUF012
    security = [{"session": []}, {"key": []}]  # noqa: RUF012

    @get("/me", operation_id="me", summary="Who is calling", responses=answers(200, Me))
    async def me(self, services: Services, caller: Caller) -> dict[str, Any]:
        async with services.database.transaction(caller.workspace_id) as session:
            member = (await session.execute(select(Member).where(Member.id == caller.member_id))).scalar_one()
            return await service.member_view(session, member) | {"csrf_token": caller.csrf_token}

    @post("/sign-out", status_code=204, operation_id="signOut", opt={"needs": "session"})
    async def sign_out(self, services: Services, caller: Caller) -> Response[None]:
        if caller.session_id is not None:
            async with services.database.transaction(caller.workspace_id) as session:
                await service.close_session(session, caller.session_id)
        return Response(None, status_code=204, cookies=[session_cookie(services, "", 0)])

    @put("/me/password", status_code=204, operation_id="setPassword", opt={"needs": "session"})
    async def set_password(self, services: Services, caller: Caller, data: NewPassword) -> None:
        """Signs every other browser of this member out.

        A session alone must not take an account over, so the present password is asked for; who has forgotten it signs in
        by a link.
        """
        async with services.database.transaction(caller.workspace_id) as session:
            present = (await session.execute(select(Member.password_hash).where(Member.id == caller.member_id))).scalar_one()
            renews = await service.came_by_link(session, caller.session_id)
        if present is not None and not renews:
            await services.limiter.take((PASSWORD_MEMBER, str(caller.member_id)))
            if not await asyncio.to_thread(service.verify_password, data.current_password or "", present):
                detail = "Give the present password. If it is forgotten, sign in by a one-time link and set a new one."
                raise Problem(403, "password-wrong", "The present password is not right", detail, field="current_password")
        hashed = await asyncio.to_thread(service.hash_password, data.password)
        async with services.database.transaction(caller.workspace_id) as session:
            await service.set_password(session, caller.member_id, hashed, caller.session_id)


class KeyController(Controller):
    path = "/api/v1/keys"
    tags = ("API keys",)
    guards = (member_guard,)
    dependencies = {"services": Provide(provide_services), "caller": Provide(provide_caller)}  # noqa: RUF012
    security = [{"session": []}]  # noqa: RUF012

    @get("/", operation_id="listKeys", responses=answers(200, ApiKeyPage), opt={"needs": "session"})
    async def index(self, services: Services, caller: Caller, limit: Limit = LIMIT, cursor: Cursor = None) -> dict[str, Any]:
        """The keys in use: one's own, and for owners and admins those of the whole workspace."""
        after = decode_cursor(cursor, tuple[datetime, UUID]) if cursor else None
        async with services.database.transaction(caller.workspace_id) as session:
            keys = await service.list_api_keys(session, _whose(caller), limit, after)
        more, keys = len(keys) > limit, keys[:limit]
        views = [service.api_key_view(key, email) for key, email in keys]
        return page(views, encode_cursor(keys[-1][0].created_at, keys[-1][0].id) if more else None)

    @post("/", operation_id="createKey", responses=answers(201, NewApiKeyOut), opt={"needs": "session"})
    async def create(self, services: Services, caller: Caller, data: NewApiKey) -> dict[str, Any]:
        """A key that acts for this member. Its secret is in this answer and nowhere else."""
        lacking = [scope for scope in data.scopes if not caller.may(scope)]
        if lacking:
            detail = f"The role {caller.role} lacks the permission “{lacking[0]}”, so its keys cannot have it."
            raise Problem(403, "not-allowed", "You may not do this", detail, field="scopes")
        async with services.database.transaction(caller.workspace_id) as session:
            member = (await session.execute(select(Member).where(Member.id == caller.member_id))).scalar_one()
            secret = await service.create_api_key(session, member, data.name, data.scopes)
            row = await service.find_api_key(session, secret)
            return service.api_key_view(row, member.email) | {"key": secret}

    @delete("/{key_id:uuid}", operation_id="revokeKey", opt={"needs": "session"})
    async def revoke(self, services: Services, caller: Caller, key_id: UUID) -> None:
        """At once, and for good. Owners and admins may revoke any key of the workspace."""
        async with services.database.transaction(caller.workspace_id) as session:
            if not await service.revoke_api_key(session, key_id, _whose(caller)):
                raise not_found("key")


def _whose(caller: Caller) -> UUID | None:
    """Whose keys a caller may see and revoke: their own, or everybody's in the workspace (None)."""
    return None if caller.may("write") else caller.member_id

"""`/api/v1`: signing in and out, and who one is."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Controller, Request, Response, get, post, put
from litestar.datastructures import Cookie
from litestar.di import Provide
from sqlalchemy import select

from app.accounts import service
from app.accounts.models import Member
from app.accounts.schemas import Me, NewPassword, SignIn, SignInByLink
from app.db import lookups
from app.http.problems import Problem
from app.http.rate_limit import SIGN_IN_ADDRESS, SIGN_IN_EMAIL
from app.http.routing import answers, client_address, provide_caller, provide_services
from app.http.services import Services
from app.security.guards import COOKIE, Caller, member_guard


def session_cookie(services: Services, token: str, seconds: int) -> Cookie:
    secure = services.settings.dashboard_url.startswith("https://")
    return Cookie(key=COOKIE, value=token, path="/", max_age=seconds, httponly=True, samesite="lax", secure=secure)


def _check_origin(request: Request, services: Services) -> None:
    """No session yet, so no CSRF token: a foreign page must not sign a browser in as somebody else."""
    origin = request.headers.get("origin")
    if origin is not None and origin != services.settings.dashboard_url:
        raise Problem(403, "origin-not-allowed", "Sign in on the dashboard itself", f"This came from {origin[:200]}.")


async def _signed_in(services: Services, session: Any, member: Member) -> Response[dict[str, Any]]:
    opened = await service.open_session(session, member)
    body = await service.member_view(session, member) | {"csrf_token": opened.csrf_token}
    cookie = session_cookie(services, opened.token, int(service.SESSION_LIFE.total_seconds()))
    return Response(body, status_code=200, cookies=[cookie])


class SignInController(Controller):
    path = "/api/v1"
    tags = ("Account",)
    dependencies = {"services": Provide(provide_services)}  # noqa: RUF012

    @post("/sign-in", status_code=200, operation_id="signIn", responses=answers(200, Me))
    async def sign_in(self, request: Request, services: Services, data: SignIn) -> Response[dict[str, Any]]:
        _check_origin(request, services)
        email = data.email.strip().lower()
        await services.limiter.take((SIGN_IN_EMAIL, service.hash_token(email)), (SIGN_IN_ADDRESS, client_address(request)))
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
                detail = "Each link works once, for 24 hours. `retort up` prints a fresh one."
                raise Problem(401, "link-used-or-expired", "This link was used or has expired", detail)
            return await _signed_in(services, session, member)


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
        """Signs every other browser of this member out."""
        hashed = await asyncio.to_thread(service.hash_password, data.password)
        async with services.database.transaction(caller.workspace_id) as session:
            await service.set_password(session, caller.member_id, hashed, caller.session_id)

"""Members sign in, programs use keys, and nobody reaches beyond their role, scope or workspace."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import update

from app.accounts import service as accounts
from app.accounts.models import ApiKey, Member, MemberSession
from app.db.ids import new_id
from tests.api.conftest import add_member, join, problem, serving, sign_in


async def owner(db, tenant) -> Member:
    async with db.transaction(tenant.workspace_id) as session:
        return await session.get(Member, tenant.member_id)


async def test_a_link_signs_in_once(members, db, tenant):
    member = await owner(db, tenant)
    async with db.transaction(tenant.workspace_id) as session:
        token = await accounts.create_sign_in_link(session, member)
    answer = await members.post("/api/v1/sign-in/link", json={"token": token})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 200 and answer.json()["member"]["email"] == tenant.email
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and "path=/" in cookie.lower()
    assert (await members.get("/api/v1/me")).json() == answer.json()
    problem(await members.post("/api/v1/sign-in/link", json={"token": token}), 401, "link-used-or-expired")
    problem(await members.post("/api/v1/sign-in/link", json={"token": "nothing"}), 401, "link-used-or-expired")


async def test_an_expired_link_does_not_sign_in(members, db, tenant):
    member = await owner(db, tenant)
    async with db.transaction(tenant.workspace_id) as session:
        token = await accounts.create_sign_in_link(session, member, life=timedelta(seconds=-1))
    problem(await members.post("/api/v1/sign-in/link", json={"token": token}), 401, "link-used-or-expired")


async def test_a_password_is_set_and_used_and_signs_other_browsers_out(members, web, db, tenant):
    member = await owner(db, tenant)
    async with httpx.AsyncClient(base_url=web.dashboard_url) as other:
        await sign_in(other, db, member)
        csrf = {"x-csrf-token": await sign_in(members, db, member)}
        problem(await members.put("/api/v1/me/password", json={"password": "short"}, headers=csrf), 422, "request-invalid")
        password = secrets.token_urlsafe(12)
        assert (await members.put("/api/v1/me/password", json={"password": password}, headers=csrf)).status_code == 204
        assert (await members.get("/api/v1/me")).json()["member"]["has_password"] is True
        problem(await other.get("/api/v1/me"), 401, "not-signed-in")
        answer = await other.post("/api/v1/sign-in", json={"email": tenant.email.upper(), "password": password})
        assert answer.status_code == 200
        for email, wrong in ((tenant.email, password + "x"), ("nobody@example.org", password)):
            refused = await other.post("/api/v1/sign-in", json={"email": email, "password": wrong})
            problem(refused, 401, "sign-in-failed")


async def test_a_session_alone_does_not_replace_a_password(members, web, db, tenant):
    member = await owner(db, tenant)
    csrf = {"x-csrf-token": await sign_in(members, db, member)}
    first, second, third = (secrets.token_urlsafe(12) for _ in range(3))
    path = "/api/v1/me/password"
    assert (await members.put(path, json={"password": first}, headers=csrf)).status_code == 204
    # The link has done its service: the same session is now one like any other.
    for given in ({}, {"current_password": "a guess"}):
        refused = await members.put(path, json={"password": second, **given}, headers=csrf)
        assert problem(refused, 403, "password-wrong")["field"] == "current_password"
    body = {"password": second, "current_password": first}
    assert (await members.put(path, json=body, headers=csrf)).status_code == 204
    async with httpx.AsyncClient(base_url=web.dashboard_url) as thief:
        answer = await thief.post("/api/v1/sign-in", json={"email": tenant.email, "password": second})
        stolen = {"x-csrf-token": answer.json()["csrf_token"]}
        codes = [(await thief.put(path, json={"password": third}, headers=stolen)).status_code for _ in range(4)]
        assert codes == [403, 403, 429, 429]  # two of the five guesses, and the right one, were made above
    # Who has forgotten it comes by a link, and needs no old one for an hour.
    async with httpx.AsyncClient(base_url=web.dashboard_url) as forgetful:
        fresh = {"x-csrf-token": await sign_in(forgetful, db, member)}
        assert (await forgetful.put(path, json={"password": third}, headers=fresh)).status_code == 204


async def test_an_hour_after_the_link_the_present_password_is_asked_for(members, db, tenant):
    member = await owner(db, tenant)
    csrf = {"x-csrf-token": await sign_in(members, db, member)}
    async with db.transaction(tenant.workspace_id) as session:
        (await session.get(Member, tenant.member_id)).password_hash = accounts.hash_password("the present one")
        earlier = MemberSession.created_at - timedelta(minutes=61)
        await session.execute(update(MemberSession).where(MemberSession.member_id == member.id).values(created_at=earlier))
    answer = await members.put("/api/v1/me/password", json={"password": "another one"}, headers=csrf)
    problem(answer, 403, "password-wrong")


async def test_guessing_passwords_is_slowed_down(members, tenant):
    body = {"email": tenant.email, "password": "a guess"}
    codes = [(await members.post("/api/v1/sign-in", json=body)).status_code for _ in range(6)]
    assert codes == [401] * 5 + [429]


async def test_guessing_from_one_address_locks_nobody_out_elsewhere(stack, db, tenant):
    """Two addresses of the loopback network, told apart by a trusted proxy's header."""
    password = secrets.token_urlsafe(12)
    async with db.transaction(tenant.workspace_id) as session:
        (await session.get(Member, tenant.member_id)).password_hash = accounts.hash_password(password)
    settings = replace(stack.settings, trusted_proxies=("127.0.0.1",))
    async with serving(settings) as web, httpx.AsyncClient(base_url=web.dashboard_url, timeout=15) as client:

        async def attempt(address: str, guess: str) -> int:
            body = {"email": tenant.email, "password": guess}
            return (await client.post("/api/v1/sign-in", json=body, headers={"x-forwarded-for": address})).status_code

        assert [await attempt("203.0.113.9", "a guess") for _ in range(7)][-2:] == [429, 429]
        assert await attempt("203.0.113.10", password) == 200


async def test_under_https_the_cookie_is_bound_to_the_host(stack, db, tenant):
    settings = replace(stack.settings, dashboard_origin="https://dashboard.example.org")
    async with serving(settings) as web:
        url = f"http://127.0.0.1:{web.settings.dashboard_port}"
        async with db.transaction(tenant.workspace_id) as session:
            token = await accounts.create_sign_in_link(session, await session.get(Member, tenant.member_id))
        async with httpx.AsyncClient(base_url=url) as client:
            answer = await client.post("/api/v1/sign-in/link", json={"token": token})
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-retort_session=") and "Secure" in cookie and "Path=/" in cookie
            assert "domain" not in cookie.lower()
            value = cookie.partition("=")[2].partition(";")[0]
            # The plain name, which a sibling host could set, opens nothing.
            client.cookies.clear()
            for name, status in (("__Host-retort_session", 200), ("retort_session", 401)):
                told = await client.get("/api/v1/me", headers={"cookie": f"{name}={value}"})
                assert told.status_code == status


async def test_signing_out_ends_the_session(members, db, tenant):
    csrf = {"x-csrf-token": await sign_in(members, db, await owner(db, tenant))}
    kept = dict(members.cookies)
    assert (await members.post("/api/v1/sign-out", headers=csrf)).status_code == 204
    members.cookies.update(kept)
    problem(await members.get("/api/v1/me"), 401, "not-signed-in")


async def test_unsafe_calls_need_the_csrf_token(members, db, tenant):
    csrf = await sign_in(members, db, await owner(db, tenant))
    for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": csrf + "x"}):
        answer = await members.patch(f"/api/v1/assistants/{tenant.slug}", json={"name": "Forged"}, headers=headers)
        problem(answer, 403, "csrf")
    allowed = await members.patch(f"/api/v1/assistants/{tenant.slug}", json={"name": "Meant"}, headers={"x-csrf-token": csrf})
    assert allowed.status_code == 200 and allowed.json()["name"] == "Meant"


async def test_a_foreign_page_signs_nobody_in(members):
    body, foreign = {"email": "a@example.org", "password": "a password"}, {"origin": "https://evil.example"}
    problem(await members.post("/api/v1/sign-in", json=body, headers=foreign), 403, "origin-not-allowed")
    problem(await members.post("/api/v1/sign-in/link", json={"token": "t"}, headers=foreign), 403, "origin-not-allowed")


async def test_without_cookie_or_key_nothing_answers(members):
    problem(await members.get("/api/v1/me"), 401, "not-signed-in")
    members.cookies.set("retort_session", "made-up")
    problem(await members.get("/api/v1/assistants"), 401, "not-signed-in")
    for key in ("rk_unknown", "not-a-key"):
        problem(await members.get("/api/v1/me", headers={"authorization": f"Bearer {key}"}), 401, "key-invalid")


@pytest.mark.parametrize(
    ("role", "reads", "asks", "writes"), [("agent", 200, 201, 403), ("viewer", 200, 403, 403), ("admin", 200, 201, 200)]
)
async def test_roles_bound_what_a_member_may(members, db, tenant, role, reads, asks, writes):
    member = await add_member(db, tenant.workspace_id, role, f"{role}-{secrets.token_hex(4)}@example.org")
    csrf = {"x-csrf-token": await sign_in(members, db, member)}
    assert (await members.get("/api/v1/assistants")).status_code == reads
    started = await members.post(f"/api/v1/assistants/{tenant.slug}/conversations", json={}, headers=csrf)
    assert started.status_code == asks
    changed = await members.patch(f"/api/v1/assistants/{tenant.slug}", json={"name": "New"}, headers=csrf)
    assert changed.status_code == writes


async def test_scopes_bound_what_a_key_may_and_a_revoked_key_may_nothing(members, db, tenant):
    async with db.transaction(tenant.workspace_id) as session:
        key = await accounts.create_api_key(session, await session.get(Member, tenant.member_id), "reader", ["read"])
    auth = {"authorization": f"Bearer {key}"}
    assert (await members.get("/api/v1/assistants", headers=auth)).status_code == 200
    told = await members.get("/api/v1/me", headers=auth)
    assert int(told.headers["ratelimit-remaining"]) < int(told.headers["ratelimit-limit"])
    me = told.json()
    assert me["csrf_token"] is None
    problem(await members.patch(f"/api/v1/assistants/{tenant.slug}", json={}, headers=auth), 403, "not-allowed")
    problem(await members.post(f"/api/v1/assistants/{tenant.slug}/conversations", json={}, headers=auth), 403, "not-allowed")
    problem(await members.put("/api/v1/me/password", json={"password": "long enough!"}, headers=auth), 403, "session-needed")
    async with db.transaction(tenant.workspace_id) as session:
        from sqlalchemy import select

        row = (await session.execute(select(ApiKey).where(ApiKey.name == "reader"))).scalar_one()
        assert row.last_used_at is not None and key not in (row.prefix, row.token_hash)
        await accounts.revoke_api_key(session, row.id)
    problem(await members.get("/api/v1/assistants", headers=auth), 401, "key-invalid")


async def test_an_api_key_asks_and_reads_the_trace(members, key, tenant):
    started = await members.post(f"/api/v1/assistants/{tenant.slug}/conversations", json={}, headers=key)
    assert started.status_code == 201 and started.json()["messages"] == []
    path = f"/api/v1/conversations/{started.json()['id']}"
    asked = await members.post(f"{path}/messages", json={"text": "Try"}, headers={**key, "idempotency-key": "a"})
    again = await members.post(f"{path}/messages", json={"text": "Try"}, headers={**key, "idempotency-key": "a"})
    assert asked.status_code == again.status_code == 202 and asked.json() == again.json()
    answer = asked.json()["answer"]
    assert (await members.get(path, headers=key)).json()["messages"][1] == answer
    traced = (await members.get(f"/api/v1/messages/{answer['id']}", headers=key)).json()
    assert traced == answer | {"trace": {}}
    stopped = await members.post(f"/api/v1/messages/{answer['id']}/stop", headers=key)
    assert stopped.json()["status"] == "cancelled"
    retried = await members.post(f"/api/v1/messages/{answer['id']}/retry", headers=key)
    assert retried.status_code == 202 and retried.json()["answer"]["status"] == "queued"
    await members.post(f"/api/v1/messages/{retried.json()['answer']['id']}/stop", headers=key)
    async with members.stream("GET", f"{path}/events", headers=key) as response:
        assert response.status_code == 200
        assert "event: snapshot" in (await response.aread()).decode()


async def test_members_read_a_visitors_conversation_but_do_not_write_in_it(members, visitors, key, tenant):
    visitor = await join(visitors, tenant.slug)
    asked = (await visitor.ask("Private")).json()
    path = f"/api/v1/conversations/{visitor.conversation}"
    assert (await members.get(path, headers=key)).json()["messages"][0]["text"] == "Private"
    problem(await members.post(f"{path}/messages", json={"text": "I am you"}, headers=key), 403, "not-your-conversation")
    problem(await members.post(f"/api/v1/messages/{asked['answer']['id']}/stop", headers=key), 403, "not-your-conversation")


async def test_another_workspaces_objects_do_not_exist(members, visitors, key, db, tenant, tenant_factory):
    other = await tenant_factory()
    visitor = await join(visitors, other.slug)
    answer = (await visitor.ask("Theirs")).json()["answer"]
    for path in (
        f"/api/v1/assistants/{other.slug}",
        f"/api/v1/assistants/{other.assistant_id}",
        f"/api/v1/conversations/{visitor.conversation}",
        f"/api/v1/conversations/{visitor.conversation}/events",
        f"/api/v1/messages/{answer['id']}",
        f"/api/v1/sources/{new_id()}",
        f"/api/v1/documents/{new_id()}",
    ):
        problem(await members.get(path, headers=key), 404, "not-found")
    problem(await members.patch(f"/api/v1/assistants/{other.slug}", json={"name": "Mine"}, headers=key), 404, "not-found")
    problem(await members.post(f"/api/v1/assistants/{other.slug}/conversations", json={}, headers=key), 404, "not-found")
    problem(await members.post(f"/api/v1/messages/{answer['id']}/stop", headers=key), 404, "not-found")
    assert [a["slug"] for a in (await members.get("/api/v1/assistants", headers=key)).json()["items"]] == [tenant.slug]


async def test_no_secret_leaves_the_server(members, key, web, tenant):
    seen = ""
    for path in ("/api/v1/me", "/api/v1/assistants", f"/api/v1/assistants/{tenant.slug}", "/status", "/metrics", "/docs"):
        seen += (await members.get(path, headers=key)).text
    for secret in (web.settings.secret, web.settings.database_url, tenant.api_key, "password_hash", "token_hash", "argon2id"):
        assert secret not in seen

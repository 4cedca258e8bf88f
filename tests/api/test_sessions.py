"""A page asks for a visitor's token."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt

from app.assistants.brand import contrast
from app.conversations.models import Visitor
from app.db.ids import new_id
from app.security import tokens
from app.security.tokens import VisitorClaims
from tests.api.conftest import problem


async def test_the_visitor_origin_may_always_ask(visitors, web, tenant):
    answer = await visitors.post("/widget/v1/session", json={"assistant": tenant.slug})
    body = answer.json()
    assert answer.status_code == 201 and body["expires_in"] == 3600
    assert body["assistant"]["slug"] == tenant.slug
    assert contrast(body["assistant"]["brand"]["brand"], "#ffffff") >= 4.5
    assert answer.headers["access-control-allow-origin"] == web.visitor_url
    assert "persona" not in answer.text and web.settings.secret not in answer.text


async def test_only_exact_origins_of_the_list_may_ask(visitors, tenant_factory):
    tenant = await tenant_factory(allowed_origins=["https://shop.example.org:8443"])
    for origin in ("https://shop.example.org", "http://shop.example.org:8443", "https://evil.example", "null", ""):
        answer = await visitors.post("/widget/v1/session", json={"assistant": tenant.slug}, headers={"origin": origin})
        problem(answer, 403, "origin-not-allowed")
        assert "token" not in answer.json()
        assert answer.headers["access-control-allow-origin"] == origin  # the loader reads why, and nothing else is in it
    allowed = {"origin": "https://shop.example.org:8443"}
    answer = await visitors.post("/widget/v1/session", json={"assistant": tenant.slug}, headers=allowed)
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == "https://shop.example.org:8443"
    assert "origin" in answer.headers["vary"] and "access-control-allow-credentials" not in answer.headers


async def test_a_request_without_origin_is_refused(web, tenant):
    import httpx

    async with httpx.AsyncClient(base_url=web.visitor_url) as client:
        problem(await client.post("/widget/v1/session", json={"assistant": tenant.slug}), 403, "origin-not-allowed")


async def test_no_other_route_answers_by_cors(visitors, asker):
    foreign = {"origin": "https://evil.example", **asker.auth}
    answer = await visitors.get(f"/widget/v1/conversations/{asker.conversation}", headers=foreign)
    assert "access-control-allow-origin" not in answer.headers
    answer = await visitors.options("/widget/v1/session", headers={"origin": "https://shop.example.org"})
    assert answer.status_code == 204 and answer.headers["access-control-allow-methods"] == "POST"


async def test_an_unknown_assistant_is_named_as_such(visitors):
    problem(await visitors.post("/widget/v1/session", json={"assistant": "no-such"}), 404, "assistant-unknown")


async def test_an_expired_token_is_refused_but_keeps_its_visitor(visitors, web, tenant, asker):
    now = datetime.now(UTC)
    body = jwt.decode(asker.token, options={"verify_signature": False})
    expired = jwt.encode(body | {"iat": now - timedelta(hours=2), "exp": now - timedelta(hours=1)}, web.settings.secret, "HS256")
    path = f"/widget/v1/conversations/{asker.conversation}"
    problem(await visitors.get(path, headers={"authorization": f"Bearer {expired}"}), 401, "token-expired")
    again = await visitors.post("/widget/v1/session", json={"assistant": tenant.slug, "visitor_token": expired})
    assert again.status_code == 201 and UUID(again.json()["visitor_id"]) == asker.visitor_id
    fresh = {"authorization": f"Bearer {again.json()['token']}"}
    assert (await visitors.get(path, headers=fresh)).status_code == 200


async def test_tokens_that_this_server_did_not_sign_are_refused(visitors, web, tenant, tenant_factory, asker):
    claims = VisitorClaims(tenant.workspace_id, tenant.assistant_id, asker.visitor_id, web.visitor_url)
    body = jwt.decode(asker.token, options={"verify_signature": False})
    forged = [
        tokens.issue("another secret of thirty-two bytes", claims),
        jwt.encode(body, None, "none"),
        jwt.encode(body | {"aud": "other"}, web.settings.secret, "HS256"),
        "rubbish",
        tenant.api_key,
    ]
    for token in forged:
        headers = {"authorization": f"Bearer {token}"}
        answer = await visitors.get(f"/widget/v1/conversations/{asker.conversation}", headers=headers)
        problem(answer, 401, "token-invalid")
    problem(await visitors.get(f"/widget/v1/conversations/{asker.conversation}"), 401, "token-invalid")
    other = await tenant_factory()
    crossed = await visitors.post("/widget/v1/session", json={"assistant": other.slug, "visitor_token": asker.token})
    problem(crossed, 401, "token-invalid")


async def test_a_visitor_sees_no_other_visitors_conversation(visitors, tenant, asker):
    from tests.api.conftest import join

    other = await join(visitors, tenant.slug)
    path = f"/widget/v1/conversations/{asker.conversation}"
    problem(await visitors.get(path, headers=other.auth), 404, "not-found")
    problem(await visitors.get(f"{path}/events", headers=other.auth), 404, "not-found")
    problem(await visitors.post(f"{path}/messages", json={"text": "hi"}, headers=other.auth), 404, "not-found")
    asked = (await asker.ask("A question")).json()
    for verb in ("stop", "retry"):
        problem(await other.act(asked["answer"]["id"], verb), 404, "not-found")
    problem(await visitors.get(f"/widget/v1/conversations/{new_id()}", headers=other.auth), 404, "not-found")


async def test_a_visitor_is_stored_with_the_first_conversation_and_not_before(visitors, db, tenant):
    async def stored(visitor_id: str) -> Visitor | None:
        async with db.transaction(tenant.workspace_id) as session:
            return await session.get(Visitor, UUID(visitor_id))

    first = (await visitors.post("/widget/v1/session", json={"assistant": tenant.slug})).json()
    again = {"assistant": tenant.slug, "visitor_token": first["token"]}
    second = (await visitors.post("/widget/v1/session", json=again)).json()
    assert second["visitor_id"] == first["visitor_id"] and await stored(first["visitor_id"]) is None
    auth = {"authorization": f"Bearer {second['token']}"}
    started = await asyncio.gather(*(visitors.post("/widget/v1/conversations", json={}, headers=auth) for _ in range(3)))
    assert {one.status_code for one in started} == {201} and len({one.json()["id"] for one in started}) == 3
    visitor = await stored(first["visitor_id"])
    assert visitor is not None and visitor.assistant_id == tenant.assistant_id and visitor.member_id is None

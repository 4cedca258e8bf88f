"""Changing an assistant, and asking a generator to search for it."""

from __future__ import annotations

import asyncio
import secrets
import time

import msgspec
import pytest

from app import redis as keys
from app.assistants.brand import DARK_SURFACE, brand, contrast
from app.assistants.models import Assistant
from tests.api.conftest import problem


async def test_an_assistant_is_read_by_id_and_slug(members, key, tenant):
    by_slug = (await members.get(f"/api/v1/assistants/{tenant.slug}", headers=key)).json()
    by_id = (await members.get(f"/api/v1/assistants/{tenant.assistant_id}", headers=key)).json()
    assert by_slug == by_id and by_slug["id"] == str(tenant.assistant_id)
    assert by_slug["source_ids"] == [] and by_slug["mode"] == "wording" and by_slug["persona"]


async def test_what_is_given_changes_and_the_rest_stays(members, key, db, tenant):
    path = f"/api/v1/assistants/{tenant.slug}"
    before = (await members.get(path, headers=key)).json()
    change = {
        "greeting": "Ask away.",
        "mode": "evidence",
        "brand_color": "#ffee00",
        "allowed_origins": ["HTTPS://Shop.Example.org:443/", "http://localhost:8000"],
        "contact": {"email": "help@example.org"},
        "suggested_questions": ["How much?", "  "],
    }
    after = (await members.patch(path, json=change, headers=key)).json()
    assert after["greeting"] == "Ask away." and after["mode"] == "evidence"
    assert after["allowed_origins"] == ["https://shop.example.org", "http://localhost:8000"]
    assert after["contact"] == {"email": "help@example.org", "url": None} and after["suggested_questions"] == ["How much?"]
    assert contrast(after["brand"]["brand"], "#ffffff") >= 4.5
    assert {k: after[k] for k in ("name", "persona", "tone", "slug", "id")} == {
        k: before[k] for k in ("name", "persona", "tone", "slug", "id")
    }
    await members.patch(path, json={"persona": "You are somebody else."}, headers=key)
    async with db.transaction(tenant.workspace_id) as session:
        assert (await session.get(Assistant, tenant.assistant_id)).version == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"),
        ({"tone": "rude"}, "tone"),
        ({"mode": "guess"}, "mode"),
        ({"brand_color": "red; }"}, "brand_color"),
        ({"allowed_origins": ["*"]}, "allowed_origins"),
        ({"allowed_origins": ["https://a.example/path"]}, "allowed_origins"),
        ({"allowed_origins": ["https://a.example; script-src *"]}, "allowed_origins"),
        ({"contact": {"url": "javascript:alert(1)"}}, "contact.url"),
        ({"persona": "x" * 3000}, "persona"),
    ],
)
async def test_a_senseless_change_names_its_field_and_changes_nothing(members, key, tenant, change, field):
    path = f"/api/v1/assistants/{tenant.slug}"
    before = (await members.get(path, headers=key)).json()
    body = problem(await members.patch(path, json=change, headers=key), 422, "assistant-invalid")
    assert body["field"] == field
    assert (await members.get(path, headers=key)).json() == before


async def test_unknown_fields_and_nul_are_refused(members, key, tenant):
    path = f"/api/v1/assistants/{tenant.slug}"
    problem(await members.patch(path, json={"slug": "mine"}, headers=key), 422, "request-invalid")
    problem(await members.patch(path, json={"name": "a\x00b"}, headers=key), 422, "request-invalid")
    problem(await members.get("/api/v1/assistants/%00", headers=key), 400, "request-invalid")


@pytest.mark.parametrize("colour", ["#0b6e63", "#ffffff", "#000000", "#ffee00", "#f00", "#808080", "#00ff00"])
def test_every_brand_reaches_aa(colour):
    made = brand(colour)
    assert contrast(made["brand"], made["brand_on"]) >= 4.5 and contrast(made["brand"], "#ffffff") >= 4.5
    assert contrast(made["brand_dark"], DARK_SURFACE) >= 4.5


async def test_search_is_answered_by_whoever_serves_the_bus(members, key, bus, tenant):
    await bus.delete(keys.REQUESTS)
    passage = {
        "passage_id": "p", "document_id": "d", "title": "T", "url": "https://e.example/", "heading_path": ["H"],
        "text": "…", "score": 0.5, "vector_score": 0.6, "text_rank": None, "sentences": [],
    }  # fmt: skip

    async def generator() -> dict:
        _, raw = await bus.blpop([keys.REQUESTS], timeout=3)
        request = msgspec.json.decode(raw)
        await bus.rpush(keys.reply_list(request["id"]), msgspec.json.encode({"passages": [passage], "ms": 12.5}))
        return request

    serving = asyncio.create_task(generator())
    answer = await members.post(f"/api/v1/assistants/{tenant.slug}/search", json={"query": "how"}, headers=key)
    request = await serving
    assert answer.json() == {"passages": [passage], "ms": 12.5}
    assert request["kind"] == "retrieve" and request["assistant_id"] == str(tenant.assistant_id)
    assert request["workspace_id"] == str(tenant.workspace_id) and request["deadline"] > time.time()


async def test_search_without_a_generator_says_so_within_its_deadline(members, key, bus, tenant):
    started = time.perf_counter()
    answer = await members.post(f"/api/v1/assistants/{tenant.slug}/search", json={"query": "how"}, headers=key)
    assert 1.5 < time.perf_counter() - started < 3.5
    problem(answer, 503, "generator-away")
    assert answer.headers["retry-after"] == "2"
    await bus.delete(keys.REQUESTS)
    problem(
        await members.post(f"/api/v1/assistants/{tenant.slug}/search", json={"query": ""}, headers=key), 422, "request-invalid"
    )


async def test_an_assistant_is_made_with_a_name_alone_or_with_a_slug(members, key, visitors):
    name = f"Docs of {secrets.token_hex(4)}"
    made = await members.post("/api/v1/assistants", json={"name": name}, headers=key)
    assert made.status_code == 201
    assert made.json()["slug"] == name.lower().replace(" ", "-") and made.json()["source_ids"] == []
    second = (await members.post("/api/v1/assistants", json={"name": name}, headers=key)).json()
    assert second["slug"].startswith(made.json()["slug"] + "-") and second["id"] != made.json()["id"]
    slug = f"chosen-{secrets.token_hex(4)}"
    chosen = (await members.post("/api/v1/assistants", json={"name": "Chosen", "slug": slug}, headers=key)).json()
    assert chosen["slug"] == slug and name not in chosen["persona"] and "Chosen" in chosen["persona"]
    assert (await members.get(f"/api/v1/assistants/{slug}", headers=key)).json() == chosen
    assert (await visitors.post("/widget/v1/session", json={"assistant": slug})).status_code == 201


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": ""}, "request-invalid"),
        ({"name": "  "}, "assistant-invalid"),
        ({"name": "x" * 81}, "request-invalid"),
        ({"name": "A", "slug": "No Slug"}, "assistant-invalid"),
        ({"name": "A", "slug": "-a"}, "assistant-invalid"),
        ({"name": "A", "persona": "not here"}, "request-invalid"),
        ({}, "request-invalid"),
    ],
)
async def test_an_assistant_that_cannot_be_is_not_made(members, key, body, code):
    before = (await members.get("/api/v1/assistants", headers=key)).json()
    answer = await members.post("/api/v1/assistants", json=body, headers=key)
    assert answer.status_code in (400, 422) and answer.json()["code"] == code
    assert (await members.get("/api/v1/assistants", headers=key)).json() == before


async def test_a_taken_slug_is_told_even_when_another_workspace_has_it(members, key, tenant, tenant_factory):
    other = await tenant_factory()
    for slug in (tenant.slug, other.slug):
        answer = await members.post("/api/v1/assistants", json={"name": "Twice", "slug": slug}, headers=key)
        assert problem(answer, 409, "slug-taken")["field"] == "slug"
    assert len((await members.get("/api/v1/assistants", headers=key)).json()["items"]) == 1


async def test_the_same_key_makes_one_assistant(members, key, tenant_factory):
    headers, body = {**key, "idempotency-key": "make-1"}, {"name": f"Once {secrets.token_hex(4)}"}
    answers = await asyncio.gather(*(members.post("/api/v1/assistants", json=body, headers=headers) for _ in range(4)))
    assert {a.status_code for a in answers} == {201} and len({a.json()["id"] for a in answers}) == 1
    other = await members.post("/api/v1/assistants", json={"name": "Another"}, headers=headers)
    problem(other, 409, "idempotency-key-reused")
    # Another workspace's key of the same name is its own.
    theirs = {"authorization": f"Bearer {(await tenant_factory()).api_key}", "idempotency-key": "make-1"}
    elsewhere = await members.post("/api/v1/assistants", json=body, headers=theirs)
    assert elsewhere.status_code == 201 and elsewhere.json()["id"] != answers[0].json()["id"]
    problem(
        await members.post("/api/v1/assistants", json=body, headers={**key, "idempotency-key": "a\x7fb"}),
        400,
        "idempotency-key-invalid",
    )


async def test_assistants_are_paged(members, key, tenant):
    for number in range(3):
        await members.post("/api/v1/assistants", json={"name": f"Number {number}"}, headers=key)
    path, seen, cursor = "/api/v1/assistants", [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await members.get(path, params=query, headers=key)).json()
        assert len(page["items"]) <= 2
        seen += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen[1:] == ["Number 0", "Number 1", "Number 2"]
    problem(await members.get(path, params={"limit": 1, "cursor": "zz"}, headers=key), 422, "cursor-invalid")
    problem(await members.get(path, params={"limit": 0}, headers=key), 422, "request-invalid")


async def test_a_wrong_contact_is_named_as_it_was_given(members, key, tenant):
    for name, wrong in (("email", "nobody"), ("url", "ftp://x")):
        answer = await members.patch(f"/api/v1/assistants/{tenant.slug}", json={"contact": {name: wrong}}, headers=key)
        assert problem(answer, 422, "assistant-invalid")["field"] == f"contact.{name}"

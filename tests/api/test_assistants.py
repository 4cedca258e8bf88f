"""Changing an assistant, and asking a generator to search for it."""

from __future__ import annotations

import asyncio
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
        ({"contact": {"url": "javascript:alert(1)"}}, "contact_url"),
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

"""Sources and documents, as members add, watch, filter and remove them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import httpx
import numpy
import pytest

from app.content.models import Document, Passage, Source
from app.db.ids import new_id
from tests.api.conftest import problem, serving


@pytest.fixture
async def open_members(stack, tenant):
    """A dashboard that may read one private address, so that nothing needs to resolve."""
    settings = replace(stack.settings, allow_private=("127.0.0.1:9",))
    async with (
        serving(settings) as web,
        httpx.AsyncClient(base_url=web.dashboard_url, headers={"authorization": f"Bearer {tenant.api_key}"}) as client,
    ):
        yield client


async def stored_source(db, tenant, statuses: list[str]) -> UUID:
    """A source with a document of each status; those that were read have two passages."""
    source_id, vector = new_id(), numpy.zeros(384)
    async with db.transaction(tenant.workspace_id) as session:
        session.add(
            Source(
                id=source_id, workspace_id=tenant.workspace_id, url=f"https://{source_id}.example/", title="Docs",
                status="reading", run=1, started_at=datetime.now(UTC),
            )
        )  # fmt: skip
        await session.flush()
        for number, status in enumerate(statuses):
            document = Document(
                id=new_id(), workspace_id=tenant.workspace_id, source_id=source_id,
                url=f"https://x.example/{number:03}",
                title=f"Page {number} 100%", status=status, depth=number % 2, fetched_at=datetime.now(UTC), words=7, bytes=70,
                version=1,
            )  # fmt: skip
            session.add(document)
            await session.flush()
            for ordinal in range(2 if status == "read" else 0):
                session.add(
                    Passage(
                        workspace_id=tenant.workspace_id, source_id=source_id, document_id=document.id, ordinal=ordinal,
                        url=document.url, title=document.title, heading_path=["A", "B"], fragment="b", text="A sentence.",
                        tokens=3, embedding=vector, sentences=[[0, 11]], sentence_vectors=b"",
                    )
                )  # fmt: skip
    return source_id


async def test_a_website_is_added_once_and_read_again(open_members, tenant):
    body = {"kind": "website", "url": "HTTP://127.0.0.1:9/docs#top", "assistant": tenant.slug, "title": "Ours"}
    first = await open_members.post("/api/v1/sources", json=body)
    assert first.status_code == 202, first.text
    made = first.json()
    assert made["url"] == "http://127.0.0.1:9/docs" and made["status"] == "waiting" and made["title"] == "Ours"
    assert made["assistant_ids"] == [str(tenant.assistant_id)] and set(made["counts"].values()) == {0}
    second = (await open_members.post("/api/v1/sources", json=body | {"assistant": str(tenant.assistant_id)})).json()
    assert second["id"] == made["id"]
    listed = (await open_members.get("/api/v1/sources", params={"assistant": tenant.slug})).json()
    assert [s["id"] for s in listed["items"]] == [made["id"]] and listed["next_cursor"] is None
    assistant = (await open_members.get(f"/api/v1/assistants/{tenant.slug}")).json()
    assert assistant["source_ids"] == [made["id"]]
    again = await open_members.post(f"/api/v1/sources/{made['id']}/read")
    assert again.status_code == 202 and again.json()["status"] == "waiting"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("not a url", "url-invalid"),
        ("ftp://example.org/", "url-invalid"),
        ("http://", "url-invalid"),
        ("http://127.0.0.1:22/", "url-private"),
        ("http://[::1]/", "url-private"),
        ("http://169.254.169.254/latest", "url-private"),
        ("https://no-such-host.invalid/", "url-unresolvable"),
    ],
)
async def test_an_address_that_cannot_be_read_is_refused(open_members, tenant, url, code):
    answer = await open_members.post("/api/v1/sources", json={"url": url, "assistant": tenant.slug})
    assert problem(answer, 422, code)["field"] == "url"
    assert (await open_members.get("/api/v1/sources")).json()["items"] == []


async def test_a_source_counts_what_became_of_its_pages(members, key, db, tenant):
    statuses = ["read", "read", "unchanged", "skipped", "failed", "waiting", "fetching", "fetched"]
    source_id = await stored_source(db, tenant, statuses)
    source = (await members.get(f"/api/v1/sources/{source_id}", headers=key)).json()
    assert source["counts"] == {
        "found": 8, "waiting": 3, "read": 2, "unchanged": 1, "skipped": 1, "failed": 1, "fetching": 1, "fetched": 1,
        "passages": 4,
    }  # fmt: skip
    assert source["current"] == "https://x.example/006" and source["pages_per_second"] > 0


async def test_documents_are_paged_without_gap_or_repeat(members, key, db, tenant):
    source_id = await stored_source(db, tenant, ["read"] * 7)
    seen, cursor = [], None
    while True:
        params = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = (await members.get(f"/api/v1/sources/{source_id}/documents", params=params, headers=key)).json()
        seen += [d["url"] for d in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 7
    bad = await members.get(f"/api/v1/sources/{source_id}/documents", params={"cursor": "%%%"}, headers=key)
    problem(bad, 422, "cursor-invalid")
    bad = await members.get(f"/api/v1/sources/{source_id}/documents", params={"limit": 0}, headers=key)
    assert problem(bad, 422, "request-invalid")["field"] == "limit"


async def test_documents_are_filtered_by_status_and_text(members, key, db, tenant):
    source_id = await stored_source(db, tenant, ["read", "fetched", "failed"])
    path = f"/api/v1/sources/{source_id}/documents"

    async def urls(**params: str) -> list[str]:
        return [d["url"][-3:] for d in (await members.get(path, params=params, headers=key)).json()["items"]]

    assert await urls(status="failed") == ["002"]
    assert await urls(status="fetching") == ["001"]
    assert await urls(q="PAGE 2") == ["002"]
    assert await urls(q="100%") == ["000", "002", "001"] and await urls(q="1_0") == []
    problem(await members.get(path, params={"status": "odd"}, headers=key), 422, "request-invalid")
    problem(await members.get(path, params={"q": "a\x00"}, headers=key), 400, "request-invalid")


async def test_a_document_shows_its_passages(members, key, db, tenant):
    source_id = await stored_source(db, tenant, ["read"])
    row = (await members.get(f"/api/v1/sources/{source_id}/documents", headers=key)).json()["items"][0]
    assert row["passages"] == 2
    whole = (await members.get(f"/api/v1/documents/{row['id']}", headers=key)).json()
    assert [p["ordinal"] for p in whole["passages"]] == [0, 1]
    assert whole["passages"][0]["heading_path"] == ["A", "B"] and whole["passages"][0]["text"] == "A sentence."
    assert {k: v for k, v in whole.items() if k != "passages"} == {k: v for k, v in row.items() if k != "passages"}


async def test_removing_a_source_removes_what_it_yielded(members, key, db, tenant):
    source_id = await stored_source(db, tenant, ["read"])
    row = (await members.get(f"/api/v1/sources/{source_id}/documents", headers=key)).json()["items"][0]
    assert (await members.delete(f"/api/v1/sources/{source_id}", headers=key)).status_code == 204
    problem(await members.delete(f"/api/v1/sources/{source_id}", headers=key), 404, "not-found")
    problem(await members.get(f"/api/v1/documents/{row['id']}", headers=key), 404, "not-found")


async def test_a_finished_source_waits_again_and_one_being_read_goes_on(members, key, db, tenant):
    source_id = await stored_source(db, tenant, [])
    reading = await members.post(f"/api/v1/sources/{source_id}/read", headers=key)
    assert reading.json()["status"] == "reading"
    async with db.transaction(tenant.workspace_id) as session:
        source = await session.get(Source, source_id)
        source.status, source.reason = "failed", "It answered 500."
    waiting = (await members.post(f"/api/v1/sources/{source_id}/read", headers=key)).json()
    assert waiting["status"] == "waiting" and waiting["reason"] is None


async def test_another_workspaces_source_does_not_exist(members, key, db, tenant_factory):
    source_id = await stored_source(db, await tenant_factory(), ["read"])
    for method, path in (("GET", ""), ("GET", "/documents"), ("POST", "/read"), ("DELETE", "")):
        problem(await members.request(method, f"/api/v1/sources/{source_id}{path}", headers=key), 404, "not-found")

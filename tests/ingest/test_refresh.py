"""After an upgrade that changes the encoder: vectors are made anew from the stored passages, page by page, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import undefer

from app.content.models import Passage
from app.content.search import hybrid
from app.db.lookups import stale_documents
from tests.ingest.crawled_site import Crawler, Reply, Website, page
from workers import tuned
from workers.ingest import embed, refresh

BELL = "The bell rings at noon, and the kitchen closes an hour later on every day of the week."
BOATS = "Boats are let from the small pier behind the mill, for two hours at most."
TODAY = tuned.fingerprint(tuned.shipped())


async def vectors(crawler: Crawler, source_id: UUID) -> dict[UUID, tuple[str, np.ndarray, bytes]]:
    """(encoder, vector, sentence vectors) by passage."""
    async with crawler.db.transaction(crawler.tenant.workspace_id) as session:
        options = (undefer(Passage.embedding), undefer(Passage.sentence_vectors))
        rows = [await session.get_one(Passage, one.id, options=options) for one in await crawler.passages(source_id)]
        return {one.id: (one.encoder, np.array(one.embedding, dtype=np.float32), one.sentence_vectors) for one in rows}


async def spoil(crawler: Crawler, source_id: UUID) -> None:
    """As an encoder of another version left the passages: its name, and vectors that say nothing."""
    async with crawler.db.transaction(crawler.tenant.workspace_id) as session:
        await session.execute(
            text(
                """UPDATE passages SET encoder = 'an earlier one', embedding = array_fill(0.05, ARRAY[384])::halfvec,
                       sentence_vectors = decode(repeat('00', length(sentence_vectors)), 'hex') WHERE source_id = :source"""
            ),
            {"source": source_id},
        )


async def stale(crawler: Crawler) -> set[UUID]:
    async with crawler.db.transaction(None) as session:
        found = await stale_documents(session, TODAY, limit=100_000)
    return {document_id for workspace_id, document_id in found if workspace_id == crawler.tenant.workspace_id}


@pytest.fixture
async def source_id(crawler: Crawler, site: Website) -> UUID:
    site["/"] = page("Opening hours", BELL, links=("/boats",))
    site["/boats"] = page("Boats", BOATS)
    found = await crawler.add(f"{site.url}/")
    await crawler.read(found)
    return found


async def test_a_page_that_is_read_carries_the_fingerprint_of_todays_encoder(crawler: Crawler, source_id: UUID) -> None:
    assert {encoder for encoder, *_ in (await vectors(crawler, source_id)).values()} == {TODAY}
    assert await stale(crawler) == set()


async def test_stale_pages_get_the_vectors_that_reading_them_again_would_give(crawler: Crawler, source_id: UUID) -> None:
    before = await vectors(crawler, source_id)
    await spoil(crawler, source_id)
    documents = await stale(crawler)
    assert len(documents) == 2
    for document_id in documents:
        assert await refresh.refresh_document(crawler.process, crawler.tenant.workspace_id, document_id) == 1
    after = await vectors(crawler, source_id)
    assert after.keys() == before.keys() and await stale(crawler) == set()
    for passage_id, (encoder, vector, sentences) in after.items():
        assert encoder == TODAY and np.abs(vector - before[passage_id][1]).max() < 2e-3
        own, earlier = (np.frombuffer(one, dtype=np.float16) for one in (sentences, before[passage_id][2]))
        assert np.abs(own - earlier).max() < 2e-3
    assert await refresh.refresh_document(crawler.process, crawler.tenant.workspace_id, documents.pop()) == 0


async def test_a_stale_page_is_found_by_its_words_until_its_turn_comes(crawler: Crawler, source_id: UUID) -> None:
    await spoil(crawler, source_id)
    encoder, _ = embed.load_encoder(crawler.process.settings.threads)
    vector = encoder.encode(["where are boats let"])[0].tolist()
    async with crawler.db.transaction(crawler.tenant.workspace_id) as session:
        hits = await hybrid(session, crawler.tenant.assistant_id, query="where are boats let", vector=vector)
    assert hits[0].text == BOATS


async def test_a_run_stops_after_its_time_and_the_next_goes_on(
    crawler: Crawler, source_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def own(session: Any, encoder: str, *, limit: int) -> list[tuple[UUID, UUID]]:
        """Other tests' passages are none of ours."""
        found = await stale_documents(session, encoder, limit=100_000)
        return [one for one in found if one[0] == crawler.tenant.workspace_id]

    monkeypatch.setattr(refresh, "stale_documents", own)
    await spoil(crawler, source_id)
    renewed = [await refresh.refresh(crawler.process, seconds=0) for _ in range(3)]
    assert renewed == [1, 1, 0] and await stale(crawler) == set()


async def test_a_long_page_is_renewed_in_parts(crawler: Crawler, site: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of models does one thing at a time: a handbook on one page must not keep it for minutes."""
    monkeypatch.setattr(refresh, "PASSAGES", 2)
    body = "".join(f"<h2>Part {number}</h2><p>{BELL} {BOATS} That is part {number}.</p>" for number in range(5))
    site["/"] = Reply(f"<html><head><title>Handbook</title></head><body><main>{body}</main></body></html>".encode())
    source_id = await crawler.add(f"{site.url}/")
    await crawler.read(source_id)
    count = len(await crawler.passages(source_id))
    await spoil(crawler, source_id)
    (document_id,) = await stale(crawler)
    renewed = []
    while await stale(crawler):
        renewed.append(await refresh.refresh_document(crawler.process, crawler.tenant.workspace_id, document_id, until=0.0))
    assert count > 2 and sum(renewed) == count and max(renewed) <= 2


async def test_a_page_that_is_read_again_meanwhile_keeps_what_was_read(
    crawler: Crawler, site: Website, source_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spoil(crawler, source_id)
    real = embed.embed

    async def slow(*arguments: Any) -> Any:
        made = await real(*arguments)
        monkeypatch.setattr(embed, "embed", real)
        site["/boats"] = page("Boats", "Boats are not let any more, for the pier behind the mill has fallen into the water.")
        await crawler.again(source_id)
        await crawler.read(source_id)
        return made

    (boats,) = [one.document_id for one in await crawler.passages(source_id) if one.text == BOATS]
    monkeypatch.setattr(embed, "embed", slow)
    assert await refresh.refresh_document(crawler.process, crawler.tenant.workspace_id, boats) == 0
    (passage,) = [one for one in await crawler.passages(source_id) if one.title == "Boats"]
    assert passage.text.startswith("Boats are not let any more") and passage.encoder == TODAY


async def test_a_source_that_is_removed_meanwhile_stays_removed(
    crawler: Crawler, source_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spoil(crawler, source_id)
    real = embed.embed

    async def slow(*arguments: Any) -> Any:
        made = await real(*arguments)
        async with crawler.db.transaction(crawler.tenant.workspace_id) as session:
            await session.execute(text("DELETE FROM sources WHERE id = :id"), {"id": source_id})
        return made

    monkeypatch.setattr(embed, "embed", slow)
    document_id = (await stale(crawler)).pop()
    assert await refresh.refresh_document(crawler.process, crawler.tenant.workspace_id, document_id) == 0
    assert await crawler.passages(source_id) == []

"""Hybrid search on PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio

import numpy as np
from sqlalchemy import text

from app.content.models import Document, Passage, Source
from app.content.search import hybrid, passages_by_id
from app.db.ids import new_id
from app.db.session import Database
from tests.answer.conftest import PAGES
from tests.conftest import Tenant, TenantFactory
from workers.answer.retrieve import sentence_vectors
from workers.encoder import Encoder


async def vector_of(encoder: Encoder, query: str) -> list[float]:
    return (await asyncio.to_thread(encoder.encode, [query]))[0].tolist()


async def test_the_passage_that_answers_comes_first(db: Database, encoder: Encoder, shop: Tenant) -> None:
    async with db.transaction(shop.workspace_id) as session:
        query = "How much is the deposit for an e-bike?"
        hits = await hybrid(session, shop.assistant_id, query=query, vector=await vector_of(encoder, query))
    assert hits[0].heading_path == ["Deposit"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(hits) == len(PAGES)
    assert sentence_vectors(hits[0]).shape == (len(hits[0].spans), 384)


async def test_rare_words_find_what_vectors_miss(db: Database, encoder: Encoder, shop: Tenant) -> None:
    """The vector is another question's: the words alone bring the passage up."""
    async with db.transaction(shop.workspace_id) as session:
        vector = await vector_of(encoder, "opening hours on sundays")
        hits = await hybrid(session, shop.assistant_id, query="isopropyl", vector=vector, limit=3)
    assert ["Brakes"] in [hit.heading_path for hit in hits]
    assert next(hit.text_rank for hit in hits if hit.heading_path == ["Brakes"]) > 0


async def test_odd_queries_are_searched_without_error(db: Database, encoder: Encoder, shop: Tenant) -> None:
    async with db.transaction(shop.workspace_id) as session:
        for query in ("", "???", "the", "'; DROP TABLE passages; --", "a & b | !c <-> d:*", "x" * 4000, "\\ ' \" :"):
            hits = await hybrid(session, shop.assistant_id, query=query, vector=[0.0] * 383 + [1.0], limit=2)
            assert len(hits) == 2


async def test_another_workspace_and_another_assistant_find_nothing(
    db: Database, encoder: Encoder, shop: Tenant, tenant_factory: TenantFactory
) -> None:
    other = await tenant_factory()
    vector = await vector_of(encoder, "deposit")
    async with db.transaction(other.workspace_id) as session:
        assert await hybrid(session, other.assistant_id, query="deposit", vector=vector) == []
        # Not even by naming the foreign assistant, or its passages.
        assert await hybrid(session, shop.assistant_id, query="deposit", vector=vector) == []
    async with db.transaction(shop.workspace_id) as session:
        ids = [hit.passage_id for hit in await hybrid(session, shop.assistant_id, query="deposit", vector=vector)]
        named = await passages_by_id(session, shop.assistant_id, ids[:2], vector=vector)
        assert {hit.passage_id for hit in named} == set(ids[:2])
    async with db.transaction(other.workspace_id) as session:
        assert await passages_by_id(session, shop.assistant_id, ids, vector=vector) == []


async def test_the_filter_by_tenant_does_not_starve_the_vector_index(
    db: Database, encoder: Encoder, shop: Tenant, tenant_factory: TenantFactory
) -> None:
    """With the planner held to the HNSW index, a small tenant among nearer neighbours of others still gets its passages."""
    crowd = await tenant_factory()
    vector = np.array(await vector_of(encoder, "deposit for an electric bicycle"))
    noise = np.random.default_rng(1).normal(size=(400, 384)) * 0.01
    source, document = new_id(), new_id()
    async with db.transaction(crowd.workspace_id) as session:
        session.add(Source(id=source, workspace_id=crowd.workspace_id, url="https://crowd.example"))
        await session.flush()
        session.add(Document(id=document, workspace_id=crowd.workspace_id, source_id=source, url="https://crowd.example/"))
        await session.flush()
        for ordinal, near in enumerate(vector + noise):
            session.add(
                Passage(
                    workspace_id=crowd.workspace_id, source_id=source, document_id=document, ordinal=ordinal, url="",
                    title="crowd", heading_path=[], text="crowd", tokens=1, embedding=near / np.linalg.norm(near),
                    sentences=[], sentence_vectors=b"",
                )
            )  # fmt: skip
    async with db.transaction(shop.workspace_id) as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        await session.execute(text("SET LOCAL enable_sort = off"))
        hits = await hybrid(session, shop.assistant_id, query="zzz", vector=vector.tolist(), limit=5)
    assert len(hits) == 5 and hits[0].heading_path == ["Deposit"]

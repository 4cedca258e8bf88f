"""The vector half of search among very many passages of others: exact where that is cheap, and never short of hits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.assistants.models import AssistantSource
from app.content import search
from app.content.models import VECTOR_SIZE, Document, Source
from app.db.ids import new_id
from app.db.session import Database
from tests.conftest import Tenant, TenantFactory

OWN, CROWD = 120, 3000

_FILL = text(
    """INSERT INTO passages (id, workspace_id, source_id, document_id, ordinal, url, title, heading_path, text, tokens, embedding,
           sentences, sentence_vectors)
       SELECT gen_random_uuid(), :workspace, :source, :document, n, '', 'filler', '{}', 'filler', 1,
           l2_normalize((SELECT array_agg(near * CAST(:share AS real) + random() - 0.5 + n * 0)
                         FROM unnest(CAST(:near AS real[])) near)::vector)::halfvec, '[]', ''
       FROM generate_series(1, :count) n"""
)


async def fill(db: Database, tenant: Tenant, count: int, near: np.ndarray, share: float) -> None:
    """Passages whose vectors are noise, or with a large `share` all but equal to `near`."""
    source, document = new_id(), new_id()
    async with db.transaction(tenant.workspace_id) as session:
        session.add(Source(id=source, workspace_id=tenant.workspace_id, url=f"https://{source}.example/"))
        await session.flush()
        session.add(Document(id=document, workspace_id=tenant.workspace_id, source_id=source, url="https://filler.example/"))
        session.add(AssistantSource(assistant_id=tenant.assistant_id, source_id=source, workspace_id=tenant.workspace_id))
        await session.flush()
        values = {"workspace": tenant.workspace_id, "source": source, "document": document, "count": count, "share": share}
        await session.execute(_FILL, values | {"near": near.tolist()})


@pytest.fixture
def query() -> np.ndarray:
    vector = np.random.default_rng(4).normal(size=VECTOR_SIZE)
    return vector / np.linalg.norm(vector)


@pytest.fixture
async def beside_a_crowd(db: Database, tenant: Tenant, tenant_factory: TenantFactory, query: np.ndarray) -> Tenant:
    """A tenant of a few passages, while another workspace has thousands right at the query."""
    await fill(db, tenant, OWN, query, share=0)
    await fill(db, await tenant_factory(), CROWD, query, share=400)
    return tenant


async def nearest(session: AsyncSession, tenant: Tenant, query: np.ndarray, count: int) -> list[UUID]:
    """The truth, computed here."""
    rows = (
        await session.execute(
            text("SELECT id, embedding::text FROM passages WHERE workspace_id = :w"), {"w": tenant.workspace_id}
        )
    ).all()
    vectors = np.array([np.fromstring(row[1].strip("[]"), sep=",") for row in rows])
    assert len(rows) == OWN
    # The question goes to 16 bits as the passages do; without that, near ties come out in another order.
    similarity = vectors @ query.astype(np.float16).astype(np.float64)
    return [rows[int(place)][0] for place in np.argsort(-similarity)[:count]]


async def hits(session: AsyncSession, tenant: Tenant, query: np.ndarray) -> list[UUID]:
    return [hit.passage_id for hit in await search.hybrid(session, tenant.assistant_id, query="zzz", vector=query.tolist())]


async def hold_to_the_index(session: AsyncSession, most: int) -> None:
    """The planner has no other way than HNSW, and HNSW gives up after so many passages (20,000 by default, as many as a test
    would have to store)."""
    await session.execute(text("SET LOCAL enable_seqscan = off"))
    await session.execute(text("SET LOCAL enable_sort = off"))
    await session.execute(text(f"SET LOCAL hnsw.max_scan_tuples = {most}"))


async def test_an_assistant_finds_exactly_its_nearest_passages_beside_any_crowd(
    db: Database, beside_a_crowd: Tenant, query: np.ndarray
) -> None:
    async with db.transaction(beside_a_crowd.workspace_id) as session:
        await hold_to_the_index(session, 500)
        assert await hits(session, beside_a_crowd, query) == await nearest(session, beside_a_crowd, query, 12)


async def test_a_large_assistant_that_the_index_starves_is_searched_exactly(
    db: Database, beside_a_crowd: Tenant, query: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "EXACT_PASSAGES", OWN - 1)
    values = {"query": "zzz", "depth": search.DEPTH, "limit": search.DEPTH}
    async with db.transaction(beside_a_crowd.workspace_id) as session:
        await hold_to_the_index(session, 500)
        found = await hits(session, beside_a_crowd, query)
        walked: Any = await search._rows(session, search._WALKED, beside_a_crowd.assistant_id, query.tolist(), values)
        assert len(walked) < search.DEPTH, "the walk was not starved, so this test shows nothing"
        assert found == await nearest(session, beside_a_crowd, query, 12)


async def test_a_large_assistant_is_found_by_walking_the_index(
    db: Database, beside_a_crowd: Tenant, query: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "EXACT_PASSAGES", OWN - 1)
    monkeypatch.setattr(search, "_EXACT", text("SELECT 1 / 0"))
    async with db.transaction(beside_a_crowd.workspace_id) as session:
        await hold_to_the_index(session, 20_000)
        found, true = await hits(session, beside_a_crowd, query), await nearest(session, beside_a_crowd, query, 12)
    assert len(found) == 12 and len(set(found) & set(true)) >= 10

"""Hybrid search: nearest vectors and full text, joined by reciprocal rank fusion, in one SQL statement.

Whoever wants an answer asks for all that both find and ranks it by what it says (workers.answer.fuse): ranks alone are a poor order.

The vector of a query comes from the generator, over the bus for whoever is not a generator. Sentence vectors come along, so
that the choice of evidence needs no second look.

An assistant with up to EXACT_PASSAGES is searched exactly, all its vectors and nobody else's. Beyond that the HNSW index is
walked, which holds every workspace's vectors: it may give up among a crowd of others' before it has found enough of this
assistant's, and then the exact search follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.models import VECTOR_SIZE
from app.db.session import WORKSPACE

# Reciprocal rank fusion, score = Σ 1 / (k + rank): k = 60 as in Cormack, Clarke, Büttcher (SIGIR 2009).
FUSION_K = 60
# How many passages each of the two searches puts into the fusion.
DEPTH = 40
# Candidates that HNSW keeps while it walks; at least DEPTH, more finds more of the true neighbours.
EF_SEARCH = 100
# Measured on one core, everything in memory: 1,000 passages 1.3 ms, 10,000 11 ms, 50,000 69 ms, and half as much to count them.
EXACT_PASSAGES = 10_000
# Only so many characters of a question are searched as words: a pasted log would match everything.
TEXT_CHARACTERS = 600

_COLUMNS = f"""
    p.id, p.document_id, p.title, p.url, p.heading_path, p.fragment, p.text, p.sentences, p.sentence_vectors,
    -(p.embedding <#> CAST(:vector AS halfvec({VECTOR_SIZE}))) AS vector_score
"""

_OWN = """
    WHERE workspace_id = :workspace
      AND source_id IN (SELECT source_id FROM assistant_sources WHERE assistant_id = :assistant AND workspace_id = :workspace)
"""

# With a filter, HNSW must go on walking until enough rows pass it.
_PREPARE = text(f"""
    SELECT count(*), set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '{EF_SEARCH}', true)
    FROM (SELECT 1 FROM passages {_OWN} LIMIT :most) AS own
""")  # noqa: S608


def _hybrid(walk: str) -> TextClause:
    """The search, exact or with a `walk` of the index.

    Any word may match (`|`), the cover density rank then prefers passages that hold many of them close together.
    """
    return text(f"""
    WITH measured AS MATERIALIZED (
        SELECT id, embedding <#> CAST(:vector AS halfvec({VECTOR_SIZE})) AS distance FROM passages {_OWN} {walk}),
    nearest AS (
        SELECT id, row_number() OVER (ORDER BY distance, id) AS place
        FROM (SELECT id, distance FROM measured ORDER BY distance, id LIMIT :depth) AS first),
    worded AS (
        SELECT passage_id AS id, rank, row_number() OVER (ORDER BY rank DESC, passage_id) AS place
        FROM search_text(:assistant, replace(plainto_tsquery('english', :query)::text, ' & ', ' | '), :depth)),
    fused AS (
        SELECT id, coalesce(1.0 / ({FUSION_K} + nearest.place), 0) + coalesce(1.0 / ({FUSION_K} + worded.place), 0) AS score,
               coalesce(worded.rank, 0) AS text_rank
        FROM nearest FULL JOIN worded USING (id) ORDER BY score DESC, id LIMIT :limit)
    SELECT {_COLUMNS}, fused.score, fused.text_rank, (SELECT count(*) FROM nearest) AS nearest
    FROM fused JOIN passages p USING (id) WHERE p.workspace_id = :workspace ORDER BY fused.score DESC, p.id
""")  # noqa: S608


_EXACT, _WALKED = _hybrid(""), _hybrid("ORDER BY distance LIMIT :depth")

_BY_ID = text(f"""
    SELECT {_COLUMNS}, 0.0 AS score, 0.0 AS text_rank FROM passages p
    WHERE p.id = ANY(:ids) AND p.workspace_id = :workspace
      AND p.source_id IN (SELECT source_id FROM assistant_sources WHERE assistant_id = :assistant AND workspace_id = :workspace)
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that may answer. `score` is the fusion's, `vector_score` the cosine, `text_rank` PostgreSQL's ts_rank_cd."""

    passage_id: UUID
    document_id: UUID
    title: str
    url: str
    heading_path: list[str]
    fragment: str | None
    text: str
    spans: list[list[int]]  # [[start, end], …] of the sentences in `text`
    sentence_vectors: bytes  # float16, row-major, [sentences, 384]
    vector_score: float
    score: float
    text_rank: float


async def hybrid(session: AsyncSession, assistant_id: UUID, *, query: str, vector: Sequence[float], limit: int = 12) -> list[Hit]:
    """The passages of the assistant's sources nearest to the query, best first; with a `limit` of 2 · DEPTH all that both searches found.

    `vector` is the query's embedding, 384 numbers, normalised. The session must be bound to a workspace.
    """
    own = {"assistant": assistant_id, "workspace": session.info[WORKSPACE], "most": EXACT_PASSAGES + 1}
    passages: int = (await session.execute(_PREPARE, own)).scalar_one()
    depth = max(DEPTH, -(-limit // 2))
    values = {"query": query[:TEXT_CHARACTERS], "depth": depth, "limit": limit}
    if passages > EXACT_PASSAGES:
        rows = await _rows(session, _WALKED, assistant_id, vector, values)
        if rows and rows[0].nearest == depth:
            return _hits(rows)
    return _hits(await _rows(session, _EXACT, assistant_id, vector, values))


async def passages_by_id(session: AsyncSession, assistant_id: UUID, ids: Sequence[UUID], *, vector: Sequence[float]) -> list[Hit]:
    """The named passages, as far as the assistant still has them, with their cosine to `vector` and no fusion score."""
    if not ids:
        return []
    return _hits(await _rows(session, _BY_ID, assistant_id, vector, {"ids": list(ids)}))


async def _rows(
    session: AsyncSession, statement: TextClause, assistant_id: UUID, vector: Sequence[float], values: dict[str, Any]
) -> Sequence[Any]:
    literal = "[" + ",".join(f"{number:.6g}" for number in vector) + "]"
    values = {"vector": literal, "assistant": assistant_id, "workspace": session.info[WORKSPACE], **values}
    return (await session.execute(statement, values)).all()


def _hits(rows: Sequence[Any]) -> list[Hit]:
    return [
        Hit(
            passage_id=row.id,
            document_id=row.document_id,
            title=row.title,
            url=row.url,
            heading_path=list(row.heading_path),
            fragment=row.fragment,
            text=row.text,
            spans=row.sentences,
            sentence_vectors=row.sentence_vectors,
            vector_score=float(row.vector_score),
            score=float(row.score),
            text_rank=float(row.text_rank),
        )
        for row in rows
    ]

"""Hybrid search: nearest vectors and full text, joined by reciprocal rank fusion, in one SQL statement.

The vector of a query comes from the generator, over the bus for whoever is not a generator. Sentence vectors come along, so
that the choice of evidence needs no second look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.models import VECTOR_SIZE
from app.db.session import WORKSPACE

# Reciprocal rank fusion, score = Σ 1 / (k + rank): k = 60 as in Cormack, Clarke, Büttcher (SIGIR 2009).
FUSION_K = 60
# How many passages each of the two searches puts into the fusion.
DEPTH = 40
# Candidates that HNSW keeps while it walks; at least DEPTH, more finds more of the true neighbours.
EF_SEARCH = 100
# Only so many characters of a question are searched as words: a pasted log would match everything.
TEXT_CHARACTERS = 600

_COLUMNS = f"""
    p.id, p.document_id, p.title, p.url, p.heading_path, p.fragment, p.text, p.sentences, p.sentence_vectors,
    -(p.embedding <#> CAST(:vector AS halfvec({VECTOR_SIZE}))) AS vector_score
"""

# Any word may match (`|`), the cover density rank then prefers passages that hold many of them close together.
_HYBRID = text(f"""
    WITH nearest AS (
        SELECT id, row_number() OVER (ORDER BY distance, id) AS place FROM (
            SELECT id, embedding <#> CAST(:vector AS halfvec({VECTOR_SIZE})) AS distance FROM passages
            WHERE workspace_id = :workspace
              AND source_id IN (
                  SELECT source_id FROM assistant_sources WHERE assistant_id = :assistant AND workspace_id = :workspace)
            ORDER BY distance LIMIT :depth) AS walked),
    worded AS (
        SELECT passage_id AS id, rank, row_number() OVER (ORDER BY rank DESC, passage_id) AS place
        FROM search_text(:assistant, replace(plainto_tsquery('english', :query)::text, ' & ', ' | '), :depth)),
    fused AS (
        SELECT id, coalesce(1.0 / ({FUSION_K} + nearest.place), 0) + coalesce(1.0 / ({FUSION_K} + worded.place), 0) AS score,
               coalesce(worded.rank, 0) AS text_rank
        FROM nearest FULL JOIN worded USING (id) ORDER BY score DESC, id LIMIT :limit)
    SELECT {_COLUMNS}, fused.score, fused.text_rank
    FROM fused JOIN passages p USING (id) WHERE p.workspace_id = :workspace ORDER BY fused.score DESC, p.id
""")  # noqa: S608

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
    """The passages of the assistant's sources nearest to the query, best first.

    `vector` is the query's embedding, 384 numbers, normalised. The session must be bound to a workspace.
    """
    # With a filter, HNSW must go on walking until enough rows pass it.
    await session.execute(
        text("SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', :ef, true)"),
        {"ef": str(EF_SEARCH)},
    )
    values = {"query": query[:TEXT_CHARACTERS], "depth": max(DEPTH, limit), "limit": limit}
    return await _hits(session, _HYBRID, assistant_id, vector, values)


async def passages_by_id(session: AsyncSession, assistant_id: UUID, ids: Sequence[UUID], *, vector: Sequence[float]) -> list[Hit]:
    """The named passages, as far as the assistant still has them, with their cosine to `vector` and no fusion score."""
    if not ids:
        return []
    return await _hits(session, _BY_ID, assistant_id, vector, {"ids": list(ids)})


async def _hits(
    session: AsyncSession, statement: Any, assistant_id: UUID, vector: Sequence[float], values: dict[str, Any]
) -> list[Hit]:
    literal = "[" + ",".join(f"{number:.6g}" for number in vector) + "]"
    values = {"vector": literal, "assistant": assistant_id, "workspace": session.info[WORKSPACE], **values}
    rows = await session.execute(statement, values)
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

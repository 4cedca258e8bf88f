"""Finds the passages that may answer, with the vectors of their sentences and what the reader says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.content.search import DEPTH, Hit, hybrid, passages_by_id
from app.conversations.models import Message
from app.db.session import Database
from workers.answer.fuse import fuse, sentence_vectors
from workers.answer.query import Query, decide
from workers.answer.select import PassageCandidate
from workers.answer.services import Readings
from workers.reader import Page, title_of

LIMIT = 12
# Of both searches together, before they are ranked by what is said in them.
FOUND = 2 * DEPTH
# The reader reads so many of them, CITED of those cited last among them. Of 180 word pieces each on two cores: 8 take 120 ms and
# 5 take 75 ms; on one 240 and 160 ms.
READ, CITED = 8, 2
# What a refusal offers. A page less like the question than this is offered to nobody. Of 557 hand-written questions put to four
# sites, with the gate's refusals: of the refused near-misses 6 of 7 are offered a page (and 98 % of all 66), of the questions of
# another site 19 %; of 16 questions of general knowledge put to each 5 %. At .35 no refused near-miss is offered any.
NEAREST = 3
NEAREST_COSINE = 0.3


async def retrieve(
    database: Database, workspace_id: UUID, assistant_id: UUID, query: Query, *, cited: Sequence[UUID] = ()
) -> tuple[Query, list[Hit]]:
    """How the message is to be read, and at most LIMIT passages by hybrid search, best first, then those of `cited` not found.

    A message that may follow another is searched both ways; what is found decides (query.decide).
    """
    async with database.transaction(workspace_id) as session:
        hits = await _search(session, assistant_id, query)
        if query.joined is not None:
            together = await _search(session, assistant_id, query.joined)
            chosen = decide(query, _best(hits), _best(together))
            hits = together if chosen.text == query.joined.text else hits
            query = chosen
        found = {hit.passage_id for hit in hits}
        vector = query.vector.tolist()
        hits += await passages_by_id(session, assistant_id, [one for one in cited if one not in found], vector=vector)
    return query, hits


async def _search(session: AsyncSession, assistant_id: UUID, query: Query) -> list[Hit]:
    found = await hybrid(session, assistant_id, query=query.text, vector=query.vector.tolist(), limit=FOUND)
    return fuse(query.vector, query.text, found, LIMIT)


def _best(hits: Sequence[Hit]) -> float:
    return max((hit.vector_score for hit in hits), default=0.0)


def last_cited(dialogue: Sequence[Message]) -> list[UUID]:
    """The passages of the last answer that had evidence: always candidates, a follow-up is often answered beside them."""
    for message in reversed(dialogue):
        if message.role == "assistant" and message.evidence:
            return list(dict.fromkeys(UUID(item["passage_id"]) for item in message.evidence))
    return []


def candidates(hits: Sequence[Hit]) -> list[PassageCandidate]:
    return [
        PassageCandidate(
            passage_id=hit.passage_id,
            title=hit.title,
            heading_path=hit.heading_path,
            text=hit.text,
            spans=[(start, end) for start, end in hit.spans],
            vectors=sentence_vectors(hit),
            score=hit.score,
            cosine=hit.vector_score,
        )
        for hit in hits
    ]


async def read(readings: Readings, question: str, hits: Sequence[Hit]) -> list[PassageCandidate]:
    """The candidates, the best of them with what the reader says of them; as `candidates` where there is no reader."""
    found = candidates(hits)
    cited = [place for place, hit in enumerate(hits) if hit.score == 0][:CITED]
    places = [place for place, hit in enumerate(hits) if hit.score > 0][: READ - len(cited)] + cited
    pages = [Page(title_of(hits[place].title, hits[place].heading_path), hits[place].text, hits[place].spans) for place in places]
    for place, reading in zip(places, await readings.read(question, pages) or (), strict=False):
        found[place] = replace(found[place], reads=reading.passage, sentence_reads=reading.sentences)
    return found


def nearest_pages(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """The pages that a refusal offers: one entry a document, the most alike first."""
    pages: dict[UUID, dict[str, Any]] = {}
    for hit in sorted(hits, key=lambda hit: -hit.vector_score):
        if hit.vector_score < NEAREST_COSINE or len(pages) == NEAREST:
            break
        url = f"{hit.url}#{hit.fragment}" if hit.fragment else hit.url
        pages.setdefault(hit.document_id, {"url": url, "title": hit.title, "heading_path": hit.heading_path})
    return list(pages.values())


def features(hits: Sequence[Hit]) -> dict[str, float]:
    """What retrieval says of its own success, for the gate; selection's features say the rest."""
    nearest = _best(hits)
    return {
        "text_rank": min(1.0, max((hit.text_rank for hit in hits), default=0.0)),
        # Vectors and words agree on the best passage.
        "agreement": float(bool(hits) and hits[0].text_rank > 0 and hits[0].vector_score >= nearest - 1e-6),
    }

"""Everything a reader sees goes out here: first into SQL, under the fence and the epoch, then as an event.

Commit before event, in that order, always: a reader who takes a snapshot after the event must find what it said.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy import func

from app.content.links import citation_url
from app.content.search import Hit
from app.conversations import events
from app.conversations.models import Message
from app.conversations.views import message_view, render_text
from workers.answer.claim import Answer, write
from workers.answer.select import Selection
from workers.answer.services import Services

log = structlog.get_logger()


def quotations(selection: Selection, hits: Sequence[Hit]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(evidence, citations) as docs/api.md shapes them: one number a passage, in the order in which they are read."""
    by_id: dict[Hashable, Hit] = {hit.passage_id: hit for hit in hits}
    evidence: list[dict[str, Any]] = []
    citations: dict[Any, dict[str, Any]] = {}
    quoted: dict[Any, list[str]] = {}
    for sentence in selection.sentences:
        quoted.setdefault(sentence.passage_id, []).append(sentence.text)
    for sentence in selection.sentences:
        hit = by_id[sentence.passage_id]
        citation = citations.setdefault(
            hit.passage_id,
            {
                "number": len(citations) + 1,
                "url": citation_url(hit.url, hit.fragment, *quoted[sentence.passage_id]),
                "title": hit.title,
                "heading_path": hit.heading_path,
                "passage": hit.text,
            },
        )
        evidence.append(
            {
                "number": citation["number"],
                "text": sentence.text,
                "url": citation_url(hit.url, hit.fragment, sentence.text),
                "title": hit.title,
                "heading_path": hit.heading_path,
                "passage_id": str(hit.passage_id),
                "document_id": str(hit.document_id),
            }
        )
    return evidence, list(citations.values())


async def _event(services: Services, answer: Answer, kind: str, data: dict[str, Any]) -> None:
    """What is lost here is in SQL: a reader's next snapshot shows it."""
    try:
        await events.publish(services.bus, answer.claim.conversation_id, kind, data)
    except (RedisError, OSError) as error:
        log.warning("bus_away", event_kind=kind, error=str(error))


async def publish_evidence(
    services: Services, answer: Answer, evidence: list[dict[str, Any]], citations: list[dict[str, Any]]
) -> None:
    """The quotations, before any wording. Raises Lost."""
    answer.timings["evidence_ms"] = answer.elapsed_ms()
    async with services.database.transaction(answer.claim.workspace_id) as session:
        await write(session, answer.claim, evidence=evidence, citations=citations, timings=answer.timings, trace=answer.trace)
    answer.message.evidence, answer.message.citations = evidence, citations
    data = {"message_id": str(answer.message.id), "evidence": evidence, "citations": citations, "passages": len(citations)}
    await _event(services, answer, "evidence", data)


async def publish_sentence(services: Services, answer: Answer, sentence: str) -> None:
    """One verified sentence of wording. Raises Lost."""
    sentences = [*answer.message.sentences, sentence]
    answer.timings.setdefault("first_sentence_ms", answer.elapsed_ms())
    async with services.database.transaction(answer.claim.workspace_id) as session:
        await write(session, answer.claim, sentences=sentences, timings=answer.timings)
    answer.message.sentences = sentences
    data = {"message_id": str(answer.message.id), "index": len(sentences) - 1, "text": sentence}
    await _event(services, answer, "sentence", data)


async def commit(
    services: Services,
    answer: Answer,
    *,
    kind: str,
    sentences: Sequence[str],
    evidence: list[dict[str, Any]] | None = None,
    citations: Sequence[dict[str, Any]] = (),
    nearest: Sequence[dict[str, Any]] = (),
) -> Message:
    """End the answer: the row is done and whole, then the event says so. Returns the row as stored. Raises Lost."""
    answer.timings["total_ms"] = answer.elapsed_ms()
    if sentences:
        answer.timings.setdefault("first_sentence_ms", answer.timings["total_ms"])
    answer.ending()
    async with services.database.transaction(answer.claim.workspace_id) as session:
        await write(
            session,
            answer.claim,
            status="done",
            kind=kind,
            sentences=list(sentences),
            evidence=evidence or [],
            citations=list(citations),
            nearest=list(nearest),
            refused=kind == "refusal",
            text=render_text(sentences, evidence),
            timings=answer.timings,
            tokens=answer.tokens,
            trace={**answer.trace, "generator": services.name, "attempt": answer.claim.attempt},
            finished_at=func.now(),
        )
        message = await session.get_one(Message, answer.message.id)
    await _event(services, answer, "done", {"message": message_view(message)})
    return message

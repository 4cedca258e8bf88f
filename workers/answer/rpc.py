"""Short requests that need the models, over the bus: the web process has none. Each is answered by one generator.

A request: `{"id", "kind": "retrieve" | "encode", "deadline": unix seconds, …}` on `keys.REQUESTS`; the reply goes to
`keys.reply_list(id)`. Who asked has gone away by the deadline: an expired request is dropped unanswered.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import msgspec
import structlog

from app import redis as keys
from app.content.search import Hit
from workers.answer import retrieve
from workers.answer.query import Query
from workers.answer.services import Services

REPLY_SECONDS = 10
QUERY_CHARACTERS = 4000

log = structlog.get_logger()


class Request(msgspec.Struct):
    id: str
    kind: str
    deadline: float
    query: str
    workspace_id: UUID | None = None
    assistant_id: UUID | None = None


async def serve(services: Services, raw: bytes) -> None:
    """Answer one request. What is no request at all is logged and dropped: there is nobody to tell."""
    begun = time.monotonic()
    try:
        request = msgspec.json.decode(raw, type=Request)
    except msgspec.DecodeError as error:
        log.warning("request_unreadable", error=str(error))
        return
    if request.deadline < time.time():
        log.info("request_expired", request=request.id, kind=request.kind)
        return
    try:
        reply = await _reply(services, request)
    except Exception as error:
        log.exception("request_failed", request=request.id, kind=request.kind)
        reply = {"error": f"{type(error).__name__}: {error}"}
    services.counters.requests += 1
    key = keys.reply_list(request.id)
    async with services.bus.pipeline(transaction=True) as pipe:
        pipe.rpush(key, msgspec.json.encode({**reply, "ms": round((time.monotonic() - begun) * 1000)}))
        pipe.expire(key, REPLY_SECONDS)
        await pipe.execute()


async def _reply(services: Services, request: Request) -> dict[str, Any]:
    text = request.query[:QUERY_CHARACTERS]
    vector = (await services.vectors.encode([text]))[0]
    if request.kind == "encode":
        return {"vector": [round(float(number), 6) for number in vector]}
    if request.kind != "retrieve" or request.workspace_id is None or request.assistant_id is None:
        return {"error": f"unknown kind of request {request.kind!r}, or no workspace and assistant named"}
    asked = Query(text, vector, vector)
    _, hits = await retrieve.retrieve(services.database, request.workspace_id, request.assistant_id, asked)
    return {"passages": [_passage(hit, asked) for hit in hits]}


def _passage(hit: Hit, asked: Query) -> dict[str, Any]:
    scores = retrieve.sentence_vectors(hit) @ asked.vector
    return {
        "passage_id": str(hit.passage_id),
        "document_id": str(hit.document_id),
        "title": hit.title,
        "url": f"{hit.url}#{hit.fragment}" if hit.fragment else hit.url,
        "heading_path": hit.heading_path,
        "text": hit.text,
        "score": round(hit.score, 5),
        "vector_score": round(hit.vector_score, 4),
        "text_rank": round(hit.text_rank, 4),
        "sentences": [
            {"text": hit.text[start:end], "score": round(float(score), 4)}
            for (start, end), score in zip(hit.spans, scores, strict=True)
        ],
    }

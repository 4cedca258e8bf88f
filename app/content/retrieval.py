"""Asks a generator to search: the web process has no model that could encode a query."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any
from uuid import UUID, uuid4

import msgspec
import structlog
from redis.exceptions import RedisError

from app import redis as keys
from app.http.problems import Problem
from app.http.services import Services

DEADLINE_SECONDS = 2.0
WAITING = 32  # requests of this process at a time: each holds a connection to the bus

log = structlog.get_logger()
_places = asyncio.Semaphore(WAITING)


def _away(detail: str) -> Problem:
    return Problem(503, "generator-away", "The search does not answer", detail, headers={"retry-after": "2"})


async def search(services: Services, workspace_id: UUID, assistant_id: UUID, query: str) -> dict[str, Any]:
    """`{"passages", "ms"}` (docs/api.md). Raises Problem 503 when no generator answers within 2 s."""
    request_id = uuid4().hex
    request = {
        "id": request_id,
        "kind": "retrieve",
        "workspace_id": str(workspace_id),
        "assistant_id": str(assistant_id),
        "query": query,
        "deadline": time.time() + DEADLINE_SECONDS,
    }
    try:
        async with asyncio.timeout(DEADLINE_SECONDS + 0.5), _places:
            await services.bus.rpush(keys.REQUESTS, msgspec.json.encode(request))
            answer = await services.blocking.blpop([keys.reply_list(request_id)], timeout=math.ceil(DEADLINE_SECONDS))
    except (RedisError, OSError, TimeoutError):
        raise _away("The bus or every generator is away. Try again in a moment; /status shows what runs.") from None
    if answer is None:
        raise _away("No generator answered within 2 s. Try again in a moment; /status shows whether one runs.")
    reply = msgspec.json.decode(answer[1])
    if "error" in reply:
        log.warning("search_failed", error=str(reply["error"])[:200])
        raise _away("The generator could not search. Try again in a moment.")
    return {"passages": reply["passages"], "ms": reply["ms"]}

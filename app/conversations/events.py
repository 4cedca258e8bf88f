"""The one way to publish an event of a conversation, and its doorbell.

An event is one entry of the conversation's Redis stream: field `type`, field `data` (JSON). The entry's id is the
event's id at the reader (Last-Event-ID). What an event says is in SQL before it is published, so a lost event costs
a reader nothing: a snapshot shows it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from app import redis as keys

# A conversation's events are kept for an hour after the last one, at most about so many.
STREAM_SECONDS = 3600
STREAM_LENGTH = 1000
# More rings than there will ever be generators waiting: the queue itself is in SQL.
BELL_LENGTH = 256

EVENT_TYPES = ("queued", "evidence", "sentence", "done", "failed", "cancelled", "superseded")


async def publish(bus: Redis, conversation_id: UUID, kind: str, data: dict[str, Any]) -> str:
    """Append an event; returns its id."""
    if kind not in EVENT_TYPES:
        raise ValueError(f"unknown event {kind!r}")
    stream = keys.conversation_stream(conversation_id)
    async with bus.pipeline(transaction=True) as pipe:
        pipe.xadd(stream, {"type": kind, "data": msgspec.json.encode(data)}, maxlen=STREAM_LENGTH, approximate=True)
        pipe.expire(stream, STREAM_SECONDS)
        event_id, _ = await pipe.execute()
    return event_id.decode()


async def ring(bus: Redis) -> None:
    """Tell one waiting generator that something is queued."""
    async with bus.pipeline(transaction=True) as pipe:
        pipe.lpush(keys.BELL, b"1")
        pipe.ltrim(keys.BELL, 0, BELL_LENGTH - 1)
        await pipe.execute()


async def cancel(bus: Redis, message_id: UUID) -> None:
    """Tell the generator that writes this message to stop. The epoch in SQL is what counts; this only saves its time."""
    await bus.publish(keys.CONTROL, msgspec.json.encode({"cancel": str(message_id)}))

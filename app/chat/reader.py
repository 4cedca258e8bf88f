"""Reads the event streams of many conversations through one connection to the bus.

One task a process runs `XREAD BLOCK` over every conversation that somebody here is reading. A new subscriber wakes it
through a stream of its own, so that following costs no polling and a thousand readers cost one connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import redis as keys

BLOCK_SECONDS = 10.0
BATCH = 200  # entries of one stream at a time
QUEUE = 256  # events that a reader may lag behind before it is given a snapshot instead
RETRY_SECONDS = 0.5
WAKE_EXPIRY = 60  # seconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a conversation's stream. `data` is JSON, passed on as it is."""

    id: str
    kind: str
    data: bytes


def order(event_id: str) -> tuple[int, int]:
    """How Redis orders stream ids."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def entry(event_id: bytes, fields: dict[bytes, bytes]) -> Event:
    return Event(event_id.decode(), fields[b"type"].decode(), fields[b"data"])


@dataclass(eq=False, slots=True)
class Subscription:
    """A reader's queue. `None` in it means that the process is ending; `lagging` that events were dropped."""

    last: str
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    lagging: bool = False

    def offer(self, event: Event | None) -> None:
        """Hand an event over without waiting. A reader who is too far behind gets a snapshot instead of a longer queue."""
        if event is not None and order(event.id) <= order(self.last):
            return
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lagging = True
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(event)


@dataclass(slots=True)
class _Stream:
    cursor: str
    readers: set[Subscription] = field(default_factory=set)


class StreamReader:
    def __init__(self, bus: Redis, blocking: Redis) -> None:
        self._bus, self._blocking = bus, blocking
        self._streams: dict[bytes, _Stream] = {}
        self._wake, self._wake_cursor = f"bus:relay:{uuid4().hex}".encode(), "0-0"
        self.healthy = True  # whether the last read of the bus succeeded

    @asynccontextmanager
    async def subscribe(self, conversation_id: UUID, after: str) -> AsyncIterator[Subscription]:
        """Everything published after the entry `after`, in order."""
        key = keys.conversation_stream(conversation_id).encode()
        stream = self._streams.setdefault(key, _Stream(after))
        # Somebody further back makes the task read those entries again; whoever has seen them drops them by id.
        stream.cursor = min(stream.cursor, after, key=order)
        subscription = Subscription(after)
        stream.readers.add(subscription)
        try:
            await self._ring()
            yield subscription
        finally:
            stream.readers.discard(subscription)
            if not stream.readers and self._streams.get(key) is stream:
                del self._streams[key]

    def readers(self, conversation_id: UUID) -> int:
        stream = self._streams.get(keys.conversation_stream(conversation_id).encode())
        return len(stream.readers) if stream else 0

    async def _ring(self) -> None:
        try:
            async with asyncio.timeout(1), self._bus.pipeline(transaction=False) as pipe:
                pipe.xadd(self._wake, {"w": 1}, maxlen=1)
                pipe.expire(self._wake, WAKE_EXPIRY)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError):
            self.healthy = False

    async def run(self) -> None:
        """Read until cancelled, whatever becomes of the bus."""
        while True:
            try:
                await self._read()
                self.healthy = True
            except (RedisError, OSError, TimeoutError) as error:
                if self.healthy:
                    log.warning("relay_without_bus", error=str(error))
                self.healthy = False
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                # Readers are then fed from SQL; a task that ended here would leave them waiting.
                log.error("relay_failed", exc_info=error)
                self.healthy = False
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self) -> None:
        wanted = {key: stream.cursor for key, stream in self._streams.items()}
        # A bus that hangs answers nothing, not even that the block is over.
        async with asyncio.timeout(BLOCK_SECONDS + 5):
            answer: Any = await self._blocking.xread(
                {self._wake: self._wake_cursor, **wanted}, block=int(BLOCK_SECONDS * 1000), count=BATCH
            )
        for key, entries in answer.items() if isinstance(answer, dict) else answer or ():
            rows = entries[0] if entries and isinstance(entries[0], list) else entries
            if key == self._wake:
                self._wake_cursor = rows[-1][0].decode()
            elif (stream := self._streams.get(key)) is not None and stream.cursor == wanted[key]:
                stream.cursor = rows[-1][0].decode()
                for event_id, fields in rows:
                    for reader in stream.readers:
                        reader.offer(entry(event_id, fields))

    def close(self) -> None:
        """Tell every reader that the process is ending."""
        for stream in self._streams.values():
            for reader in stream.readers:
                reader.offer(None)

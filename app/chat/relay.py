"""Relays a conversation's events to a browser as server-sent events: subscribe, snapshot, tail.

What is in SQL comes before its event, so a snapshot shows at least what was published until then, and every event after
the id that was read *before* the snapshot follows it: no gap. Ids tell what a reader has: no duplicate.

A reader who leaves does not stop the answer. An answer takes a second or two, a reload must find it whole, and what
stops one is the visitor (stop), a newer message, or the generator's own limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import anyio
import msgspec
from prometheus_client import Gauge
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import redis as keys
from app.chat.reader import Event, StreamReader, Subscription, entry, order
from app.conversations import service
from app.conversations.events import STREAM_LENGTH
from app.conversations.models import Message
from app.conversations.views import OPEN, message_view
from app.db.session import Database

COMMENT_SECONDS = 15.0  # proxies drop a silent connection after 30 to 60 s
QUIET_SECONDS = 5.0  # then SQL is asked whether anything is still expected: an event may have been lost with the bus
AWAY_SECONDS = 1.0  # the same while the bus is away: SQL then feeds the reader
LINGER_SECONDS = 0.5  # an answer is committed a moment before its event is published
BUS_SECONDS = 1.0
START = "0-0"
FINAL = ("done", "failed", "cancelled")
HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
OPENING = b": retort\n\n"
COMMENT = b": still here\n\n"


def frame(kind: str, data: bytes, event_id: str | None) -> bytes:
    """One event as the HTML standard writes it (section 9.2.6). JSON has no line breaks of its own."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: ".encode() + data + b"\n\n"


def valid_id(value: str | None) -> str | None:
    """A Last-Event-ID, if it can be one of ours."""
    if value is None:
        return None
    milliseconds, _, sequence = value.partition("-")
    digits = milliseconds.isascii() and milliseconds.isdigit() and sequence.isascii() and sequence.isdigit()
    return value if digits and len(milliseconds) < 16 and len(sequence) < 16 else None


class Relay:
    def __init__(self, database: Database, bus: Redis, blocking: Redis, open_streams: Gauge) -> None:
        self.database, self._bus, self._gauge = database, bus, open_streams
        self.reader = StreamReader(bus, blocking)
        self.closing = False

    async def run(self) -> None:
        await self.reader.run()

    def close(self) -> None:
        """End every stream at once; its browser comes back with its Last-Event-ID."""
        self.closing = True
        self.reader.close()

    async def last_id(self, conversation_id: UUID) -> str:
        """The id of the newest event, `0-0` when there is none or the bus is away."""
        try:
            async with asyncio.timeout(BUS_SECONDS):
                newest: Any = await self._bus.xrevrange(keys.conversation_stream(conversation_id), count=1)
        except (RedisError, OSError, TimeoutError):
            return START
        return newest[0][0].decode() if newest else START

    async def messages(self, workspace_id: UUID, conversation_id: UUID) -> list[Message]:
        """The whole conversation, oldest message first."""
        # A transaction of its own, over before anything is sent: a stream holds no connection of the pool. Shielded,
        # because a query cut by a reader who leaves costs the pool its connection.
        with anyio.CancelScope(shield=True):
            async with self.database.transaction(workspace_id) as session:
                messages = await service.list_messages(session, conversation_id)
        return messages

    async def still_open(self, workspace_id: UUID, conversation_id: UUID) -> bool:
        """Whether an answer of the conversation is queued or running."""
        with anyio.CancelScope(shield=True):
            async with self.database.transaction(workspace_id) as session:
                count = await service.count_open(session, conversation_id)
        return count > 0

    async def stream(self, workspace_id: UUID, conversation_id: UUID, last_event_id: str | None) -> AsyncIterator[bytes]:
        """Server-sent events from `last_event_id` on, until nothing is expected any more."""
        self._gauge.inc()
        try:
            following = Following(self, workspace_id, conversation_id)
            yield OPENING
            backlog = await self._backlog(conversation_id, last_event_id)
            if backlog is None:
                last = await self.last_id(conversation_id)
                yield await following.snapshot(last)
            else:
                last = last_event_id or START
            if self.closing or (backlog is None and not following.open):
                return
            async with self.reader.subscribe(conversation_id, last) as subscription:
                async for chunk in following.tail(subscription, backlog):
                    yield chunk
        finally:
            self._gauge.dec()

    async def _backlog(self, conversation_id: UUID, last_event_id: str | None) -> list[Event] | None:
        """The entries from `last_event_id` on, itself included; None when it is not known any more (trimmed, expired)."""
        if last_event_id is None or last_event_id == START:
            return None
        try:
            async with asyncio.timeout(BUS_SECONDS):
                rows: Any = await self._bus.xrange(
                    keys.conversation_stream(conversation_id), min=last_event_id, count=STREAM_LENGTH
                )
        except (RedisError, OSError, TimeoutError):
            return None
        if not rows or rows[0][0].decode() != last_event_id:
            return None
        return [entry(event_id, fields) for event_id, fields in rows]


class Following:
    """One reader of one conversation."""

    def __init__(self, relay: Relay, workspace_id: UUID, conversation_id: UUID) -> None:
        self.relay, self.workspace_id, self.conversation_id = relay, workspace_id, conversation_id
        self.open = True  # whether an answer was still expected when SQL was asked last
        self.shown: list[Any] = []  # what the last snapshot held, to tell whether another would say more

    async def snapshot(self, last: str) -> bytes:
        messages = await self.relay.messages(self.workspace_id, self.conversation_id)
        self.open = any(message.status in OPEN for message in messages)
        views = [message_view(message) for message in messages]
        self.shown = [(v["id"], v["status"], v["text"]) for v in views]
        return frame("snapshot", msgspec.json.encode({"messages": views}), last)

    async def still_open(self) -> bool:
        self.open = await self.relay.still_open(self.workspace_id, self.conversation_id)
        return self.open

    async def tail(self, subscription: Subscription, backlog: list[Event] | None) -> AsyncIterator[bytes]:
        """The events after a snapshot or a backlog, as they come, and snapshots for what the bus has lost; ends with the last answer."""
        settled = False  # whether the last event seen ended an answer
        if backlog is not None:
            # The first is the one that the reader has.
            settled = backlog[-1].kind in FINAL
            for event in backlog[1:]:
                subscription.last = event.id
                yield frame(event.kind, event.data, event.id)
            if not await self.still_open() and settled:
                return
        written = time.monotonic()
        while not self.relay.closing:
            event = await self._next(subscription)
            if self.relay.closing:
                return
            if subscription.lagging:
                subscription.lagging = False
                subscription.last = await self.relay.last_id(self.conversation_id)
                yield await self.snapshot(subscription.last)
            elif event is not None:
                if order(event.id) <= order(subscription.last):
                    continue
                subscription.last, settled, written = event.id, event.kind in FINAL, time.monotonic()
                yield frame(event.kind, event.data, event.id)
                if not settled or await self.still_open():
                    continue
                return
            elif not await self.still_open():
                # Nothing is expected, yet no event said so: it was lost with the bus, or its publisher died.
                yield await self.snapshot(subscription.last)
                return
            elif not self.relay.reader.healthy:
                before = self.shown
                picture = await self.snapshot(subscription.last)
                if self.shown != before:
                    yield picture
                    written = time.monotonic()
            if time.monotonic() - written >= COMMENT_SECONDS:
                written = time.monotonic()
                yield COMMENT

    async def _next(self, subscription: Subscription) -> Event | None:
        wait = QUIET_SECONDS if self.relay.reader.healthy else AWAY_SECONDS
        try:
            async with asyncio.timeout(wait if self.open else LINGER_SECONDS):
                return await subscription.queue.get()
        except TimeoutError:
            return None

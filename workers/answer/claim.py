"""Takes an answer to write, keeps a sign of life on it, and lets go of it.

A row is this generator's as long as its `fence` is the claimed one and its status `running`. Whoever raises the fence (the
sweeper, a second generator) takes the answer away; whatever is then still written here is refused by SQL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Float, cast, extract, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.assistants.models import Assistant
from app.conversations import events
from app.conversations.models import Conversation, Message
from app.conversations.views import message_view
from app.db.lookups import Claim
from app.db.session import Database
from workers.answer.services import Services

HEARTBEAT_SECONDS = 2.0
# An answer that broke this often is given up, as in the sweeper.
ATTEMPTS = 3
# Earlier turns that may shape the query of a follow-up. What is older lives in the state.
DIALOGUE_TURNS = 16
# The visitor's own messages that a question about themselves is looked up in.
OWN_MESSAGES = 200
FAILED = "The answer could not be written. Please ask again."

log = structlog.get_logger()


class Lost(Exception):
    """The answer is no longer this generator's, or the conversation went on without it: nothing more may be published."""


@dataclass(slots=True)
class Answer:
    """One answer being written."""

    claim: Claim
    message: Message  # the assistant's row, with what an earlier attempt published
    question: Message
    conversation: Conversation
    assistant: Assistant
    dialogue: list[Message]  # published turns before the question, oldest first
    own_messages: list[str]  # what the visitor wrote before the question, oldest first, further back than the dialogue
    accepted: float  # time.monotonic() at which the visitor's message was stored
    trace: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    # Called when the row is about to end: the commit itself asks whose it is, and a sign of life after it finds it ended.
    ending: Callable[[], Any] = lambda: None

    @property
    def text(self) -> str:
        return self.question.text

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.accepted) * 1000)


async def load(database: Database, claim: Claim) -> Answer:
    """Read what the answer needs. Raises Lost when the conversation has gone on since it was queued."""
    async with database.transaction(claim.workspace_id) as session:
        waited = cast(extract("epoch", func.clock_timestamp() - Message.created_at), Float)
        rows = await session.execute(
            select(Message, Conversation, Assistant, waited)
            .options(undefer(Message.trace))
            .join(Conversation, Conversation.id == Message.conversation_id)
            .join(Assistant, Assistant.id == Conversation.assistant_id)
            .where(Message.id == claim.message_id, Message.fence == claim.fence, Message.status == "running")
        )
        found = rows.one_or_none()
        if found is None:
            raise Lost("the row was taken away")
        message, conversation, assistant, seconds = found
        structlog.contextvars.bind_contextvars(request_id=message.request_id)  # of the call that asked, as web logs it
        if conversation.epoch != message.epoch:
            raise Lost("the conversation went on")
        question = await session.get_one(Message, message.reply_to)
        dialogue = await session.execute(
            select(Message)
            .where(Message.conversation_id == conversation.id, Message.ordinal < question.ordinal)
            .where(Message.status.in_(("done", "cancelled")))
            .order_by(Message.ordinal.desc())
            .limit(DIALOGUE_TURNS)
        )
        turns = list(dialogue.scalars())[::-1]
        written = await session.scalars(
            select(Message.text)
            .where(Message.conversation_id == conversation.id, Message.ordinal < question.ordinal)
            .where(Message.role == "visitor", Message.status.in_(("done", "cancelled")))
            .order_by(Message.ordinal.desc())
            .limit(OWN_MESSAGES)
        )
        own = list(written)[::-1]
    answer = Answer(claim, message, question, conversation, assistant, turns, own, time.monotonic() - max(0.0, seconds))
    # What an earlier attempt has published, and why, stays.
    answer.timings.update(message.timings or {})
    answer.trace.update(message.trace or {})
    return answer


def mine(statement: Any, claim: Claim) -> Any:
    """Narrow an UPDATE of messages to the claimed row, in the epoch that it was asked in."""
    epoch = select(Conversation.epoch).where(Conversation.id == claim.conversation_id).scalar_subquery()
    return statement.where(
        Message.id == claim.message_id, Message.fence == claim.fence, Message.status == "running", Message.epoch == epoch
    ).execution_options(synchronize_session=False)


async def write(session: AsyncSession, claim: Claim, **values: Any) -> None:
    """Change the row under its fence and epoch. Raises Lost when it is no longer ours to change."""
    result = await session.execute(mine(update(Message), claim).values(**values).returning(Message.id))
    if result.scalar_one_or_none() is None:
        raise Lost("the row was taken away, or the conversation went on")


async def beat(database: Database, claim: Claim) -> None:
    """Renew the sign of life until cancelled. Raises Lost when the row was taken away: the caller stops the work then."""
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        try:
            async with database.transaction(claim.workspace_id) as session:
                await write(session, claim, heartbeat_at=func.now())
        except SQLAlchemyError as error:
            # The sweeper waits for several beats: one that fails is no reason to give the answer up.
            log.warning("heartbeat_failed", error=str(error))


async def hand_back(services: Services, claim: Claim) -> None:
    """Give an unfinished answer to whoever comes next, published parts included. It does not count as an attempt."""
    async with services.database.transaction(claim.workspace_id) as session:
        await session.execute(
            mine(update(Message), claim).values(
                status="queued", fence=claim.fence + 1, attempt=Message.attempt - 1, heartbeat_at=None, generator=None
            )
        )
    await events.ring(services.bus)


async def give_up(services: Services, claim: Claim) -> None:
    """After an error in the middle: queue the answer again, or end it as failed when that happened too often."""
    failed = claim.attempt >= ATTEMPTS
    values: dict[str, Any] = {"status": "queued", "heartbeat_at": None}
    if failed:
        values = {"status": "failed", "error": FAILED, "finished_at": func.now()}
    async with services.database.transaction(claim.workspace_id) as session:
        changed = await session.execute(
            mine(update(Message), claim).values(fence=claim.fence + 1, **values).returning(Message.id)
        )
        if changed.scalar_one_or_none() is None:
            return
        message = await session.get_one(Message, claim.message_id)
    if failed:
        await events.publish(services.bus, claim.conversation_id, "failed", {"message": message_view(message)})
    else:
        await events.ring(services.bus)


async def release_overtaken(services: Services, claim: Claim) -> None:
    """End a row of an older epoch that nobody else has ended: superseded by the next answer, or cancelled without one."""
    async with services.database.transaction(claim.workspace_id) as session:
        own = select(Message.ordinal).where(Message.id == claim.message_id).scalar_subquery()
        later = (
            select(Message.id)
            .where(Message.conversation_id == claim.conversation_id, Message.role == "assistant", Message.ordinal > own)
            .order_by(Message.ordinal)
            .limit(1)
        )
        successor: UUID | None = (await session.execute(later)).scalar_one_or_none()
        epoch = select(Conversation.epoch).where(Conversation.id == claim.conversation_id).scalar_subquery()
        status = "superseded" if successor else "cancelled"
        ended = await session.execute(
            update(Message)
            .where(Message.id == claim.message_id, Message.fence == claim.fence, Message.status == "running")
            .where(Message.epoch != epoch)
            .values(status=status, superseded_by=successor, finished_at=func.now(), fence=claim.fence + 1)
            .returning(Message.id)
            .execution_options(synchronize_session=False)
        )
        if ended.scalar_one_or_none() is None:
            return
        message = await session.get_one(Message, claim.message_id)
    data: dict[str, Any] = {"message": message_view(message)}
    if successor:
        data = {"message_id": str(message.id), "superseded_by": str(successor)}
    await events.publish(services.bus, claim.conversation_id, status, data)

"""Starts conversations, posts, stops and repeats messages. Never commits: the caller owns the transaction.

After its commit the caller announces what happened (`announce`): the bell and the events say nothing that SQL does not hold.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.conversations import events
from app.conversations.models import Conversation, Message, Visitor
from app.conversations.views import OPEN, message_text, message_view
from app.db.ids import new_id
from app.http.input import KEY_LENGTH, usable_key

MESSAGE_LENGTH = 4000  # characters, after trimming
# A bus that hangs must not hold up a visitor whose message is already stored.
ANNOUNCE_SECONDS = 1.0

log = structlog.get_logger()


class MessageRefused(ValueError):
    """The message cannot be accepted. `code` is the problem's stable name (docs/api.md)."""

    def __init__(self, code: str, title: str, detail: str, status: int = 422) -> None:
        super().__init__(detail)
        self.code, self.title, self.detail, self.status = code, title, detail, status


@dataclass(slots=True)
class Posted:
    """A visitor's message and the answer queued for it. `repeated`: it was asked before, nothing was written."""

    message: Message
    answer: Message
    superseded: list[UUID] = field(default_factory=list)
    repeated: bool = False

    def view(self) -> dict[str, Any]:
        return {"message": message_view(self.message), "answer": message_view(self.answer)}


def check_text(text: str) -> str:
    """The message as it is stored: trimmed, 1 to 4,000 characters. Raises MessageRefused."""
    # PostgreSQL stores no NUL, and a lone surrogate is no character (RFC 3629, section 3).
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise MessageRefused(
            "message-not-text", "The message is not text", "It holds a NUL or half a character. Write it again as plain text."
        )
    text = text.strip()
    if not text:
        raise MessageRefused("message-empty", "The message is empty", f"Write a question of 1 to {MESSAGE_LENGTH:,} characters.")
    if len(text) > MESSAGE_LENGTH:
        raise MessageRefused(
            "message-too-long",
            "The message is too long",
            f"It has {len(text):,} characters; write at most {MESSAGE_LENGTH:,}.",
        )
    return text


async def start_conversation(session: AsyncSession, workspace_id: UUID, assistant_id: UUID, visitor_id: UUID) -> Conversation:
    """An empty conversation. The visitor's row is there: `keep_visitor`, `member_visitor`."""
    conversation = Conversation(
        id=new_id(), workspace_id=workspace_id, assistant_id=assistant_id, visitor_id=visitor_id, epoch=0, last_ordinal=0
    )
    session.add(conversation)
    await session.flush()
    return conversation


async def keep_visitor(session: AsyncSession, workspace_id: UUID, assistant_id: UUID, visitor_id: UUID) -> None:
    """Store the visitor whom a token names, unless that was done before: who opens a page and asks nothing leaves no row."""
    row = insert(Visitor).values(id=visitor_id, workspace_id=workspace_id, assistant_id=assistant_id)
    await session.execute(row.on_conflict_do_nothing(index_elements=["id"]))


async def create_visitor(session: AsyncSession, workspace_id: UUID, assistant_id: UUID, member_id: UUID | None = None) -> Visitor:
    visitor = Visitor(id=new_id(), workspace_id=workspace_id, assistant_id=assistant_id, member_id=member_id)
    session.add(visitor)
    await session.flush()
    return visitor


async def member_visitor(session: AsyncSession, workspace_id: UUID, assistant_id: UUID, member_id: UUID) -> Visitor:
    """The visitor as whom a member tries an assistant."""
    found = await session.execute(
        select(Visitor).where(Visitor.assistant_id == assistant_id, Visitor.member_id == member_id).order_by(Visitor.id).limit(1)
    )
    return found.scalar_one_or_none() or await create_visitor(session, workspace_id, assistant_id, member_id)


async def find_conversation(session: AsyncSession, conversation_id: UUID, visitor_id: UUID | None) -> Conversation | None:
    """A conversation of the workspace; with `visitor_id`, only if it is that visitor's."""
    query = select(Conversation).where(Conversation.id == conversation_id)
    if visitor_id is not None:
        query = query.where(Conversation.visitor_id == visitor_id)
    return (await session.execute(query)).scalar_one_or_none()


async def find_message(session: AsyncSession, message_id: UUID, visitor_id: UUID | None) -> Message | None:
    query = select(Message).where(Message.id == message_id)
    if visitor_id is not None:
        query = query.join(Conversation, Conversation.id == Message.conversation_id).where(Conversation.visitor_id == visitor_id)
    return (await session.execute(query)).scalar_one_or_none()


async def list_messages(session: AsyncSession, conversation_id: UUID) -> list[Message]:
    rows = await session.execute(select(Message).where(Message.conversation_id == conversation_id).order_by(Message.ordinal))
    return list(rows.scalars())


async def count_open(session: AsyncSession, conversation_id: UUID) -> int:
    query = select(func.count()).where(Message.conversation_id == conversation_id, Message.status.in_(OPEN))
    return (await session.execute(query)).scalar_one()


async def count_open_of(session: AsyncSession, workspace_id: UUID) -> int:
    """How many answers of the whole workspace are queued or running."""
    query = select(func.count()).where(Message.workspace_id == workspace_id, Message.status.in_(OPEN))
    return (await session.execute(query)).scalar_one()


async def _lock(session: AsyncSession, conversation_id: UUID) -> Conversation:
    """The conversation's row, locked: its epoch and ordinals have one writer at a time."""
    query = select(Conversation).where(Conversation.id == conversation_id).with_for_update()
    return (await session.execute(query.execution_options(populate_existing=True))).scalar_one()


async def find_posted(session: AsyncSession, conversation_id: UUID, key: str) -> Posted | None:
    """What an idempotency key was used for before, with the latest answer to it."""
    query = select(Message).where(Message.conversation_id == conversation_id, Message.idempotency_key == key)
    message = (await session.execute(query)).scalar_one_or_none()
    if message is None:
        return None
    answers = select(Message).where(Message.reply_to == message.id).order_by(Message.ordinal.desc()).limit(1)
    return Posted(message, (await session.execute(answers)).scalar_one(), repeated=True)


async def post_message(
    session: AsyncSession,
    conversation: Conversation,
    text: str,
    idempotency_key: str | None = None,
    *,
    request_id: str | None = None,
) -> Posted:
    """Store the visitor's message and queue its answer, in the caller's one transaction. Raises MessageRefused.

    The epoch rises, and answers of the conversation that are still being written are superseded by the new one.
    """
    text = check_text(text)
    if idempotency_key is not None and not usable_key(idempotency_key):
        raise MessageRefused(
            "idempotency-key-invalid", "The Idempotency-Key is not usable", f"Send 1 to {KEY_LENGTH} printable characters.", 400
        )
    locked = await _lock(session, conversation.id)
    if idempotency_key and (earlier := await find_posted(session, locked.id, idempotency_key)):
        if earlier.message.text != text:
            raise MessageRefused(
                "idempotency-key-reused",
                "The Idempotency-Key was used before",
                "It belongs to another message of this conversation. Send a new key with a new message.",
                409,
            )
        return earlier
    locked.epoch += 1
    message = _new_message(locked, role="visitor", status="done", text=text, idempotency_key=idempotency_key)
    message.finished_at = datetime.now(UTC)
    session.add(message)
    await session.flush()
    return await _queue_answer(session, locked, message, request_id)


async def retry_message(session: AsyncSession, answer: Message, *, request_id: str | None = None) -> Posted:
    """Ask the same question again after an answer that failed or was stopped. Raises MessageRefused for any other."""
    locked = await _lock(session, answer.conversation_id)
    await session.refresh(answer)
    if answer.role != "assistant" or answer.reply_to is None or answer.status not in ("failed", "cancelled"):
        raise MessageRefused(
            "message-not-retryable",
            "This message cannot be asked again",
            "Only an answer that failed or was stopped can. Send the question as a new message.",
            409,
        )
    question = (await session.execute(select(Message).where(Message.id == answer.reply_to))).scalar_one()
    # A second click on "try again" finds the answer that the first one queued.
    newest = select(Message).where(Message.reply_to == question.id).order_by(Message.ordinal.desc()).limit(1)
    latest = (await session.execute(newest)).scalar_one()
    if latest.id != answer.id and latest.status in (*OPEN, "done"):
        return Posted(question, latest, repeated=True)
    locked.epoch += 1
    return await _queue_answer(session, locked, question, request_id)


async def _queue_answer(session: AsyncSession, conversation: Conversation, question: Message, request_id: str | None) -> Posted:
    answer = _new_message(conversation, role="assistant", status="queued", text="", reply_to=question.id, request_id=request_id)
    session.add(answer)
    await session.flush()
    older = await session.execute(
        update(Message)
        .where(Message.conversation_id == conversation.id, Message.status.in_(OPEN), Message.id != answer.id)
        .values(status="superseded", superseded_by=answer.id, finished_at=func.now())
        .returning(Message.id)
        .execution_options(synchronize_session=False)
    )
    superseded = list(older.scalars())
    conversation.last_message_at = datetime.now(UTC)
    await session.flush()
    await session.refresh(question)
    await session.refresh(answer)
    return Posted(question, answer, superseded)


def _new_message(conversation: Conversation, **values: Any) -> Message:
    conversation.last_ordinal += 1
    return Message(
        id=new_id(),
        workspace_id=conversation.workspace_id,
        conversation_id=conversation.id,
        ordinal=conversation.last_ordinal,
        epoch=conversation.epoch,
        **values,
    )


async def stop_message(session: AsyncSession, message: Message) -> bool:
    """Cancel an answer as far as it was published; False when it had already ended. The epoch rises."""
    locked = await _lock(session, message.conversation_id)
    await session.refresh(message, with_for_update=True)
    if message.status not in OPEN:
        return False
    locked.epoch += 1
    message.status = "cancelled"
    message.text = message_text(message)
    message.finished_at = datetime.now(UTC)
    await session.flush()
    return True


async def announce(bus: Redis, posted: Posted) -> None:
    """After the commit: events for the readers, a cancel for the generators of superseded answers, the bell."""
    if posted.repeated:
        return
    conversation_id = posted.answer.conversation_id

    async def tell() -> None:
        await events.ring(bus)
        for message_id in posted.superseded:
            data = {"message_id": str(message_id), "superseded_by": str(posted.answer.id)}
            await events.publish(bus, conversation_id, "superseded", data)
            await events.cancel(bus, message_id)
        await events.publish(bus, conversation_id, "queued", posted.view())

    await _quickly(tell(), conversation_id)


async def announce_stop(bus: Redis, message: Message) -> None:
    """After the commit: the readers see the answer cancelled, and its generator stops."""

    async def tell() -> None:
        await events.publish(bus, message.conversation_id, "cancelled", {"message": message_view(message)})
        await events.cancel(bus, message.id)

    await _quickly(tell(), message.conversation_id)


async def _quickly(work: Any, conversation_id: UUID) -> None:
    """What is announced is in SQL: without the bus a generator finds it by polling, and a reader by its snapshot."""
    try:
        async with asyncio.timeout(ANNOUNCE_SECONDS):
            await work
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("bus_away", conversation_id=str(conversation_id), error=str(error))

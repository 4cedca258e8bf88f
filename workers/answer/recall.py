"""The conversation's own state: fetched from Redis, or rebuilt from what SQL holds, and brought up to the visitor's question.

A state is an immutable value named by what it has consumed. The name is a chained SHA-256, `H(name before ‖ ids of the turn)`,
begun with the fingerprints and the persona prefix: it stands for all consumed ids, and naming a turn costs the same at turn
1,000 as at turn 1. What a turn gives the state to read is fixed by `consumed_text` alone, so any generator that reads the same
messages arrives at the same name.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.orm import undefer

from app import redis as keys
from app.conversations.models import Message, StateSnapshot
from app.conversations.views import render_wording
from retnet_core import Request, State, StateMismatch, Tokenizer
from workers.answer import prompt
from workers.answer.claim import Answer
from workers.answer.prefixes import read
from workers.answer.services import Services

# What a state has read of these counts as published.
CONSUMED = ("done", "cancelled", "failed")

log = structlog.get_logger()


@dataclass(slots=True)
class Memory:
    """The own state after the visitor's question, and what must be written down once the answer is published."""

    state: State
    key: str
    ordinal: int  # of the last message consumed
    tokens: int
    fingerprint: str
    persona: str
    turns: list[tuple[UUID, list[int]]] = field(default_factory=list)  # consumed now, their ids not yet in SQL
    origin: str = "redis"  # where the state came from: redis, snapshot, ids, fresh


def consumed_text(message: Message) -> str:
    """What the state reads of a published message, "" for nothing.

    Of an answer: its wording; where the evidence stood alone, the evidence. Quotations below wording say the same once more,
    cost three times the tokens, and the passages cited last are candidates for a follow-up anyway (retrieve).
    """
    if message.role != "assistant":
        return message.text
    if message.sentences:
        return render_wording(message.sentences)
    return " ".join(str(item["text"]) for item in message.evidence or ())


def turn_ids(tokenizer: Tokenizer, message: Message) -> list[int]:
    text = consumed_text(message)
    if not text.strip():
        return []
    return prompt.visitor_turn(tokenizer, text) if message.role == "visitor" else prompt.assistant_turn(tokenizer, text)


def fingerprint(services: Services) -> str:
    """What the stored token ids depend on, then the model: ids survive another model, not another tokenizer or template."""
    return f"{services.model.tokenizer.fingerprint}:{prompt.TEMPLATE}:{services.model.fingerprint}"


def _ids_depend_on(mark: str | None) -> list[str]:
    return (mark or "").split(":")[:2]


def name(before: str, ids: Sequence[int]) -> str:
    """The name of the state that has read `ids` after the state named `before`."""
    return hashlib.sha256(before.encode() + array("i", ids).tobytes()).hexdigest()


def header(answer: Answer) -> dict[str, str]:
    """What a parked state must say of itself: a state under a wrong key is refused, whoever put it there."""
    return {
        "workspace": str(answer.claim.workspace_id),
        "conversation": str(answer.claim.conversation_id),
        "template": prompt.TEMPLATE,
    }


async def recall(services: Services, answer: Answer) -> Memory:
    """The conversation's own state, having read everything published up to and including the visitor's question."""
    memory = await _stored(services, answer) or await _fresh(services, answer)
    async with services.database.transaction(answer.claim.workspace_id) as session:
        rows = await session.execute(
            select(Message)
            .where(Message.conversation_id == answer.claim.conversation_id)
            .where(Message.ordinal > memory.ordinal, Message.ordinal < answer.message.ordinal)
            .where(Message.status.in_(CONSUMED))
            .order_by(Message.ordinal)
        )
        waiting = list(rows.scalars())
    ids: list[int] = []
    for message in waiting:
        turn = turn_ids(services.model.tokenizer, message)
        memory.turns.append((message.id, turn))
        memory.ordinal = message.ordinal
        if turn:
            memory.key = name(memory.key, turn)
            ids += turn
    await _read(services, answer, memory, ids)
    return memory


async def _read(services: Services, answer: Answer, memory: Memory, ids: list[int]) -> None:
    if not ids:
        return
    request = Request(ids, state=memory.state, group=str(answer.claim.workspace_id), priority=1)
    memory.state = await read(services.engine, request)
    memory.tokens += len(ids)


async def _fresh(services: Services, answer: Answer) -> Memory:
    """Nothing consumed yet, or token ids of another tokenizer: begin at the persona prefix and read the text."""
    persona, mark = answer.assistant.persona, fingerprint(services)
    ids = prompt.persona_prefix(services.model.tokenizer, persona)
    state = await services.prefixes.get(ids)
    return Memory(state, name(mark, ids), 0, len(ids), mark, persona, origin="fresh")


async def _stored(services: Services, answer: Answer) -> Memory | None:
    """The state that SQL names, from Redis or rebuilt; None when SQL names none that still can be used."""
    conversation, mark = answer.conversation, fingerprint(services)
    if conversation.state_key is None or _ids_depend_on(conversation.fingerprint) != _ids_depend_on(mark):
        return None
    persona = conversation.persona or answer.assistant.persona
    state = await _parked(services, answer, conversation.state_key)
    origin = "redis"
    if state is None:
        state, origin = await _rebuilt(services, answer, persona)
        if state is None:
            return None
    return Memory(state, conversation.state_key, conversation.state_ordinal, state.tokens, mark, persona, origin=origin)


async def _parked(services: Services, answer: Answer, key: str) -> State | None:
    try:
        data = await services.states.get(keys.state_key(answer.claim.conversation_id, key))
    except (RedisError, OSError) as error:
        log.warning("states_away", error=str(error))
        return None
    return _opened(services, answer, data, "parked") if isinstance(data, bytes) else None


def _opened(services: Services, answer: Answer, data: bytes, where: str) -> State | None:
    try:
        return State.from_bytes(data, model=services.model, header=header(answer))
    except StateMismatch as error:
        log.warning("state_refused", where=where, reason=str(error))
        return None


async def _rebuilt(services: Services, answer: Answer, persona: str) -> tuple[State | None, str]:
    """Read the stored ids again, from the last durable snapshot on if it can be used, otherwise from the persona prefix."""
    conversation_id = answer.claim.conversation_id
    async with services.database.transaction(answer.claim.workspace_id) as session:
        snapshot: Any = await session.get(StateSnapshot, conversation_id)
        state = _opened(services, answer, snapshot.data, "snapshot") if snapshot else None
        rows = await session.execute(
            select(Message)
            .options(undefer(Message.token_ids))
            .where(Message.conversation_id == conversation_id)
            .where(Message.ordinal > (snapshot.ordinal if state is not None else 0))
            .where(Message.ordinal <= answer.conversation.state_ordinal)
            .order_by(Message.ordinal)
        )
        ids = [token for message in rows.scalars() for token in message.token_ids or ()]
    origin = "ids" if state is None else "snapshot"
    if state is None:
        state = await services.prefixes.get(prompt.persona_prefix(services.model.tokenizer, persona))
    if ids:
        request = Request(ids, state=state, group=str(answer.claim.workspace_id), priority=1)
        state = await read(services.engine, request)
    log.info("state_rebuilt", origin=origin, read=len(ids), tokens=state.tokens)
    if state.tokens != answer.conversation.state_tokens:
        # The stored ids do not add up to what SQL says was consumed: read the text anew.
        log.warning("state_incomplete", tokens=state.tokens, expected=answer.conversation.state_tokens)
        return None, origin
    return state, origin

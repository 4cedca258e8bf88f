"""After the visitor has the answer: the conversation's own state reads it, and is parked under its new name.

SQL names the current state by compare-and-set, so of two generators that remember the same turn one wins, and both would
have written the same. Losing the race, or the process, costs nothing: the next turn reads what is missing (recall).
"""

from __future__ import annotations

import structlog
from redis.exceptions import RedisError
from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert

from app import redis as keys
from app.conversations.models import Conversation, Message, StateSnapshot
from retnet_core import Request, State
from workers.answer import recall
from workers.answer.claim import Answer
from workers.answer.prefixes import read
from workers.answer.recall import Memory
from workers.answer.services import Services

# Six facts told, then eight turns, parked and fetched after each: all six recalled as with fp32, the next token's distribution
# differs by a KL of at most 0.005 (int8: 0.0002). bf16, since rounding adds up over hundreds of turns and int8 rounds coarser.
PARKED_PRECISION = "bfloat16"
SNAPSHOT_PRECISION = "int8"
# A durable snapshot every so many tokens bounds a rebuild to a few seconds (DESIGN.md, "The conversation's memory").
SNAPSHOT_TOKENS = 2048
# The server evicts the least recently used anyway; a conversation untouched for so long is rebuilt when it wakes.
PARKED_SECONDS = 7 * 24 * 3600
# The state before may still be on its way to a generator that has begun the next turn.
OLD_SECONDS = 60

log = structlog.get_logger()


async def remember(services: Services, answer: Answer, memory: Memory, message: Message) -> None:
    """Let the state read the published answer, park it, and write down its name. `message` is the row as committed."""
    before = answer.conversation.state_key
    turn = recall.turn_ids(services.model.tokenizer, message)
    memory.turns.append((message.id, turn))
    memory.ordinal = message.ordinal
    if turn:
        request = Request(turn, state=memory.state, group=str(answer.claim.workspace_id), priority=-1)
        memory.state = await read(services.engine, request)
        memory.key = recall.name(memory.key, turn)
        memory.tokens += len(turn)
    await _park(services, answer, memory)
    if not await _name(services, answer, memory, before):
        await _forget(services, answer, memory.key, delete=True)
        return
    if before and before != memory.key:
        await _forget(services, answer, before, delete=False)


async def _park(services: Services, answer: Answer, memory: Memory) -> None:
    data = memory.state.to_bytes(precision=PARKED_PRECISION, header=recall.header(answer))
    try:
        await services.states.set(keys.state_key(answer.claim.conversation_id, memory.key), data, ex=PARKED_SECONDS)
    except (RedisError, OSError) as error:
        log.warning("states_away", error=str(error))


async def _name(services: Services, answer: Answer, memory: Memory, before: str | None) -> bool:
    """Write the ids of the turns and the name of the state; False when the conversation is gone or already further."""
    conversation_id = answer.claim.conversation_id
    async with services.database.transaction(answer.claim.workspace_id) as session:
        named = await session.execute(
            update(Conversation)
            .where(Conversation.id == conversation_id, Conversation.state_key.is_not_distinct_from(before))
            .values(
                state_key=memory.key,
                state_ordinal=memory.ordinal,
                state_tokens=memory.tokens,
                persona=memory.persona,
                fingerprint=memory.fingerprint,
            )
            .returning(Conversation.id)
            .execution_options(synchronize_session=False)
        )
        if named.scalar_one_or_none() is None:
            return False
        for message_id, ids in memory.turns:
            await session.execute(
                update(Message).where(Message.id == message_id).values(token_ids=ids).execution_options(synchronize_session=False)
            )
        snapshot = await session.get(StateSnapshot, conversation_id)
        if memory.tokens - (snapshot.tokens if snapshot else 0) >= SNAPSHOT_TOKENS:
            await session.execute(_snapshot(answer, memory, memory.state))
    return True


def _snapshot(answer: Answer, memory: Memory, state: State):  # type: ignore[no-untyped-def]
    values = {
        "state_key": memory.key,
        "ordinal": memory.ordinal,
        "tokens": memory.tokens,
        "data": state.to_bytes(precision=SNAPSHOT_PRECISION, header=recall.header(answer)),
    }
    row = insert(StateSnapshot).values(
        conversation_id=answer.claim.conversation_id, workspace_id=answer.claim.workspace_id, **values
    )
    return row.on_conflict_do_update(index_elements=[StateSnapshot.conversation_id], set_=values)


async def _forget(services: Services, answer: Answer, key: str, *, delete: bool) -> None:
    name = keys.state_key(answer.claim.conversation_id, key)
    try:
        await (services.states.delete(name) if delete else services.states.expire(name, OLD_SECONDS))
    except (RedisError, OSError) as error:
        log.warning("states_away", error=str(error))

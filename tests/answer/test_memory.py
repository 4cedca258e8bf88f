"""The conversation's own state: what it has read, where it lies, and how it comes back when it is lost."""

from __future__ import annotations

import pytest
import torch
from redis.asyncio import Redis

from app import redis as keys
from app.conversations.models import Conversation, Message, StateSnapshot
from app.db.ids import new_id
from retnet_core import Request, State
from tests.answer.conftest import Chat, ChatFactory
from tests.conftest import Tenant
from workers.answer import prompt, recall, remember
from workers.answer.pipeline import answer_claim
from workers.answer.prefixes import read
from workers.answer.services import Services


async def parked(chat: Chat) -> bytes:
    conversation = await chat.stored()
    data = await chat.services.states.get(keys.state_key(chat.id, str(conversation.state_key)))
    assert isinstance(data, bytes)
    return data


async def tell(chat: Chat) -> None:
    await chat.ask("My order number is 48213.")


async def remembers(chat: Chat) -> Message:
    answer = await chat.ask("what was my order number?")
    assert answer.kind == "memory" and "48213" in answer.text
    return answer


async def test_the_state_has_consumed_persona_and_published_dialogue_and_nothing_else(chat: Chat, services: Services) -> None:
    question = await chat.ask("How do I switch the headlight on?")
    answer = await chat.read(question.id)
    conversation = await chat.stored()
    tokenizer = services.model.tokenizer
    asked = await chat.read(answer.reply_to)  # type: ignore[arg-type]
    dialogue = (asked.token_ids or []) + (answer.token_ids or [])
    assert tokenizer.decode(dialogue) == (
        "<|im_start|>user\nHow do I switch the headlight on?<|im_end|>\n"
        f"<|im_start|>assistant\n{recall.consumed_text(answer)}<|im_end|>\n"
    )
    persona = prompt.persona_prefix(tokenizer, conversation.persona or "")
    assert conversation.state_tokens == len(persona) + len(dialogue)
    assert conversation.state_ordinal == answer.ordinal
    replayed = await read(services.engine, Request(persona))
    for ids in (asked.token_ids, answer.token_ids):
        replayed = await read(services.engine, Request(ids or [], state=replayed))
    live = State.from_bytes(await parked(chat), model=services.model)
    assert live.tokens == replayed.tokens
    # Parked as bf16: eight bits of mantissa.
    for one, other in ((live.retention, replayed.retention), (live.window, replayed.window)):
        assert torch.allclose(one, other, rtol=2**-7, atol=1e-6)


async def test_states_flushed_in_mid_conversation_are_rebuilt(chat: Chat, states: Redis) -> None:
    await tell(chat)
    await states.flushall()
    answer = await remembers(chat)
    assert answer.trace["state"]["origin"] == "ids"
    assert (await remembers(chat)).trace["state"]["origin"] == "redis"


async def test_a_corrupt_parked_state_is_refused_and_rebuilt(chat: Chat, states: Redis) -> None:
    await tell(chat)
    data = bytearray(await parked(chat))
    data[len(data) // 2] ^= 0xFF
    await states.set(keys.state_key(chat.id, str((await chat.stored()).state_key)), bytes(data))
    assert (await remembers(chat)).trace["state"]["origin"] == "ids"


async def test_a_state_of_another_conversation_is_refused(
    chat: Chat, chat_with: ChatFactory, shop: Tenant, states: Redis
) -> None:
    await tell(chat)
    other = await chat_with(shop)
    await other.ask("My order number is 99999.")
    await states.set(keys.state_key(chat.id, str((await chat.stored()).state_key)), await parked(other))
    answer = await remembers(chat)
    assert answer.trace["state"]["origin"] == "ids" and "99999" not in answer.text


async def test_a_snapshot_bounds_what_must_be_read_again(chat: Chat, states: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remember, "SNAPSHOT_TOKENS", 40)
    await tell(chat)
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        snapshot = await session.get_one(StateSnapshot, chat.id)
    assert snapshot.state_key == (await chat.stored()).state_key and snapshot.tokens == (await chat.stored()).state_tokens
    monkeypatch.setattr(remember, "SNAPSHOT_TOKENS", 10_000)
    await chat.ask("hello")
    await states.flushall()
    answer = await remembers(chat)
    assert answer.trace["state"]["origin"] == "snapshot"


async def test_ids_of_another_tokenizer_or_template_are_not_used(chat: Chat) -> None:
    await tell(chat)
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        conversation = await session.get_one(Conversation, chat.id)
        conversation.fingerprint = "another:template:model"
    answer = await remembers(chat)
    assert answer.trace["state"]["origin"] == "fresh"
    assert (await chat.stored()).fingerprint == recall.fingerprint(chat.services)


async def test_token_ids_that_are_missing_lose_nothing(chat: Chat, states: Redis) -> None:
    told = await chat.ask("My order number is 48213.")
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        (await session.get_one(Message, told.reply_to)).token_ids = None
    await states.flushall()
    assert (await remembers(chat)).trace["state"]["origin"] == "fresh"


async def test_a_turn_that_was_not_remembered_is_read_by_the_next(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the generator died between the answer and its memory."""

    async def dies(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("workers.answer.pipeline.remember", dies)
        await chat.post("My order number is 48213.")
        await answer_claim(chat.services, await chat.claim())
    assert (await chat.stored()).state_key is None
    await remembers(chat)
    assert (await chat.stored()).state_ordinal == 4


async def test_what_an_agent_wrote_is_read_too(chat: Chat) -> None:
    await tell(chat)
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        conversation = await session.get_one(Conversation, chat.id)
        conversation.last_ordinal += 1
        message = Message(
            id=new_id(), workspace_id=chat.tenant.workspace_id, conversation_id=chat.id, ordinal=conversation.last_ordinal,
            epoch=conversation.epoch, role="agent", status="done", text="Your parcel leaves the house today.",
        )  # fmt: skip
        session.add(message)
    await remembers(chat)
    ids = (await chat.read(message.id)).token_ids
    assert (
        chat.services.model.tokenizer.decode(ids or [])
        == "<|im_start|>assistant\nYour parcel leaves the house today.<|im_end|>\n"
    )


async def test_the_bytes_of_a_state_are_the_same_after_turn_1_and_turn_50(services: Services) -> None:
    tokenizer = services.model.tokenizer
    state = await services.prefixes.get(prompt.persona_prefix(tokenizer, "You are brief."))
    sizes = []
    for turn in range(50):
        state = await read(services.engine, Request(prompt.visitor_turn(tokenizer, f"Turn {turn}?"), state=state))
        if turn in (0, 49):
            sizes.append(
                [state.nbytes, *(len(state.to_bytes(precision=each, header={"c": "x"})) for each in ("bfloat16", "int8"))]
            )
    assert sizes[0] == sizes[1]
    assert state.tokens > 300


async def test_the_parked_bytes_of_a_conversation_stay_the_same(chat: Chat) -> None:
    await chat.ask("hello")
    first = await parked(chat)
    await tell(chat)
    await remembers(chat)
    last = await parked(chat)
    assert len(first) == len(last) and first != last


async def test_the_state_before_expires_soon_and_the_current_one_does_not(chat: Chat, states: Redis) -> None:
    await chat.ask("hello")
    before = (await chat.stored()).state_key
    await chat.ask("thanks")
    after = (await chat.stored()).state_key
    assert 0 < await states.ttl(keys.state_key(chat.id, str(before))) <= remember.OLD_SECONDS
    assert await states.ttl(keys.state_key(chat.id, str(after))) > remember.OLD_SECONDS


async def test_a_changed_persona_leaves_running_conversations_as_they_are(chat: Chat) -> None:
    from app.assistants.models import Assistant

    await tell(chat)
    persona = (await chat.stored()).persona
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        assistant = await session.get_one(Assistant, chat.tenant.assistant_id)
        assistant.persona, assistant.version = "You are somebody else.", assistant.version + 1
    await chat.services.states.flushall()
    await remembers(chat)
    assert (await chat.stored()).persona == persona


def test_the_name_of_a_state_depends_on_every_id_and_on_their_order() -> None:
    names = {
        recall.name("", [1, 2]),
        recall.name("", [2, 1]),
        recall.name("", [12]),
        recall.name("x", [1, 2]),
        recall.name("", [1]),
    }
    assert len(names) == 5
    assert all(len(name) == 64 for name in names)

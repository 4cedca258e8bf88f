"""Rules of the live path: fences, epochs, stops, resumption. Whatever happens, a message ends in one way, and no text doubles."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import update

from app.conversations import service
from app.conversations.models import Conversation, Message
from app.db import lookups
from retnet_core import EngineClosed
from tests.answer.conftest import Chat
from workers.answer import claim as claims
from workers.answer import publish
from workers.answer.claim import Lost, hand_back, load
from workers.answer.pipeline import answer_claim
from workers.answer.query import build
from workers.answer.retrieve import candidates, retrieve
from workers.answer.select import select

QUESTION = "How do I switch the headlight on?"


async def until_evidence(chat: Chat, message_id: UUID) -> Message:
    for _ in range(2000):
        if (message := await chat.read(message_id)).evidence:
            return message
        await asyncio.sleep(0.005)
    raise AssertionError("no evidence within 10 s")


async def sweep(chat: Chat) -> list[lookups.Swept]:
    """As the sweeper does, for a generator whose last sign of life is old."""
    async with chat.services.database.transaction(None) as session:
        return await lookups.sweep_messages(session, stale_seconds=-1, attempts=3)


async def show_evidence(chat: Chat, claimed: lookups.Claim) -> Message:
    """What a generator did before it died: evidence and a first sentence are out."""
    services = chat.services
    answer = await load(services.database, claimed)
    asked = await build(services.vectors, answer.text, answer.dialogue)
    asked, hits = await retrieve(services.database, claimed.workspace_id, answer.assistant.id, asked)
    selection = select(asked.vector, candidates(hits), question=asked.text)
    await publish.publish_evidence(services, answer, *publish.quotations(selection, hits))
    await publish.publish_sentence(services, answer, "Press the round button behind the lamp for two seconds.")
    return answer.message


async def test_a_stop_in_mid_answer_ends_it_as_far_as_it_was_published(chat: Chat) -> None:
    message_id = await chat.post(QUESTION)
    work = asyncio.create_task(answer_claim(chat.services, await chat.claim()))
    await until_evidence(chat, message_id)
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        message = await service.find_message(session, message_id, None)
        assert message is not None and await service.stop_message(session, message)
    stopped = await chat.read(message_id)
    await work
    after = await chat.read(message_id)
    assert after.status == "cancelled" and after.evidence
    assert (after.sentences, after.text, after.fence) == (stopped.sentences, stopped.text, stopped.fence)
    assert "done" not in [kind for kind, _ in await chat.events()]


async def test_a_stopped_answer_is_remembered_as_far_as_it_was_published(chat: Chat) -> None:
    message_id = await chat.post(QUESTION)
    claimed = await chat.claim()
    await show_evidence(chat, claimed)
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        message = await service.find_message(session, message_id, None)
        assert message is not None and await service.stop_message(session, message)
    await chat.ask("hello")
    ids = (await chat.read(message_id)).token_ids or []
    assert "Press the round button behind the lamp for two seconds." in chat.services.model.tokenizer.decode(ids)


async def test_a_new_message_supersedes_the_answer_before(chat: Chat) -> None:
    first = await chat.post(QUESTION)
    claimed = await chat.claim()
    work = asyncio.create_task(answer_claim(chat.services, claimed))
    await until_evidence(chat, first)
    second = await chat.ask("What does an electric bicycle cost per day?")
    await work
    overtaken = await chat.read(first)
    assert (overtaken.status, overtaken.superseded_by) == ("superseded", second.id)
    assert second.status == "done"
    # The question was published and is remembered; the answer that was overtaken is not.
    assert overtaken.token_ids in (None, []) or "assistant" not in chat.services.model.tokenizer.decode(overtaken.token_ids)
    done = [data["message"]["id"] for kind, data in await chat.events() if kind == "done"]
    assert done == [str(second.id)]


async def test_a_claim_of_an_older_epoch_publishes_nothing_and_ends(chat: Chat) -> None:
    """As when the epoch was raised without anybody ending the row, by a handoff."""
    message_id = await chat.post(QUESTION)
    claimed = await chat.claim()
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        await session.execute(update(Conversation).where(Conversation.id == chat.id).values(epoch=Conversation.epoch + 1))
    await answer_claim(chat.services, claimed)
    message = await chat.read(message_id)
    assert (message.status, message.evidence, message.sentences) == ("cancelled", None, [])
    assert [kind for kind, _ in await chat.events()] == ["cancelled"]


async def test_a_generator_whose_row_was_taken_away_publishes_nothing(chat: Chat) -> None:
    message_id = await chat.post(QUESTION)
    claimed = await chat.claim()
    answer = await load(chat.services.database, claimed)
    assert [one.message_id for one in await sweep(chat)] == [message_id]
    with pytest.raises(Lost):
        await publish.publish_sentence(chat.services, answer, "Too late.")
    with pytest.raises(Lost):
        await publish.commit(chat.services, answer, kind="grounded", sentences=["Too late."])
    again = await chat.claim()
    assert (again.message_id, again.fence, again.attempt) == (message_id, claimed.fence + 2, 2)
    await answer_claim(chat.services, again)
    message = await chat.read(message_id)
    assert message.status == "done" and "Too late." not in message.text


async def test_the_next_generator_goes_on_after_what_was_published(chat: Chat) -> None:
    message_id = await chat.post(QUESTION)
    shown = await show_evidence(chat, await chat.claim())
    await sweep(chat)
    await answer_claim(chat.services, await chat.claim())
    message = await chat.read(message_id)
    assert (message.status, message.kind, message.trace["attempt"]) == ("done", "grounded", 2)
    assert message.evidence == shown.evidence and message.citations == shown.citations
    assert message.sentences[0] == "Press the round button behind the lamp for two seconds."
    assert len(set(message.sentences)) == len(message.sentences)
    assert message.text.count(message.sentences[0]) == 1
    events = await chat.events()
    assert [kind for kind, _ in events].count("evidence") == 1
    indices = [data["index"] for kind, data in events if kind == "sentence"]
    assert indices == sorted(set(indices))


async def test_an_answer_handed_back_does_not_count_as_an_attempt(chat: Chat) -> None:
    message_id = await chat.post(QUESTION)
    claimed = await chat.claim()
    await hand_back(chat.services, claimed)
    message = await chat.read(message_id)
    assert (message.status, message.attempt, message.heartbeat_at) == ("queued", 0, None)
    again = await chat.claim()
    assert again.fence > claimed.fence and again.attempt == 1
    await answer_claim(chat.services, again)
    assert (await chat.read(message_id)).status == "done"


async def test_an_engine_that_broke_fails_the_answer_after_three_attempts(chat: Chat) -> None:
    chat.services.engine.close()
    with pytest.raises(EngineClosed):
        await chat.services.prefixes.get([1])
    message_id = await chat.post(QUESTION)
    for attempt in (1, 2, 3):
        claimed = await chat.claim()
        assert claimed.attempt == attempt
        await answer_claim(chat.services, claimed)
    message = await chat.read(message_id)
    assert message.status == "failed" and message.error == claims.FAILED
    assert [kind for kind, _ in await chat.events()][-1] == "failed"


async def test_remembering_is_not_ended_by_a_sign_of_life_that_comes_too_late(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.001)
    answer = await chat.ask(QUESTION)
    assert answer.status == "done"
    assert (await chat.stored()).state_ordinal == answer.ordinal


async def test_the_sign_of_life_is_renewed_while_an_answer_is_written(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    message_id = await chat.post(QUESTION)
    claimed = await chat.claim()
    before = (await chat.read(message_id)).heartbeat_at
    pulse = asyncio.create_task(claims.beat(chat.services.database, claimed))
    await asyncio.sleep(0.2)
    after = (await chat.read(message_id)).heartbeat_at
    assert before is not None and after is not None and after > before
    await sweep(chat)
    with pytest.raises(Lost):
        async with asyncio.timeout(5):
            await pulse
    await answer_claim(chat.services, await chat.claim())


async def test_several_conversations_are_answered_at_once(chat: Chat, chat_with, shop) -> None:  # type: ignore[no-untyped-def]
    chats = [chat, await chat_with(shop), await chat_with(shop)]
    messages = [
        await one.post(question) for one, question in zip(chats, (QUESTION, "When is the workshop open?", "hello"), strict=True)
    ]
    async with chat.services.database.transaction(None) as session:
        claimed = [await lookups.claim_message(session, "test") for _ in chats]
    assert {one.message_id for one in claimed if one} == set(messages)
    await asyncio.gather(*(answer_claim(chat.services, one) for one in claimed if one))
    assert [(await one.read(message)).status for one, message in zip(chats, messages, strict=True)] == ["done"] * 3


async def test_without_the_states_server_an_answer_is_still_given(chat: Chat) -> None:
    from app.redis import client

    chat.services.states = client("redis://127.0.0.1:1/0")
    told = await chat.ask("My order number is 48213.")
    assert told.status == "done"
    answer = await chat.ask("what was my order number?")
    assert "48213" in answer.text and answer.trace["state"]["origin"] == "ids"
    await chat.services.states.aclose()


async def test_a_full_engine_leaves_the_evidence_alone(chat: Chat, model) -> None:  # type: ignore[no-untyped-def]
    from retnet_core import Engine, Request
    from workers.answer.prefixes import Prefixes

    services = chat.services
    services.engine.close()
    # Not started, and its one place taken: whatever is submitted finds it full.
    services.engine = Engine(model, slots=1, queue_limit=0, threads=1)
    services.engine.submit(Request([1, 2, 3]))
    services.prefixes = Prefixes(services.engine)
    answer = await chat.ask(QUESTION)
    assert (answer.status, answer.kind, answer.sentences) == ("done", "evidence", [])
    assert answer.evidence
    assert (await chat.stored()).state_key is None

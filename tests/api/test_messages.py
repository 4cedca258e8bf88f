"""Asking: what is accepted, what is refused and why, and what becomes of an older answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from uuid import UUID

import httpx
import pytest

from app import redis as keys
from app.conversations.models import Conversation, Message
from app.db import lookups
from tests.api.conftest import finish, join, problem, serving


async def test_a_message_and_its_answer_are_stored_and_the_bell_rings(asker, bus, db, tenant):
    await bus.delete(keys.BELL)
    answer = await asker.ask("  How do I begin?  ")
    body = answer.json()
    assert answer.status_code == 202
    assert body["message"]["text"] == "How do I begin?" and body["message"]["status"] == "done"
    assert body["answer"]["status"] == "queued" and body["answer"]["role"] == "assistant"
    assert (body["message"]["ordinal"], body["answer"]["ordinal"], body["answer"]["epoch"]) == (1, 2, 1)
    assert await bus.llen(keys.BELL) == 1
    assert int(answer.headers["ratelimit-remaining"]) < int(answer.headers["ratelimit-limit"])
    assert (await asker.see())["messages"] == [body["message"], body["answer"]]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "message-empty"),
        (" \n\t ", "message-empty"),
        ("x" * 20_000, "message-too-long"),
        ("\U0001f600" * 20_000, "message-too-long"),
        ("x" * 4001, "message-too-long"),
        ("a\x00b", "message-not-text"),
    ],
)
async def test_bad_text_is_refused_and_nothing_is_stored(asker, text, code):
    body = problem(await asker.ask(text), 422, code)
    assert body["field"] == "text"
    assert (await asker.see())["messages"] == []


@pytest.mark.parametrize(
    "raw", [b'{"text": "a \\ud800 b"}', b'{"text": "tail \\udc00"}', b'{"text": "a \xed\xa0\x80 b"}', b'{"text": "a \xff b"}']
)
async def test_half_characters_are_refused(asker, visitors, raw):
    path = f"/widget/v1/conversations/{asker.conversation}/messages"
    answer = await visitors.post(path, content=raw, headers={**asker.auth, "content-type": "application/json"})
    problem(answer, 422, "message-not-text")
    assert (await asker.see())["messages"] == []


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"text": 7}', b'{"text": "a", "more": 1}', b"null"])
async def test_a_body_of_another_shape_is_refused(asker, visitors, raw):
    path = f"/widget/v1/conversations/{asker.conversation}/messages"
    answer = await visitors.post(path, content=raw, headers={**asker.auth, "content-type": "application/json"})
    assert answer.status_code in (400, 422) and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "request-invalid"


async def test_a_body_too_large_is_refused(asker):
    problem(await asker.ask("x" * 400_000), 413, "body-too-large")


async def test_exactly_4000_characters_are_accepted(asker):
    assert (await asker.ask("é" * 4000)).status_code == 202


async def test_the_same_key_gives_the_same_message(asker):
    first = (await asker.ask("Once", **{"idempotency-key": "k-1"})).json()
    second = (await asker.ask("Once", **{"idempotency-key": "k-1"})).json()
    assert first == second
    assert len((await asker.see())["messages"]) == 2
    problem(await asker.ask("Another", **{"idempotency-key": "k-1"}), 409, "idempotency-key-reused")


async def test_the_same_key_at_the_same_time_stores_one_message(asker):
    answers = await asyncio.gather(*(asker.ask("Together", **{"idempotency-key": "k-2"}) for _ in range(5)))
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["message"]["id"] for a in answers}) == 1
    assert len((await asker.see())["messages"]) == 2


async def test_a_new_message_supersedes_the_answer_being_written(asker, bus, db, tenant):
    first = (await asker.ask("First")).json()["answer"]
    async with db.transaction(tenant.workspace_id) as session:
        message = await session.get(Message, UUID(first["id"]))
        message.status, message.fence = "running", 1
    async with bus.pubsub() as control:
        await control.subscribe(keys.CONTROL)
        second = (await asker.ask("Second")).json()["answer"]
        told = None
        while told is None:
            told = await control.get_message(ignore_subscribe_messages=True, timeout=2)
        assert first["id"].encode() in told["data"]
    older = (await asker.see())["messages"][1]
    assert older["status"] == "superseded" and older["superseded_by"] == second["id"]
    assert second["epoch"] == first["epoch"] + 1


async def test_messages_at_the_same_time_leave_one_open_answer(asker):
    answers = await asyncio.gather(*(asker.ask(f"Question {n}") for n in range(6)))
    assert {a.status_code for a in answers} == {202}
    messages = (await asker.see())["messages"]
    assert [m["ordinal"] for m in messages] == list(range(1, 13))
    assert sum(m["status"] == "queued" for m in messages) == 1
    assert sum(m["status"] == "superseded" for m in messages) == 5


async def test_stop_keeps_what_was_published(asker, db, tenant):
    answer = (await asker.ask("Stop me")).json()["answer"]
    evidence = [{"number": 1, "text": "A quoted sentence.", "passage_id": "p", "url": "u", "title": "t", "heading_path": []}]
    async with db.transaction(tenant.workspace_id) as session:
        message = await session.get(Message, UUID(answer["id"]))
        message.status, message.sentences, message.evidence = "running", ["Published."], evidence
    stopped = (await asker.act(answer["id"], "stop")).json()
    assert stopped["status"] == "cancelled" and stopped["text"] == "Published.\n\n> A quoted sentence."
    async with db.transaction(tenant.workspace_id) as session:
        assert (await session.get(Conversation, UUID(asker.conversation))).epoch == answer["epoch"] + 1
    again = await asker.act(answer["id"], "stop")
    assert again.status_code == 200 and again.json() == stopped


async def test_retry_asks_the_same_question_again_once(asker, db, bus, tenant):
    asked = (await asker.ask("Try me")).json()
    problem(await asker.act(asked["answer"]["id"], "retry"), 409, "message-not-retryable")
    await asker.act(asked["answer"]["id"], "stop")
    once, twice = (await asyncio.gather(*(asker.act(asked["answer"]["id"], "retry") for _ in range(2))))[:2]
    assert once.status_code == twice.status_code == 202
    assert once.json()["answer"]["id"] == twice.json()["answer"]["id"] != asked["answer"]["id"]
    assert once.json()["message"]["id"] == asked["message"]["id"]
    await finish(db, bus, tenant.workspace_id, once.json()["answer"]["id"])
    problem(await asker.act(once.json()["answer"]["id"], "retry"), 409, "message-not-retryable")


async def test_a_full_queue_answers_503_at_once_and_repeats_are_still_answered(stack, tenant, db):
    async with db.transaction(None) as session:
        waiting = await lookups.open_messages(session)
    async with (
        serving(replace(stack.settings, queue_limit=waiting + 1)) as web,
        httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}) as client,
    ):
        first, second = await join(client, tenant.slug), await join(client, tenant.slug)
        assert (await first.ask("In", **{"idempotency-key": "in"})).status_code == 202
        started = time.perf_counter()
        refused = await second.ask("Out")
        assert time.perf_counter() - started < 0.5
        problem(refused, 503, "queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await second.see())["messages"] == []
        assert (await first.ask("In", **{"idempotency-key": "in"})).status_code == 202
        stopped = (await first.see())["messages"][1]
        await first.act(stopped["id"], "stop")


async def test_a_noisy_visitor_is_told_to_wait(asker):
    answers = [await asker.ask("Again and again") for _ in range(21)]
    refused = next(a for a in answers if a.status_code == 429)
    problem(refused, 429, "too-many-requests")
    assert int(refused.headers["retry-after"]) >= 1 and refused.headers["ratelimit-remaining"] == "0"


async def test_one_workspaces_flood_leaves_room_for_the_others(stack, db, tenant, tenant_factory):
    async with db.transaction(None) as session:
        waiting = await lookups.open_messages(session)
    other = await tenant_factory()
    async with (
        serving(replace(stack.settings, queue_limit=waiting + 8)) as web,
        httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}) as client,
    ):
        flood = [await join(client, tenant.slug) for _ in range(8)]
        asked = [await one.ask("Flood") for one in flood]
        # 6 of 8: while two places are left, three for each are allowed, and six are open then.
        assert [one.status_code for one in asked] == [202] * 6 + [503] * 2
        problem(asked[-1], 503, "queue-full")
        metrics = await client.get(f"{web.dashboard_url}/metrics")
        assert 'retort_refused_total{reason="workspace-share"} 2.0' in metrics.text
        theirs = [await join(client, other.slug) for _ in range(3)]
        answers = [await one.ask("Mine") for one in theirs]
        assert [one.status_code for one in answers] == [202, 202, 503]  # the whole queue is full now
        # What was accepted of the flood is still there, and its own end makes room for it again.
        for one, posted in zip(flood[:3], asked, strict=False):
            assert (await one.act(posted.json()["answer"]["id"], "stop")).status_code == 200
        assert (await flood[-1].ask("Again")).status_code == 202
        for one in [*flood, *theirs]:
            for message in (await one.see())["messages"]:
                if message["status"] == "queued":
                    await one.act(message["id"], "stop")


async def test_the_call_that_asked_is_kept_with_the_answer(asker, db, tenant):
    asked = await asker.ask("Follow me", **{"x-request-id": "followed-0001"})
    assert asked.headers["x-request-id"] == "followed-0001"
    answer = asked.json()["answer"]["id"]
    await asker.act(answer, "stop")
    retried = await asker.act(answer, "retry")
    async with db.transaction(tenant.workspace_id) as session:
        assert (await session.get(Message, UUID(answer))).request_id == "followed-0001"
        again = await session.get(Message, UUID(retried.json()["answer"]["id"]))
        assert again.request_id == retried.headers["x-request-id"] != "followed-0001"

"""Generators as real processes: one is killed in mid-answer and another completes it; SIGTERM hands back; a stop stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app import redis as keys
from app.conversations import events, service
from app.conversations.models import Message
from app.db import lookups
from app.db.session import Database
from tests.answer.conftest import Chat, ChatFactory
from tests.conftest import Stack, Tenant
from workers.answer.services import Services
from workers.generate import Generator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]

ROOT = Path(__file__).parents[2]
QUESTIONS = (
    "How do I switch the headlight on?",
    "What does an electric bicycle cost per day?",
    "What deposit do you ask for an electric bicycle?",
    "How often should I oil the chain?",
    "When is the workshop open?",
    "Can I return unused parts?",
)
READY_SECONDS = 90


class Generators:
    """Generator processes of this test, by the name under which they sign their rows."""

    def __init__(self, stack: Stack, bus: keys.Redis) -> None:
        self._stack, self._bus = stack, bus
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    async def start(self, count: int) -> None:
        for _ in range(count):
            self._spawn()
        deadline = time.monotonic() + READY_SECONDS
        while len(await self.alive()) < len(self.processes):
            assert time.monotonic() < deadline, "the generators did not start"
            assert all(process.poll() is None for process in self.processes.values())
            await asyncio.sleep(0.1)

    def _spawn(self) -> None:
        environment = {**self._stack.environment, "RETORT_LOG_LEVEL": "warning", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "workers.generate"], cwd=ROOT, env=environment)
        self.processes[process.pid] = process

    async def alive(self) -> dict[str, dict[str, object]]:
        """The signs of life that /status reads."""
        names = [key async for key in self._bus.scan_iter(keys.process_key("generator", "*"))]
        values = [await self._bus.get(name) for name in names]
        signs = {name.decode().rpartition(":")[2]: json.loads(value) for name, value in zip(names, values, strict=True) if value}
        return {name: sign for name, sign in signs.items() if sign["pid"] in self.processes}

    def kill(self, name: str, number: int = signal.SIGKILL) -> subprocess.Popen[bytes]:
        process = self.processes.pop(int(name.rpartition("-")[2]))
        os.kill(process.pid, number)
        return process

    def hold(self, name: str) -> None:
        """Stop the process where it is: it does nothing more until `release`."""
        os.kill(int(name.rpartition("-")[2]), signal.SIGSTOP)

    def release(self, name: str) -> None:
        os.kill(int(name.rpartition("-")[2]), signal.SIGCONT)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
async def generators(stack: Stack) -> AsyncIterator[Generators]:
    bus = keys.client(stack.settings.bus_url)
    running = Generators(stack, bus)
    try:
        await running.start(2)
        yield running
    finally:
        running.end()
        await bus.aclose()


async def ask(chat: Chat, text: str) -> UUID:
    """As the web process does: the row, then the bell."""
    message_id = await chat.post(text)
    await events.ring(chat.services.bus)
    return message_id


async def until(chat: Chat, message_id: UUID, holds: Callable[[Message], bool], seconds: float = 30) -> Message:
    deadline = time.monotonic() + seconds
    while not holds(message := await chat.read(message_id)):
        assert time.monotonic() < deadline, f"still {message.status}"
        await asyncio.sleep(0.004)
    return message


async def caught_writing(chat: Chat, begin: Callable[[Chat, str], Awaitable[UUID]]) -> Message:
    """An answer whose evidence is out and which is still being written."""
    for question in QUESTIONS:
        message_id = await begin(chat, question)
        message = await until(chat, message_id, lambda one: bool(one.evidence) or one.status == "done")
        if message.status == "running":
            return message
        await until(chat, message_id, lambda one: one.status == "done")
    raise AssertionError("every answer was complete before it could be interrupted")


async def held_writing(generators: Generators, chat: Chat) -> Message:
    """The same, and its generator is held: the answer stays as it is until `release`, and no row is locked."""
    for _ in range(4):
        message = await caught_writing(chat, ask)
        name = str(message.generator)
        for _ in range(20):
            generators.hold(name)
            try:
                async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
                    query = select(Message).where(Message.id == message.id).with_for_update(nowait=True)
                    held = (await session.execute(query)).scalar_one()
                if held.status == "running" and held.generator == name:
                    return held
            except OperationalError:  # held in the middle of a transaction
                held = message
            generators.release(name)
            if held.status != "running":
                break
            await asyncio.sleep(0.003)
    raise AssertionError("every answer was complete before its generator could be held")


async def test_two_generators_share_the_queue_and_any_serves_any_conversation(
    generators: Generators, chat_with: ChatFactory, shop: Tenant
) -> None:
    chats = [await chat_with(shop) for _ in range(6)]
    first = [await ask(chat, "My order number is 48213.") for chat in chats]
    for chat, message_id in zip(chats, first, strict=True):
        assert (await until(chat, message_id, lambda one: one.status == "done")).kind == "noted"
    second = [await ask(chat, "what was my order number?") for chat in chats]
    answers = [
        await until(chat, message_id, lambda one: one.status == "done") for chat, message_id in zip(chats, second, strict=True)
    ]
    assert all("48213" in answer.text for answer in answers)
    signs = await generators.alive()
    assert {answer.generator for answer in answers} <= set(signs)
    assert all({"pid", "started", "version", "answers", "tokens_per_second"} <= set(sign) for sign in signs.values())


async def test_a_stop_reaches_the_process_that_writes(generators: Generators, chat: Chat) -> None:
    message = await held_writing(generators, chat)
    async with chat.services.database.transaction(chat.tenant.workspace_id) as session:
        found = await service.find_message(session, message.id, None)
        assert found is not None and await service.stop_message(session, found)
    await service.announce_stop(chat.services.bus, found)
    generators.release(str(message.generator))
    assert (await until(chat, await ask(chat, "hello"), lambda one: one.status == "done")).kind == "noted"
    await asyncio.sleep(0.5)  # in which it could still write
    after = await chat.read(message.id)
    assert (after.status, after.text, after.sentences) == ("cancelled", found.text, found.sentences)
    assert after.sentences == message.sentences
    assert [kind for kind, data in await chat.events() if data.get("message", {}).get("id") == str(message.id)][-1] == "cancelled"


async def test_sigterm_hands_an_answer_back_within_two_seconds(generators: Generators, chat: Chat) -> None:
    message = await caught_writing(chat, ask)
    begun = time.monotonic()
    process = generators.kill(str(message.generator), signal.SIGTERM)
    await until(chat, message.id, lambda one: one.status != "running" or one.generator != message.generator)
    assert time.monotonic() - begun < 2.2
    assert await asyncio.to_thread(process.wait, 20) == 0
    done = await until(chat, message.id, lambda one: one.status == "done")
    assert done.evidence == message.evidence
    assert len(set(done.sentences)) == len(done.sentences)


async def test_an_answer_whose_generator_is_killed_is_completed_by_another_without_doubled_text(
    generators: Generators, chat: Chat, db: Database
) -> None:
    if len(generators.processes) < 2:
        await generators.start(1)
    message = await held_writing(generators, chat)
    generators.kill(str(message.generator)).wait()
    left = await chat.read(message.id)
    assert left.status == "running"
    for _ in range(200):
        if (await chat.read(message.id)).status == "done":
            break
        # As the sweeper does on its schedule.
        async with db.transaction(None) as session:
            if await lookups.sweep_messages(session, stale_seconds=3, attempts=3):
                await events.ring(chat.services.bus)
        await asyncio.sleep(0.1)
    done = await until(chat, message.id, lambda one: one.status == "done")
    assert done.trace["attempt"] == 2 and done.generator != message.generator
    assert done.evidence == message.evidence
    assert done.sentences[: len(left.sentences)] == left.sentences
    assert len(set(done.sentences)) == len(done.sentences)
    assert all(done.text.count(sentence) <= 2 for sentence in done.sentences)  # once worded, at most once quoted
    seen: dict[int, str] = {}
    for kind, data in await chat.events():
        if kind == "sentence" and data["message_id"] == str(message.id):
            assert seen.setdefault(data["index"], data["text"]) == data["text"]
    assert [seen[index] for index in sorted(seen)] == done.sentences[: len(seen)]
    assert [data["message"]["id"] for kind, data in await chat.events() if kind == "done"].count(str(message.id)) == 1


async def test_a_mistake_in_one_of_its_loops_ends_the_generator(
    services: Services, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor starts another; without that loop it would look alive and do nothing."""

    async def broken(self: Generator) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(Generator, "_control", broken)
    blocking = keys.blocking_client(stack.settings.bus_url)
    try:
        generator = Generator(services, blocking)
        await asyncio.wait_for(generator.run(), timeout=20)
        assert generator.failed
    finally:
        await blocking.aclose()

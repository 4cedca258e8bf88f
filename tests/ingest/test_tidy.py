"""The sweeper: answers whose generator died, and sources that nobody reads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from app.conversations.models import Message
from app.conversations.service import create_visitor, post_message, start_conversation
from app.redis import BELL, conversation_stream
from tests.ingest.crawled_site import Crawler, Website, page


async def sweep_all(crawler: Crawler) -> None:
    """One sweep. The worker's module reads the settings when it is imported, so that comes after the servers' start."""
    from workers import tidy

    await tidy.sweep_all(crawler.process)


async def abandoned(db: Any, tenant: Any, attempt: int) -> Message:
    """An answer whose generator took it and was never heard of again."""
    async with db.transaction(tenant.workspace_id) as session:
        visitor = await create_visitor(session, tenant.workspace_id, tenant.assistant_id)
        conversation = await start_conversation(session, tenant.workspace_id, tenant.assistant_id, visitor.id)
        posted = await post_message(session, conversation, "When does the bell ring?")
        await session.execute(
            text(
                """UPDATE messages SET status = 'running', attempt = :attempt, fence = 7,
                       heartbeat_at = now() - interval '1 minute' WHERE id = :id"""
            ),
            {"attempt": attempt, "id": posted.answer.id},
        )
    return posted.answer


async def stored(db: Any, tenant: Any, message: Message) -> Any:
    async with db.transaction(tenant.workspace_id) as session:
        return (await session.execute(text("SELECT status, fence, error FROM messages WHERE id = :id"), {"id": message.id})).one()


async def test_an_answer_whose_generator_died_is_queued_again_and_the_bell_rings(
    crawler: Crawler, db: Any, tenant: Any, bus: Any
) -> None:
    answer = await abandoned(db, tenant, attempt=1)
    await bus.delete(BELL)
    await sweep_all(crawler)
    assert tuple(await stored(db, tenant, answer)) == ("queued", 8, None)
    assert await bus.llen(BELL) >= 1
    assert await bus.xlen(conversation_stream(answer.conversation_id)) == 0, "nothing was told to the reader: nothing was lost"


async def test_an_answer_that_failed_three_times_says_so_to_its_reader(crawler: Crawler, db: Any, tenant: Any, bus: Any) -> None:
    answer = await abandoned(db, tenant, attempt=3)
    await sweep_all(crawler)
    status, fence, error = await stored(db, tenant, answer)
    assert (status, fence) == ("failed", 8) and error
    ((_, entry),) = await bus.xrange(conversation_stream(answer.conversation_id))
    assert entry[b"type"] == b"failed"
    message = msgspec.json.decode(entry[b"data"])["message"]
    assert (message["id"], message["status"], message["error"]) == (str(answer.id), "failed", error)


@pytest.mark.parametrize("stale", [False, True])
async def test_a_source_that_nobody_reads_is_set_going_again(
    crawler: Crawler, site: Website, db: Any, tenant: Any, bus: Any, stale: bool
) -> None:
    """Its hint was lost, or its worker died: either way the io queue gets a new hint."""
    site["/"] = page("Home", "The bell rings at noon, and the kitchen closes an hour later on every day of the week.")
    source_id = await crawler.add(f"{site.url}/")
    age = (
        "UPDATE sources SET status = 'reading', run = 1, heartbeat_at = now() - interval '1 minute' WHERE id = :id"
        if stale
        else "UPDATE sources SET created_at = now() - interval '1 minute' WHERE id = :id"
    )
    async with db.transaction(tenant.workspace_id) as session:
        await session.execute(text(age), {"id": source_id})
    await bus.delete("io")
    await sweep_all(crawler)
    hints = [msgspec.json.decode(raw) for raw in await bus.lrange("io", 0, -1)]
    assert any(
        hint["headers"]["task"] == "ingest.read_source" and str(source_id) in hint["headers"]["argsrepr"] for hint in hints
    )
    source = await crawler.read(source_id)
    assert source.status == "read" and site.asked["/"] == 1
    await bus.delete("io")

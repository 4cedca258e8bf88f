"""What keeps promises when a process dies: answers without a generator, sources that nobody reads.

Runs every few seconds. Old event streams and process keys need nothing here: they expire by themselves.
"""

from __future__ import annotations

import structlog
from sqlalchemy import select

from app.conversations.events import publish, ring
from app.conversations.models import Message
from app.conversations.views import message_view
from app.db.lookups import Swept, sweep_messages, unread_sources
from app.jobs import READ_SOURCE, SWEEP
from workers.celery import app
from workers.ingest.ledger import STALE_SECONDS
from workers.process import Process, process, send

# A generator renews an answer's heartbeat about every second.
ANSWER_STALE_SECONDS = 10.0
ANSWER_ATTEMPTS = 3

log = structlog.get_logger()


@app.task(name=SWEEP, time_limit=30)
def sweep() -> None:
    process.run(sweep_all(process))


async def sweep_all(process: Process) -> None:
    """Free stale answers and set neglected sources going again."""
    async with process.database.transaction(None) as session:
        freed = await sweep_messages(session, stale_seconds=ANSWER_STALE_SECONDS, attempts=ANSWER_ATTEMPTS)
    for swept in freed:
        await _announce(process, swept)
    async with process.database.transaction(None) as session:
        neglected = await unread_sources(session, stale_seconds=STALE_SECONDS)
    for workspace_id, source_id in neglected:
        log.info("source_revived", source_id=str(source_id))
        await send(READ_SOURCE, workspace_id, source_id)


async def _announce(process: Process, swept: Swept) -> None:
    log.warning("answer_freed", message_id=str(swept.message_id), status=swept.status)
    if swept.status == "queued":
        await ring(process.bus)
        return
    async with process.database.transaction(swept.workspace_id) as session:
        message = (await session.execute(select(Message).where(Message.id == swept.message_id))).scalar_one_or_none()
    if message is not None:
        await publish(process.bus, swept.conversation_id, "failed", {"message": message_view(message)})

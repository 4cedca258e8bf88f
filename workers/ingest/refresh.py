"""Vectors of another encoder than today's are made anew, page by page, while the assistant goes on answering.

After an upgrade that changes the encoder every passage is stale. A passage is never changed but for its vectors (a page that is
read again has new rows), so that a refresh can be lost, repeated or overtaken: it writes to the rows that are still there. Until
a page's turn comes it is found by its words, and by vectors that a query's is only roughly like.
"""

from __future__ import annotations

import math
import random
import time
from uuid import UUID

import structlog
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.models import Document, Passage
from app.db.lookups import stale_documents
from workers import tuned
from workers.process import Process

# A run works for about so long (a batch is finished); the next begins workers.celery.REFRESH_SECONDS after it began: pages that
# were just fetched, and the visitors of a small machine, have the other half.
WORK_SECONDS = 2.0
BATCH = 50  # documents looked up at once
PASSAGES = 16  # encoded and written together: about a second of one core, and no row is locked for longer than they take to write

log = structlog.get_logger()


async def refresh(process: Process, *, seconds: float = WORK_SECONDS) -> int:
    """Embed stale passages again for about `seconds`, at least some if there are any; returns how many were renewed."""
    until, encoder, renewed = time.monotonic() + seconds, tuned.fingerprint(tuned.shipped()), 0
    async with process.database.transaction(None) as session:
        stale = await stale_documents(session, encoder, limit=BATCH)
    random.shuffle(stale)  # two workers rarely take the same page; if they do, both write the same
    for workspace_id, document_id in stale:
        renewed += await refresh_document(process, workspace_id, document_id, until=until)
        if time.monotonic() >= until:
            break
    if renewed:
        log.info("vectors_renewed", passages=renewed, encoder=encoder)
    return renewed


async def refresh_document(process: Process, workspace_id: UUID, document_id: UUID, *, until: float = math.inf) -> int:
    """Make the vectors of a document's stale passages anew from their stored text; returns how many were written.

    Ends after the batch that is being made at the monotonic time `until`: the next run finds the rest.
    """
    from workers.ingest.embed import embed, load_encoder

    encoder = load_encoder(process.settings.threads)[0].fingerprint
    query = select(Passage).where(Passage.document_id == document_id, Passage.encoder != encoder).order_by(Passage.ordinal)
    async with process.database.transaction(workspace_id) as session:
        passages = (await session.execute(query)).scalars().all()
        rows = [(one.id, one.source_id, one.title, _draft(one)) for one in passages]
    written = 0
    for start in range(0, len(rows), PASSAGES):
        part = rows[start : start + PASSAGES]
        vectors, sentences = await embed(process.settings.threads, part[0][2], [draft for *_, draft in part])
        async with process.database.transaction(workspace_id) as session:
            if not await _lock(session, part[0][1], document_id):
                break
            for (passage_id, *_), vector, own in zip(part, vectors, sentences, strict=True):
                values = {"embedding": vector, "sentence_vectors": own, "encoder": encoder}
                statement = update(Passage).where(Passage.id == passage_id).values(values).returning(Passage.id)
                written += (await session.execute(statement)).scalar() is not None
        if time.monotonic() >= until:
            break
    return written


async def _lock(session: AsyncSession, source_id: UUID, document_id: UUID) -> bool:
    """Hold source and document in the order in which everything else does; False when they are gone."""
    held = await session.execute(text("SELECT 1 FROM sources WHERE id = :id FOR KEY SHARE"), {"id": source_id})
    if held.first() is None:
        return False
    return (await session.execute(select(Document.id).where(Document.id == document_id).with_for_update())).first() is not None


def _draft(passage: Passage) -> dict[str, object]:
    """The passage as ingest knew it before it had vectors."""
    return {"heading_path": passage.heading_path, "text": passage.text, "sentences": passage.sentences}

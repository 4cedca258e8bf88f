"""The long path, step by step: plan a source, fetch a page, embed a page. Each is one short task over rows in SQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog
from sqlalchemy import text

from app.http.outbound import OutboundError, check_target
from app.jobs import EMBED_DOCUMENT
from workers.ingest import ledger
from workers.ingest.addresses import Site
from workers.ingest.discover import Found, discover
from workers.ingest.fetch import fetch_page
from workers.ingest.index import replace_passages, settle
from workers.ingest.ledger import Claimed, Hint
from workers.ingest.robots import load_rules
from workers.process import Process, send

PLAN_SECONDS = 120.0
BEAT_SECONDS = 4.0

log = structlog.get_logger()


async def read_source(process: Process, workspace_id: UUID, source_id: UUID) -> None:
    """Begin to read a source, or set a reading going again whose workers died."""
    async with process.database.transaction(workspace_id) as session:
        begun = await ledger.begin(session, source_id)
    if begun is None:
        return
    url, run, fence, planned = begun
    if not planned:
        async with _beating(process, workspace_id, source_id, fence):
            found = await _discover(process, url)
        log.info("source_planned", source_id=str(source_id), run=run, pages=len(found.pages))
    async with process.database.transaction(workspace_id) as session:
        if not await ledger.lock(session, source_id, run):
            return
        if not planned:
            await ledger.plan(session, workspace_id, source_id, run, found)
        hints = await ledger.advance(session, source_id, run)
    await _send(workspace_id, hints)


async def _discover(process: Process, url: str) -> Found:
    """The site's pages. A site that cannot be reached has one page, whose own row will say why."""
    site = Site(url)
    try:
        async with asyncio.timeout(PLAN_SECONDS):
            await check_target(site.root, allowed=process.settings.allow_private)
            rules = await load_rules(process, site.root, fresh=True)
            return await discover(process, site, rules)
    except (OutboundError, TimeoutError):
        return Found([site.root])


@asynccontextmanager
async def _beating(process: Process, workspace_id: UUID, source_id: UUID, fence: int) -> AsyncIterator[None]:
    """Signs of life while a site is being discovered."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            async with process.database.transaction(workspace_id) as session:
                await ledger.beat(session, source_id, fence)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def fetch_document(process: Process, workspace_id: UUID, document_id: UUID) -> None:
    """Fetch and extract one page, write what became of it, and say what comes next."""
    async with process.database.transaction(workspace_id) as session:
        claim = await ledger.claim_fetch(session, document_id)
    if claim is None:
        return

    async def known(url: str) -> bool:
        async with process.database.transaction(workspace_id) as session:
            return await ledger.has_document(session, claim, url)

    async with _renewing(process, claim):
        outcome = await fetch_page(process, claim, known, lambda: _renew(process, claim))
    async with process.database.transaction(workspace_id) as session:
        hints = await settle(session, claim, outcome)
    log.info("page", url=outcome.url or claim.url, status=outcome.status, code=outcome.code, passages=len(outcome.drafts))
    await _send(workspace_id, hints)


async def embed_document(process: Process, workspace_id: UUID, document_id: UUID) -> None:
    """Give a fetched page its vectors and make it searchable."""
    from workers.ingest.embed import embed, load_encoder

    encoder, _ = load_encoder(process.settings.threads)  # before the claim: it takes seconds, the first time
    async with process.database.transaction(workspace_id) as session:
        claim = await ledger.claim_embed(session, document_id)
        if claim is None:
            return
        row = (await session.execute(text("SELECT title, blocks FROM documents WHERE id = :id"), {"id": document_id})).one()
    title, drafts = row[0], row[1] or []
    async with _renewing(process, claim):
        vectors, sentences = await embed(process.settings.threads, title, drafts)
    async with process.database.transaction(workspace_id) as session:
        if not await ledger.lock(session, claim.source_id, claim.run):
            return
        written = await replace_passages(session, claim, title, drafts, vectors, sentences, encoder.fingerprint)
        hints = await ledger.advance(session, claim.source_id, claim.run)
    log.info("page_indexed", url=claim.url, passages=len(drafts), written=written)
    await _send(workspace_id, hints)


async def _renew(process: Process, claim: Claimed) -> None:
    async with process.database.transaction(claim.workspace_id) as session:
        await ledger.renew(session, claim)


@asynccontextmanager
async def _renewing(process: Process, claim: Claimed) -> AsyncIterator[None]:
    """Signs of life while a slow server or the model is waited for."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await _renew(process, claim)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _send(workspace_id: UUID, hints: list[Hint]) -> None:
    # Vectors first: their queue is the slower one.
    for name, document_id in sorted(hints, key=lambda hint: hint[0] != EMBED_DOCUMENT):
        await send(name, workspace_id, document_id)

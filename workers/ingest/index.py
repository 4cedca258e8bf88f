"""What a fetched page becomes in SQL: a verdict, or passages that replace the ones before in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, null, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.models import Document, Passage
from app.db.ids import new_id
from workers.ingest import ledger
from workers.ingest.fetch import Outcome, drafts_json, new_pages
from workers.ingest.ledger import Claimed, Hint

if TYPE_CHECKING:  # the fetching pool does without numpy
    import numpy as np

# Verdicts after which nothing of the page may be found any more. After others (500, timeout) what was read before stays.
REMOVING = ("robots", "noindex", "not-html", "no-text", "redirected", "duplicate", "http-404", "http-410", "http-451", "http-401")
STAYS = " What was read of it before stays in use."
GONE = " What was read of it before was removed."


async def settle(session: AsyncSession, claim: Claimed, outcome: Outcome) -> list[Hint]:
    """Write what became of a fetched page; returns hints to send after the commit. A stale claim writes nothing."""
    if not await ledger.lock(session, claim.source_id, claim.run):
        return []
    if not await _still_ours(session, claim):
        return await ledger.advance(session, claim.source_id, claim.run)
    if outcome.url:
        await _move(session, claim, outcome)
    if outcome.status == "fetched":
        await _recognise(session, claim, outcome)
    await _follow(session, claim, outcome)
    await _write(session, claim, outcome)
    hints = await ledger.advance(session, claim.source_id, claim.run)
    if outcome.status == "fetched":
        hints.insert(0, (ledger.EMBED_DOCUMENT, claim.document_id))
    return hints


async def _still_ours(session: AsyncSession, claim: Claimed) -> bool:
    row = await session.execute(
        text("SELECT 1 FROM documents WHERE id = :id AND run = :run AND attempts = :attempt AND status = 'fetching' FOR UPDATE"),
        {"id": claim.document_id, "run": claim.run, "attempt": claim.attempt},
    )
    return row.first() is not None


async def _move(session: AsyncSession, claim: Claimed, outcome: Outcome) -> None:
    """The page lives where its redirect led; its old address remains as a row that says so."""
    assert outcome.url is not None
    if await ledger.has_document(session, claim, outcome.url):
        outcome.status, outcome.code, outcome.drafts = "skipped", "redirected", []
        outcome.reason = f"The page leads to {outcome.url}, which is read under its own address."
        return
    await session.execute(text("UPDATE documents SET url = :url WHERE id = :id"), {"url": outcome.url, "id": claim.document_id})
    await session.execute(
        text(
            """INSERT INTO documents (id, workspace_id, source_id, url, run, depth, status, code, reason, fetched_at)
               VALUES (:id, :workspace, :source, :url, :run, :depth, 'skipped', 'redirected', :reason, now())"""
        ),
        {
            "id": new_id(), "workspace": claim.workspace_id, "source": claim.source_id, "url": claim.url, "run": claim.run,
            "depth": claim.depth + 1, "reason": f"The page leads to {outcome.url}, which is read under its own address.",
        },
    )  # fmt: skip


async def _recognise(session: AsyncSession, claim: Claimed, outcome: Outcome) -> None:
    """The same text as before needs no vectors; the same text as another page's is read once."""
    if claim.can_be_unchanged and outcome.content_hash == claim.content_hash:
        outcome.status = "unchanged"
        return
    row = await session.execute(
        text(
            """SELECT url FROM documents WHERE source_id = :source AND content_hash = :hash AND id <> :id AND run = :run
                   AND status IN ('fetched', 'read', 'unchanged') ORDER BY id LIMIT 1"""
        ),
        {"source": claim.source_id, "hash": outcome.content_hash, "id": claim.document_id, "run": claim.run},
    )
    if twin := row.scalar():
        outcome.status, outcome.code = "skipped", "duplicate"
        outcome.reason = f"The page says the same as {twin}, which is read already."


async def _follow(session: AsyncSession, claim: Claimed, outcome: Outcome) -> None:
    """Add the pages that this one links to, when the source is read by links."""
    if outcome.links and await ledger.follows_links(session, claim.source_id, claim.run):
        pages, files = new_pages(outcome.links)
        depth = claim.depth + 1
        await ledger.add_pages(session, claim.workspace_id, claim.source_id, claim.run, pages, depth=depth)
        kinds = dict(files)
        await ledger.add_pages(session, claim.workspace_id, claim.source_id, claim.run, list(kinds), kinds=kinds, depth=depth)


async def _write(session: AsyncSession, claim: Claimed, outcome: Outcome) -> None:
    removes = outcome.status in ("skipped", "failed") and outcome.code in REMOVING
    reason = outcome.reason
    if claim.can_be_unchanged and outcome.status in ("skipped", "failed"):
        reason = (reason or "") + (GONE if removes else STAYS)
    values: dict[str, Any] = {
        "status": outcome.status, "code": outcome.code, "reason": reason, "http_status": outcome.http_status, "claimed_at": None,
    }  # fmt: skip
    if outcome.status == "waiting":
        # A turn that did not come was no attempt.
        values["attempts"] = claim.attempt if outcome.http_status else claim.attempt - 1
    else:
        values |= {"fetched_at": func.now(), "blocks": null()}
    if outcome.status in ("fetched", "unchanged") and outcome.content_hash:
        values |= {name: getattr(outcome, name) for name in ("words", "bytes", "etag", "last_modified")}
    if outcome.status == "fetched":
        values |= {"title": outcome.title, "content_hash": outcome.content_hash, "blocks": drafts_json(outcome.drafts)}
        values |= {"attempts": 0, "claimed_at": func.now()}
    if removes:
        values |= {"content_hash": None, "etag": None, "last_modified": None, "words": 0}
        await session.execute(delete(Passage).where(Passage.document_id == claim.document_id))
    await session.execute(update(Document).where(Document.id == claim.document_id, Document.run == claim.run).values(values))


async def replace_passages(
    session: AsyncSession,
    claim: Claimed,
    title: str,
    drafts: Sequence[dict[str, Any]],
    vectors: np.ndarray,
    sentences: Sequence[bytes],
    encoder: str,
) -> bool:
    """Put the new passages in the place of the old. False when the claim is stale: then nothing is written.

    `vectors` has 384 numbers for each passage; `sentences` holds, for each passage, its sentences' vectors as float16, row-major;
    `encoder` is the fingerprint of what made them.
    """
    row = await session.execute(
        text("SELECT url FROM documents WHERE id = :id AND run = :run AND attempts = :attempt AND status = 'fetched' FOR UPDATE"),
        {"id": claim.document_id, "run": claim.run, "attempt": claim.attempt},
    )
    url = row.scalar()
    if url is None:
        return False
    await session.execute(text("DELETE FROM passages WHERE document_id = :id"), {"id": claim.document_id})
    rows = [
        {
            "id": new_id(), "workspace_id": claim.workspace_id, "source_id": claim.source_id, "document_id": claim.document_id,
            "ordinal": ordinal, "url": url, "title": title, "heading_path": draft["heading_path"], "fragment": draft["fragment"],
            "text": draft["text"], "tokens": draft["tokens"], "embedding": vectors[ordinal], "sentences": draft["sentences"],
            "sentence_vectors": sentences[ordinal], "encoder": encoder,
        }
        for ordinal, draft in enumerate(drafts)
    ]  # fmt: skip
    if rows:
        await session.execute(insert(Passage), rows)
    await session.execute(
        text("UPDATE documents SET status = 'read', version = version + 1, blocks = NULL, claimed_at = NULL WHERE id = :id"),
        {"id": claim.document_id},
    )
    await _name_source(session, claim, title)
    return True


async def _name_source(session: AsyncSession, claim: Claimed, title: str) -> None:
    """A source without a name (or with its host for one) is called after its first page."""
    await session.execute(
        text(
            """UPDATE sources SET title = :title WHERE id = :source AND :title <> ''
                   AND title IN ('', regexp_replace(url, '^https?://([^/?]+).*$', '\\1'))
                   AND :id = (SELECT id FROM documents WHERE source_id = :source ORDER BY depth, id LIMIT 1)"""
        ),
        {"title": title, "source": claim.source_id, "id": claim.document_id},
    )

"""The state of a crawl, which is in SQL and nowhere else: what is claimed, by which attempt, and what comes next.

A document goes waiting → fetching → fetched → read (or unchanged, skipped, failed). `claimed_at` of a waiting document says
when a hint for it was sent; of a fetching or fetched one, when its task last gave a sign of life. `attempts` is the fence: a
task whose attempt is no longer the row's writes nothing. While a fetched document waits to be embedded again, its attempts
are negative. Whatever changes a crawl takes the source's row lock first.

Functions here never commit: the task owns the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.ids import new_id
from app.jobs import EMBED_DOCUMENT, FETCH_DOCUMENT
from workers.ingest.discover import MAX_DEPTH, MAX_PAGES, Found

# A claim without a sign of life for so long is anybody's. Tasks give one every few seconds.
STALE_SECONDS = 15.0
ATTEMPTS = 3
FETCHES = 2  # pages of one source asked for at once
BACKLOG = 16  # pages of one source that may wait for their vectors before fetching pauses
# Addresses that differ in their query alone: beyond so many they are a program's, not a person's.
MAX_QUERIES = 100

Hint = tuple[str, UUID]  # (task, document)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A document that a task may work on, for as long as `attempt` is the row's."""

    workspace_id: UUID
    source_id: UUID
    document_id: UUID
    url: str
    source_url: str
    depth: int
    run: int
    attempt: int
    etag: str | None
    last_modified: str | None
    content_hash: str | None
    version: int
    can_be_unchanged: bool  # it has passages, made of what `content_hash` names

    @property
    def last_attempt(self) -> bool:
        return self.attempt >= ATTEMPTS


async def _rows(session: AsyncSession, statement: str, **values: Any) -> list[Any]:
    return list((await session.execute(text(statement), values)).all())


async def begin(session: AsyncSession, source_id: UUID) -> tuple[str, int, int, bool] | None:
    """Take a source that waits, or whose reading has stopped: (url, run, fence, planned). None: it is read already."""
    rows = await _rows(
        session,
        """UPDATE sources SET fence = fence + 1, heartbeat_at = now(), reason = NULL, finished_at = NULL,
               run = CASE WHEN status = 'waiting' THEN run + 1 ELSE run END,
               started_at = CASE WHEN status = 'waiting' THEN now() ELSE started_at END, status = 'reading'
           WHERE id = :source AND (status = 'waiting'
               OR status = 'reading' AND coalesce(heartbeat_at, created_at) < now() - make_interval(secs => :stale))
           RETURNING url, run, fence,
               EXISTS (SELECT 1 FROM documents d WHERE d.source_id = sources.id AND d.run = sources.run)""",
        source=source_id,
        stale=STALE_SECONDS,
    )
    return tuple(rows[0]) if rows else None


async def beat(session: AsyncSession, source_id: UUID, fence: int) -> None:
    """The planner's sign of life."""
    await session.execute(
        text("UPDATE sources SET heartbeat_at = now() WHERE id = :source AND fence = :fence AND status = 'reading'"),
        {"source": source_id, "fence": fence},
    )


async def lock(session: AsyncSession, source_id: UUID, run: int) -> bool:
    """Take the source's row for this transaction and mark it alive; False when this run is over or the source is gone."""
    rows = await _rows(
        session,
        "UPDATE sources SET heartbeat_at = now() WHERE id = :source AND run = :run AND status = 'reading' RETURNING id",
        source=source_id,
        run=run,
    )
    return bool(rows)


async def plan(session: AsyncSession, workspace_id: UUID, source_id: UUID, run: int, found: Found) -> None:
    """Write down what this run asks for: every page known from before, and what was discovered.

    A page that was gone already in the run before is forgotten: if it is still linked it comes back by itself.
    """
    values = {"source": source_id, "run": run}
    await session.execute(
        text("DELETE FROM documents WHERE source_id = :source AND run < :run AND code IN ('http-404', 'http-410')"), values
    )
    await session.execute(
        text(
            """UPDATE documents SET run = :run, status = 'waiting', code = NULL, reason = NULL, attempts = 0, claimed_at = NULL,
                   content_hash = CASE WHEN blocks IS NULL THEN content_hash END, blocks = NULL
               WHERE source_id = :source AND run < :run"""
        ),
        values,
    )
    await add_pages(session, workspace_id, source_id, run, found.pages, depth=0)


async def add_pages(
    session: AsyncSession,
    workspace_id: UUID,
    source_id: UUID,
    run: int,
    urls: list[str],
    *,
    depth: int,
    kinds: dict[str, str] | None = None,
) -> None:
    """Add pages that the source does not have yet, up to the cap. With `kinds` they are files: listed, but not asked for."""
    if not urls or depth > MAX_DEPTH:
        return
    known = await _rows(
        session,
        """SELECT count(*), array_agg(DISTINCT url) FILTER (WHERE url = ANY(:urls)) FROM documents WHERE source_id = :source""",
        source=source_id,
        urls=urls,
    )
    count, have = known[0][0], set(known[0][1] or ())
    fresh = [url for url in urls if url not in have]
    if kinds is None:
        fresh = await _without_traps(session, source_id, fresh)
    rows = [
        {
            "id": new_id(), "workspace": workspace_id, "source": source_id, "url": url, "run": run, "depth": depth,
            "status": "skipped" if kinds else "waiting", "code": "not-html" if kinds else None,
            "reason": f"This is a file ({kinds[url]}). Only HTML pages are read." if kinds else None,
        }
        for url in fresh[: max(MAX_PAGES - count, 0)]
    ]  # fmt: skip
    if rows:
        await session.execute(
            text(
                """INSERT INTO documents (id, workspace_id, source_id, url, run, depth, status, code, reason)
                   VALUES (:id, :workspace, :source, :url, :run, :depth, :status, :code, :reason)
                   ON CONFLICT (source_id, url) DO NOTHING"""
            ),
            rows,
        )


async def _without_traps(session: AsyncSession, source_id: UUID, urls: list[str]) -> list[str]:
    """Without addresses of paths that already have very many queries."""
    paths = {url.partition("?")[0] for url in urls if "?" in url}
    if not paths:
        return urls
    rows = await _rows(
        session,
        """SELECT split_part(url, '?', 1), count(*) FROM documents
           WHERE source_id = :source AND split_part(url, '?', 1) = ANY(:paths) GROUP BY 1""",
        source=source_id,
        paths=list(paths),
    )
    counts = dict.fromkeys(paths, 0) | {row[0]: row[1] for row in rows}
    kept = []
    for url in urls:
        path, query = url.partition("?")[::2]
        if query:
            counts[path] += 1
            if counts[path] > MAX_QUERIES:
                continue
        kept.append(url)
    return kept


async def follows_links(session: AsyncSession, source_id: UUID, run: int) -> bool:
    """Whether pages are found by links: there was no sitemap, or it named nothing but the first page."""
    rows = await _rows(
        session,
        "SELECT count(*) FROM (SELECT 1 FROM documents WHERE source_id = :source AND run = :run AND depth = 0 LIMIT 2) first",
        source=source_id,
        run=run,
    )
    return rows[0][0] < 2


async def claim_fetch(session: AsyncSession, document_id: UUID) -> Claimed | None:
    """Take a waiting page. None when somebody else has it, or its run is over."""
    return await _claim(session, "d.status = 'waiting'", "fetching", document_id)


async def claim_embed(session: AsyncSession, document_id: UUID) -> Claimed | None:
    """Take a fetched page that waits for its vectors."""
    return await _claim(session, "d.status = 'fetched' AND d.attempts <= 0", "fetched", document_id)


async def _claim(session: AsyncSession, condition: str, status: str, document_id: UUID) -> Claimed | None:
    rows = await _rows(
        session,
        f"""UPDATE documents d SET status = :status, attempts = abs(d.attempts) + 1, claimed_at = now() FROM sources s
            WHERE d.id = :document AND s.id = d.source_id AND s.run = d.run AND s.status = 'reading' AND {condition}
            RETURNING d.workspace_id, d.source_id, d.id, d.url, s.url, d.depth, d.run, d.attempts, d.etag, d.last_modified,
                d.content_hash, d.version, EXISTS (SELECT 1 FROM passages p WHERE p.document_id = d.id)""",  # noqa: S608 (constants)
        document=document_id,
        status=status,
    )
    return Claimed(*rows[0]) if rows else None


async def renew(session: AsyncSession, claim: Claimed) -> None:
    """A task's sign of life."""
    await session.execute(
        text("UPDATE documents SET claimed_at = now() WHERE id = :document AND attempts = :attempt AND run = :run"),
        {"document": claim.document_id, "attempt": claim.attempt, "run": claim.run},
    )


async def has_document(session: AsyncSession, claim: Claimed, url: str) -> bool:
    """Whether the source has another document at this address."""
    rows = await _rows(
        session,
        "SELECT 1 FROM documents WHERE source_id = :source AND url = :url AND id <> :document",
        source=claim.source_id,
        url=url,
        document=claim.document_id,
    )
    return bool(rows)


async def advance(session: AsyncSession, source_id: UUID, run: int) -> list[Hint]:
    """Free what was abandoned, say what is to be done next, and end the run when nothing is. The caller holds the source's lock.

    Returns hints to send after the commit.
    """
    values: dict[str, Any] = {"source": source_id, "run": run, "stale": STALE_SECONDS, "attempts": ATTEMPTS}
    await session.execute(
        text(
            """UPDATE documents SET claimed_at = NULL, status = CASE WHEN attempts < :attempts THEN 'waiting' ELSE 'failed' END,
                   code = CASE WHEN attempts < :attempts THEN NULL ELSE 'given-up' END,
                   reason = CASE WHEN attempts < :attempts THEN NULL
                       ELSE 'Reading this page broke the reader ' || attempts || ' times, so it was left out.' END
               WHERE source_id = :source AND run = :run AND status = 'fetching'
                   AND claimed_at < now() - make_interval(secs => :stale)"""
        ),
        values,
    )
    await session.execute(
        text(
            """UPDATE documents SET status = 'failed', code = 'given-up', blocks = NULL, content_hash = NULL, claimed_at = NULL,
                   reason = 'Indexing this page failed ' || abs(attempts) || ' times, so it was left out.'
               WHERE source_id = :source AND run = :run AND status = 'fetched' AND abs(attempts) >= :attempts
                   AND claimed_at < now() - make_interval(secs => :stale)"""
        ),
        values,
    )
    embeds = await _rows(
        session,
        """UPDATE documents SET claimed_at = now(), attempts = -abs(attempts)
           WHERE source_id = :source AND run = :run AND status = 'fetched'
               AND claimed_at < now() - make_interval(secs => :stale) RETURNING id""",
        **{name: values[name] for name in ("source", "run", "stale")},
    )
    fetches = await _next_fetches(session, source_id, run)
    open_rows = await _rows(
        session,
        """SELECT 1 FROM documents WHERE source_id = :source AND run = :run AND status IN ('waiting', 'fetching', 'fetched')
           LIMIT 1""",
        source=source_id,
        run=run,
    )
    if not open_rows:
        await _finish(session, source_id)
    return [(EMBED_DOCUMENT, row[0]) for row in embeds] + [(FETCH_DOCUMENT, row[0]) for row in fetches]


async def _next_fetches(session: AsyncSession, source_id: UUID, run: int) -> list[Any]:
    """Mark the next pages as hinted, as many as may be asked for at once while the models keep up."""
    return await _rows(
        session,
        """WITH open AS (
               SELECT count(*) FILTER (WHERE status = 'fetched') AS fetched,
                   count(*) FILTER (WHERE status = 'fetching' OR status = 'waiting'
                       AND claimed_at > now() - make_interval(secs => :stale)) AS busy
               FROM documents WHERE source_id = :source AND run = :run AND status IN ('waiting', 'fetching', 'fetched')),
           next AS (
               SELECT id FROM documents WHERE source_id = :source AND run = :run AND status = 'waiting'
                   AND (claimed_at IS NULL OR claimed_at < now() - make_interval(secs => :stale))
               ORDER BY depth, id
               LIMIT (SELECT greatest(least(:fetches - busy, :backlog - busy - fetched), 0) FROM open) FOR UPDATE)
           UPDATE documents d SET claimed_at = now() FROM next WHERE d.id = next.id RETURNING d.id""",
        source=source_id,
        run=run,
        stale=STALE_SECONDS,
        fetches=FETCHES,
        backlog=BACKLOG,
    )


async def _finish(session: AsyncSession, source_id: UUID) -> None:
    """End the run: `read` when any page can be found, else `failed` with what the first page said."""
    await session.execute(
        text(
            """UPDATE sources SET finished_at = now(), heartbeat_at = now(),
                   status = CASE WHEN useful.pages > 0 THEN 'read' ELSE 'failed' END,
                   reason = CASE
                       WHEN useful.pages = 0 THEN
                           coalesce('No page could be read. ' || first.url || ': ' || first.reason, 'No page was found here.')
                       WHEN useful.found >= :cap THEN
                           'Retort reads at most ' || :cap || ' pages of a source. Add parts of the site as sources of their own.'
                       END
               FROM (SELECT count(*) AS found, count(*) FILTER (WHERE status IN ('read', 'unchanged')
                         OR EXISTS (SELECT 1 FROM passages p WHERE p.document_id = d.id)) AS pages
                     FROM documents d WHERE d.source_id = :source) useful
                   LEFT JOIN (SELECT url, reason FROM documents WHERE source_id = :source AND reason IS NOT NULL
                              ORDER BY depth, id LIMIT 1) first ON true
               WHERE sources.id = :source"""
        ),
        {"source": source_id, "cap": MAX_PAGES},
    )

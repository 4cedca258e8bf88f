"""Sources and what they yielded, as members see it. Never commits: the caller owns the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.assistants.models import AssistantSource
from app.content.models import Document, Passage, Source
from app.conversations.views import moment
from app.db.ids import new_id

# A document between fetching and embedding is still being worked on, as far as a program is concerned; `step` tells more.
SHOWN = {"fetched": "fetching"}
OPEN_DOCUMENTS = ("waiting", "fetching", "fetched")
RECENT_SECONDS = 10.0  # over which the speed of reading is measured


def normal_url(url: str) -> str:
    """The address as a source's identity: lower-case host, no fragment, at least a slash for a path."""
    parts = urlsplit(url.strip())
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), parts.path or "/", parts.query, ""))


async def add_website(session: AsyncSession, workspace_id: UUID, assistant_id: UUID, url: str, title: str | None) -> Source:
    """The source with this address, waiting to be read (again), linked to the assistant."""
    address = normal_url(url)
    given = insert(Source).values(
        id=new_id(),
        workspace_id=workspace_id,
        kind="website",
        url=address,
        title=(title or "").strip() or urlsplit(address).netloc,
    )
    await session.execute(given.on_conflict_do_nothing(index_elements=["workspace_id", "url"]))
    source = (await session.execute(select(Source).where(Source.url == address).with_for_update())).scalar_one()
    if title and title.strip():
        source.title = title.strip()
    await read_again(session, source)
    link = insert(AssistantSource).values(assistant_id=assistant_id, source_id=source.id, workspace_id=workspace_id)
    await session.execute(link.on_conflict_do_nothing())
    return source


async def read_again(session: AsyncSession, source: Source) -> None:
    """Put the source back in the queue, unless it is waiting or being read now."""
    if source.status in ("read", "failed"):
        source.status, source.reason = "waiting", None
        source.finished_at = source.heartbeat_at = None
    await session.flush()


async def find_source(session: AsyncSession, source_id: UUID, *, lock: bool = False) -> Source | None:
    query = select(Source).where(Source.id == source_id)
    return (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def list_sources(
    session: AsyncSession, assistant_id: UUID | None, limit: int, after: tuple[datetime, UUID] | None
) -> list[Source]:
    """Newest first; one more than `limit` tells that there is another page."""
    query = select(Source).order_by(Source.created_at.desc(), Source.id.desc()).limit(limit + 1)
    if assistant_id is not None:
        linked = select(AssistantSource.source_id).where(AssistantSource.assistant_id == assistant_id)
        query = query.where(Source.id.in_(linked))
    if after is not None:
        query = query.where(tuple_(Source.created_at, Source.id) < tuple_(*after))
    return list((await session.execute(query)).scalars())


async def delete_source(session: AsyncSession, source_id: UUID) -> bool:
    """Documents, passages and links go with it (foreign keys cascade)."""
    gone = await session.execute(delete(Source).where(Source.id == source_id).returning(Source.id))
    return gone.scalar_one_or_none() is not None


async def source_views(session: AsyncSession, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The Source shape, for all of them with one statement each for counts, passages and links."""
    ids = [source.id for source in sources]

    def having(condition: ColumnElement[bool]) -> Any:
        return func.count().filter(condition)

    status, now = Document.status, datetime.now(UTC)
    counted = await session.execute(
        select(
            Document.source_id,
            func.count(),
            having(status.in_(OPEN_DOCUMENTS)),
            having(status == "read"),
            having(status == "unchanged"),
            having(status == "skipped"),
            having(status == "failed"),
            having(status == "fetching"),
            having(status == "fetched"),
            func.max(Document.url).filter(status == "fetching"),
            having(Document.fetched_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, RECENT_SECONDS)),
        )
        .where(Document.source_id.in_(ids))
        .group_by(Document.source_id)
    )
    counts = {row[0]: row[1:] for row in counted}
    held = select(Passage.source_id, func.count()).where(Passage.source_id.in_(ids)).group_by(Passage.source_id)
    passages = {source_id: count for source_id, count in await session.execute(held)}
    links: dict[UUID, list[str]] = {}
    rows = await session.execute(
        select(AssistantSource.source_id, AssistantSource.assistant_id)
        .where(AssistantSource.source_id.in_(ids))
        .order_by(AssistantSource.assistant_id)
    )
    for source_id, assistant_id in rows:
        links.setdefault(source_id, []).append(str(assistant_id))
    return [
        _source_view(s, counts.get(s.id, (*[0] * 8, None, 0)), passages.get(s.id, 0), links.get(s.id, []), now) for s in sources
    ]


def _source_view(source: Source, counts: Sequence[Any], passages: int, links: list[str], now: datetime) -> dict[str, Any]:
    found, waiting, read, unchanged, skipped, failed, fetching, fetched, current, recent = counts
    speed = None
    if source.status == "reading" and source.started_at:
        age = (now - source.started_at).total_seconds()
        speed = round(recent / max(1.0, min(RECENT_SECONDS, age)), 1)
    return {
        "id": str(source.id),
        "kind": source.kind,
        "url": source.url,
        "title": source.title,
        "status": source.status,
        "reason": source.reason,
        "counts": {
            "found": found,
            "waiting": waiting,
            "read": read,
            "unchanged": unchanged,
            "skipped": skipped,
            "failed": failed,
            "fetching": fetching,
            "fetched": fetched,
            "passages": passages,
        },
        "current": current if source.status == "reading" else None,
        "pages_per_second": speed,
        "created_at": moment(source.created_at),
        "started_at": moment(source.started_at),
        "finished_at": moment(source.finished_at),
        "assistant_ids": links,
    }


async def list_documents(
    session: AsyncSession, source_id: UUID, *, status: str | None, q: str | None, limit: int, after: tuple[int, str] | None
) -> list[tuple[Document, int]]:
    """Documents with their number of passages, in the order of discovery; one more than `limit` tells of another page."""
    passages = select(func.count()).where(Passage.document_id == Document.id).correlate(Document).scalar_subquery()
    query = (
        select(Document, passages).where(Document.source_id == source_id).order_by(Document.depth, Document.url).limit(limit + 1)
    )
    if status == "fetching":
        query = query.where(Document.status.in_(("fetching", "fetched")))
    elif status is not None:
        query = query.where(Document.status == status)
    if q and q.strip():
        pattern = f"%{q.strip().replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
        query = query.where(Document.url.ilike(pattern, escape="!") | Document.title.ilike(pattern, escape="!"))
    if after is not None:
        query = query.where(tuple_(Document.depth, Document.url) > tuple_(*after))
    return [(document, count) for document, count in await session.execute(query)]


async def find_document(session: AsyncSession, document_id: UUID) -> tuple[Document, list[Passage]] | None:
    document = (await session.execute(select(Document).where(Document.id == document_id))).scalar_one_or_none()
    if document is None:
        return None
    rows = await session.execute(select(Passage).where(Passage.document_id == document.id).order_by(Passage.ordinal))
    return document, list(rows.scalars())


def step(document: Document) -> str | None:
    """What an unfinished document waits for or is going through, as its row says it; None once it is settled.

    A fetched document has a positive number of attempts while a task makes its vectors (workers/ingest/ledger.py).
    """
    if document.status == "fetched":
        return "embedding" if document.attempts > 0 else "fetched"
    return {"waiting": "queued", "fetching": "fetching"}.get(document.status)


def document_view(document: Document, passages: int | list[Passage]) -> dict[str, Any]:
    """The Document shape, with the number of its passages or the passages themselves."""
    return {
        "id": str(document.id),
        "source_id": str(document.source_id),
        "url": document.url,
        "title": document.title,
        "status": SHOWN.get(document.status, document.status),
        "step": step(document),
        "reason": document.reason,
        "code": document.code,
        "http_status": document.http_status,
        "version": document.version,
        "words": document.words,
        "bytes": document.bytes,
        "passages": passages if isinstance(passages, int) else [_passage_view(p) for p in passages],
        "fetched_at": moment(document.fetched_at),
        "depth": document.depth,
    }


def _passage_view(passage: Passage) -> dict[str, Any]:
    return msgspec.to_builtins(
        {
            "id": passage.id,
            "ordinal": passage.ordinal,
            "heading_path": passage.heading_path,
            "fragment": passage.fragment,
            "text": passage.text,
            "tokens": passage.tokens,
        }
    )

"""`/api/v1/sources` and `/api/v1/documents`: what an assistant reads, page by page."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import structlog
from litestar import Controller, Response, delete, get, post
from litestar.di import Provide
from litestar.params import Parameter

from app import jobs
from app.assistants.controllers import existing
from app.content import service
from app.content.models import Source
from app.content.schemas import DocumentPage, DocumentStatus, DocumentWithPassages, NewSource, SourceOut, SourcePage
from app.http.outbound import check_target
from app.http.paging import LIMIT, Cursor, Limit, decode_cursor, encode_cursor, page
from app.http.problems import not_found
from app.http.routing import answers, provide_caller, provide_services
from app.http.services import Services
from app.security.guards import Caller, member_guard

HINT_SECONDS = 2.0

log = structlog.get_logger()


async def _start_reading(source: Source) -> None:
    """A hint after the commit; without it the sweeper finds the waiting row. The sender blocks, so it gets a thread."""
    sending = asyncio.to_thread(jobs.send, jobs.READ_SOURCE, source.workspace_id, source.id)
    try:
        sent = await asyncio.wait_for(sending, HINT_SECONDS)
    except TimeoutError:
        sent = False
    if not sent:
        log.warning("hint_not_sent", source_id=str(source.id))


class SourceController(Controller):
    path = "/api/v1/sources"
    tags = ("Content",)
    guards = (member_guard,)
    dependencies = {"services": Provide(provide_services), "caller": Provide(provide_caller)}  # noqa: RUF012
    security = [{"session": []}, {"key": []}]  # noqa: RUF012

    @get("/", operation_id="listSources", responses=answers(200, SourcePage))
    async def index(
        self,
        services: Services,
        caller: Caller,
        assistant: str | None = None,
        limit: Limit = LIMIT,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        after = decode_cursor(cursor, tuple[datetime, UUID]) if cursor else None
        async with services.database.transaction(caller.workspace_id) as session:
            assistant_id = (await existing(session, assistant)).id if assistant else None
            sources = await service.list_sources(session, assistant_id, limit, after)
            more, sources = len(sources) > limit, sources[:limit]
            views = await service.source_views(session, sources)
        return page(views, encode_cursor(sources[-1].created_at, sources[-1].id) if more else None)

    @get("/{source_id:uuid}", operation_id="readSource", responses=answers(200, SourceOut))
    async def read(self, services: Services, caller: Caller, source_id: UUID) -> dict[str, Any]:
        async with services.database.transaction(caller.workspace_id) as session:
            return await self._view(session, await service.find_source(session, source_id))

    @post("/", status_code=202, operation_id="addSource", responses=answers(202, SourceOut), opt={"needs": "write"})
    async def add(self, services: Services, caller: Caller, data: NewSource) -> dict[str, Any]:
        """Reads a website. The same address again reads the existing source again."""
        await check_target(data.url.strip(), allowed=services.settings.allow_private)
        async with services.database.transaction(caller.workspace_id) as session:
            assistant = await existing(session, data.assistant)
            source = await service.add_website(session, caller.workspace_id, assistant.id, data.url, data.title)
            view = await self._view(session, source)
        await _start_reading(source)
        return view

    @post(
        "/{source_id:uuid}/read",
        status_code=202,
        operation_id="readAgain",
        responses=answers(202, SourceOut),
        opt={"needs": "write"},
    )
    async def again(self, services: Services, caller: Caller, source_id: UUID) -> dict[str, Any]:
        async with services.database.transaction(caller.workspace_id) as session:
            source = await service.find_source(session, source_id, lock=True)
            if source is None:
                raise not_found("source")
            await service.read_again(session, source)
            view = await self._view(session, source)
        await _start_reading(source)
        return view

    @delete("/{source_id:uuid}", operation_id="removeSource", opt={"needs": "write"})
    async def remove(self, services: Services, caller: Caller, source_id: UUID) -> None:
        """With its documents and passages."""
        async with services.database.transaction(caller.workspace_id) as session:
            if not await service.delete_source(session, source_id):
                raise not_found("source")

    @get("/{source_id:uuid}/documents", operation_id="listDocuments", responses=answers(200, DocumentPage))
    async def documents(
        self,
        services: Services,
        caller: Caller,
        source_id: UUID,
        status: DocumentStatus | None = None,
        q: Annotated[str | None, Parameter(max_length=200, required=False)] = None,
        limit: Limit = LIMIT,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        """In the order of discovery; `q` looks in addresses and titles."""
        after = decode_cursor(cursor, tuple[int, str]) if cursor else None
        async with services.database.transaction(caller.workspace_id) as session:
            if await service.find_source(session, source_id) is None:
                raise not_found("source")
            rows = await service.list_documents(session, source_id, status=status, q=q, limit=limit, after=after)
        more, rows = len(rows) > limit, rows[:limit]
        views = [service.document_view(document, passages) for document, passages in rows]
        return page(views, encode_cursor(rows[-1][0].depth, rows[-1][0].url) if more else None)

    async def _view(self, session: Any, source: Source | None) -> dict[str, Any]:
        if source is None:
            raise not_found("source")
        return (await service.source_views(session, [source]))[0]


class DocumentController(Controller):
    path = "/api/v1/documents"
    tags = ("Content",)
    guards = (member_guard,)
    dependencies = {"services": Provide(provide_services), "caller": Provide(provide_caller)}  # noqa: RUF012
    security = [{"session": []}, {"key": []}]  # noqa: RUF012

    @get("/{document_id:uuid}", operation_id="readDocument", responses=answers(200, DocumentWithPassages))
    async def read(self, services: Services, caller: Caller, document_id: UUID) -> Response[dict[str, Any]]:
        async with services.database.transaction(caller.workspace_id) as session:
            found = await service.find_document(session, document_id)
        if found is None:
            raise not_found("document")
        return Response(service.document_view(*found))

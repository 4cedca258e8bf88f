"""`/api/v1/assistants`: what members see and change of an assistant, and trying its search."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Controller, get, patch, post
from litestar.di import Provide
from sqlalchemy.ext.asyncio import AsyncSession

from app.assistants import service
from app.assistants.models import Assistant
from app.assistants.schemas import AssistantChange, AssistantOut, AssistantPage, Found, NewAssistant, Search
from app.content import retrieval
from app.http.input import KEY_LENGTH, usable_key
from app.http.paging import LIMIT, Cursor, Limit, decode_cursor, encode_cursor, page
from app.http.problems import Problem, not_found
from app.http.routing import IdempotencyKey, answers, provide_caller, provide_services
from app.http.services import Services
from app.security.guards import Caller, member_guard


async def existing(session: AsyncSession, id_or_slug: str) -> Assistant:
    assistant = await service.find_assistant(session, id_or_slug)
    if assistant is None:
        raise not_found("assistant")
    return assistant


class AssistantController(Controller):
    path = "/api/v1/assistants"
    tags = ("Assistants",)
    guards = (member_guard,)
    dependencies = {"services": Provide(provide_services), "caller": Provide(provide_caller)}  # noqa: RUF012
    security = [{"session": []}, {"key": []}]  # noqa: RUF012

    @get("/", operation_id="listAssistants", responses=answers(200, AssistantPage))
    async def index(self, services: Services, caller: Caller, limit: Limit = LIMIT, cursor: Cursor = None) -> dict[str, Any]:
        """Those of the workspace, oldest first."""
        after = decode_cursor(cursor, tuple[datetime, UUID]) if cursor else None
        async with services.database.transaction(caller.workspace_id) as session:
            assistants = await service.list_assistants(session, limit, after)
            more, assistants = len(assistants) > limit, assistants[:limit]
            sources = await service.source_ids(session, [a.id for a in assistants])
        views = [service.member_view(a, sources[a.id]) for a in assistants]
        return page(views, encode_cursor(assistants[-1].created_at, assistants[-1].id) if more else None)

    @post("/", operation_id="createAssistant", responses=answers(201, AssistantOut), opt={"needs": "write"})
    async def create(
        self, services: Services, caller: Caller, data: NewAssistant, idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """Without a slug one is made from the name. The same Idempotency-Key gives the same assistant."""
        if idempotency_key is not None and not usable_key(idempotency_key):
            title, detail = "The Idempotency-Key is not usable", f"Send 1 to {KEY_LENGTH} printable characters."
            raise Problem(400, "idempotency-key-invalid", title, detail)
        async with services.database.transaction(caller.workspace_id) as session:
            made = await service.create_once(
                session, caller.workspace_id, name=data.name, slug=data.slug, idempotency_key=idempotency_key
            )
            sources = await service.source_ids(session, [made.id])
        return service.member_view(made, sources[made.id])

    @get("/{assistant:str}", operation_id="readAssistant", summary="By id or slug", responses=answers(200, AssistantOut))
    async def read(self, services: Services, caller: Caller, assistant: str) -> dict[str, Any]:
        async with services.database.transaction(caller.workspace_id) as session:
            found = await existing(session, assistant)
            sources = await service.source_ids(session, [found.id])
        return service.member_view(found, sources[found.id])

    @patch("/{assistant:str}", operation_id="changeAssistant", responses=answers(200, AssistantOut), opt={"needs": "write"})
    async def change(self, services: Services, caller: Caller, assistant: str, data: AssistantChange) -> dict[str, Any]:
        """What is absent stays as it is."""
        async with services.database.transaction(caller.workspace_id) as session:
            found = await existing(session, assistant)
            await service.update_assistant(session, found, data.columns())
            sources = await service.source_ids(session, [found.id])
        return service.member_view(found, sources[found.id])

    @post("/{assistant:str}/search", status_code=200, operation_id="searchContent", responses=answers(200, Found))
    async def search(self, services: Services, caller: Caller, assistant: str, data: Search) -> dict[str, Any]:
        """The passages that the assistant would find for a question, best first."""
        async with services.database.transaction(caller.workspace_id) as session:
            found = await existing(session, assistant)
        return await retrieval.search(services, caller.workspace_id, found.id, data.query)

"""`/api/v1/assistants`: what members see and change of an assistant, and trying its search."""

from __future__ import annotations

from typing import Any

from litestar import Controller, get, patch, post
from litestar.di import Provide
from sqlalchemy.ext.asyncio import AsyncSession

from app.assistants import service
from app.assistants.models import Assistant
from app.assistants.schemas import AssistantChange, AssistantOut, AssistantPage, Found, Search
from app.content import retrieval
from app.http.paging import page
from app.http.problems import not_found
from app.http.routing import answers, provide_caller, provide_services
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
    async def index(self, services: Services, caller: Caller) -> dict[str, Any]:
        async with services.database.transaction(caller.workspace_id) as session:
            assistants = await service.list_assistants(session)
            sources = await service.source_ids(session, [a.id for a in assistants])
        return page([service.member_view(a, sources[a.id]) for a in assistants])

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

"""`/api/v1`: members and programs ask as a visitor would (a preview), and read any conversation of the workspace."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.di import Provide
from litestar.response import Stream
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.assistants.controllers import existing
from app.chat import posting
from app.chat.controllers import Resume, ResumeQuery
from app.conversations import service
from app.conversations.models import Conversation, Message, Visitor
from app.conversations.schemas import ConversationOut, MessageOut, NewMessage, PostedOut, TracedMessageOut
from app.conversations.views import message_view
from app.http.problems import Problem, not_found
from app.http.rate_limit import MESSAGES_CALLER
from app.http.routing import IdempotencyKey, answers, provide_caller, provide_services
from app.http.services import Services
from app.security.guards import Caller, member_guard


async def _preview_visitor(session: AsyncSession, conversation: Conversation, caller: Caller) -> UUID:
    """The conversation's visitor, when that is the caller: nobody writes in another person's name."""
    query = select(Visitor).where(Visitor.id == conversation.visitor_id)
    visitor = (await session.execute(query)).scalar_one()
    if visitor.member_id != caller.member_id:
        detail = "Members read every conversation of the workspace, but write only in those they started themselves."
        raise Problem(403, "not-your-conversation", "This conversation is somebody else's", detail)
    return visitor.id


class ConversationController(Controller):
    path = "/api/v1"
    tags = ("Conversations",)
    guards = (member_guard,)
    dependencies = {"services": Provide(provide_services), "caller": Provide(provide_caller)}  # noqa: RUF012
    security = [{"session": []}, {"key": []}]  # noqa: RUF012

    @post(
        "/assistants/{assistant:str}/conversations",
        operation_id="startPreview",
        summary="Start a conversation as oneself",
        responses=answers(201, ConversationOut),
        opt={"needs": "ask"},
    )
    async def start(self, services: Services, caller: Caller, assistant: str) -> dict[str, Any]:
        async with services.database.transaction(caller.workspace_id) as session:
            found = await existing(session, assistant)
            visitor = await service.member_visitor(session, caller.workspace_id, found.id, caller.member_id)
            return await posting.started(session, caller.workspace_id, found.id, visitor.id)

    @get("/conversations/{conversation_id:uuid}", operation_id="showConversation", responses=answers(200, ConversationOut))
    async def read(self, services: Services, caller: Caller, conversation_id: UUID) -> dict[str, Any]:
        return await posting.show(services, caller.workspace_id, conversation_id, None)

    @post(
        "/conversations/{conversation_id:uuid}/messages",
        status_code=202,
        operation_id="askPreview",
        responses=answers(202, PostedOut),
        opt={"needs": "ask"},
    )
    async def ask(
        self,
        services: Services,
        caller: Caller,
        conversation_id: UUID,
        data: NewMessage,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[dict[str, Any]]:
        """As a visitor asks; only in a conversation that one started oneself."""
        limits = await services.limiter.take((MESSAGES_CALLER, caller.name))
        async with services.database.transaction(caller.workspace_id) as session:
            conversation = await posting.own_conversation(session, conversation_id, None)
            await _preview_visitor(session, conversation, caller)
            posted = await posting.post(services, session, conversation, data.text, idempotency_key)
        return await posting.accepted(services, "member", posted, limits)

    @get("/conversations/{conversation_id:uuid}/events", operation_id="followPreview", summary="Server-sent events")
    async def events(
        self,
        services: Services,
        caller: Caller,
        conversation_id: UUID,
        last_event_id: Resume = None,
        last_event_id_query: ResumeQuery = None,
    ) -> Stream:
        """As a visitor follows: resumes after Last-Event-ID without gap or duplicate."""
        after = last_event_id or last_event_id_query
        return await posting.follow(services, caller.workspace_id, conversation_id, None, after)

    @get("/messages/{message_id:uuid}", operation_id="readMessage", responses=answers(200, TracedMessageOut))
    async def message(self, services: Services, caller: Caller, message_id: UUID) -> dict[str, Any]:
        """With its trace: query, gate, passages, verifier, state."""
        async with services.database.transaction(caller.workspace_id) as session:
            query = select(Message).where(Message.id == message_id).options(undefer(Message.trace))
            message = (await session.execute(query)).scalar_one_or_none()
            if message is None:
                raise not_found("message")
            return message_view(message) | {"trace": message.trace}

    @post(
        "/messages/{message_id:uuid}/stop",
        status_code=200,
        operation_id="stopPreview",
        responses=answers(200, MessageOut),
        opt={"needs": "ask"},
    )
    async def stop(self, services: Services, caller: Caller, message_id: UUID) -> dict[str, Any]:
        visitor_id = await self._visitor_of(services, caller, message_id)
        return await posting.stop(services, caller.workspace_id, message_id, visitor_id)

    @post(
        "/messages/{message_id:uuid}/retry",
        status_code=202,
        operation_id="retryPreview",
        responses=answers(202, PostedOut),
        opt={"needs": "ask"},
    )
    async def retry(self, services: Services, caller: Caller, message_id: UUID) -> Response[dict[str, Any]]:
        """Asks the same question again, after an answer that failed or was stopped."""
        visitor_id = await self._visitor_of(services, caller, message_id)
        limits = await services.limiter.take((MESSAGES_CALLER, caller.name))
        async with services.database.transaction(caller.workspace_id) as session:
            message = await posting.own_message(session, message_id, visitor_id)
            posted = await posting.retry(services, session, message)
        return await posting.accepted(services, "member", posted, limits)

    async def _visitor_of(self, services: Services, caller: Caller, message_id: UUID) -> UUID:
        async with services.database.transaction(caller.workspace_id) as session:
            message = await posting.own_message(session, message_id, None)
            conversation = await posting.own_conversation(session, message.conversation_id, None)
            return await _preview_visitor(session, conversation, caller)

"""`/widget/v1`: what a visitor's browser calls, on the visitor origin."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post, route
from litestar.di import Provide
from litestar.params import Parameter
from litestar.response import Stream
from sqlalchemy import select

from app.accounts.service import bind_workspace
from app.assistants import service as assistants
from app.assistants.models import Assistant
from app.chat import posting
from app.conversations import service
from app.conversations.schemas import (
    ConversationOut,
    MessageOut,
    NewMessage,
    NewSession,
    PostedOut,
    SessionOut,
)
from app.db import lookups
from app.db.ids import new_id
from app.http.problems import Problem
from app.http.rate_limit import MESSAGES_ADDRESS, MESSAGES_VISITOR, SESSIONS_ADDRESS
from app.http.routing import IdempotencyKey, answers, client_address, provide_services, provide_visitor
from app.http.services import Services
from app.security import origins, tokens
from app.security.guards import visitor_guard
from app.security.tokens import VisitorClaims

Resume = Annotated[str | None, Parameter(header="Last-Event-ID", required=False, max_length=64)]
ResumeQuery = Annotated[str | None, Parameter(query="last_event_id", required=False, max_length=64)]
PREFLIGHT_SECONDS = "600"


class SessionController(Controller):
    """The one call that other sites' pages make, by CORS."""

    path = "/widget/v1/session"
    tags = ("Visitors",)
    dependencies = {"services": Provide(provide_services)}  # noqa: RUF012

    @route("/", http_method=["OPTIONS"], include_in_schema=False, status_code=204)
    async def preflight(self, request: Request) -> Response[None]:
        """It names no assistant, so it can only say that a page may ask; the answer itself is for allowed origins."""
        headers = {
            "access-control-allow-origin": request.headers.get("origin", "null"),
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "content-type",
            "access-control-max-age": PREFLIGHT_SECONDS,
            "vary": "origin",
        }
        return Response(None, status_code=204, headers=headers)

    @post("/", operation_id="startSession", summary="Get a visitor's token", responses=answers(201, SessionOut))
    async def start(self, request: Request, services: Services, data: NewSession) -> Response[dict[str, Any]]:
        """From an allowed origin or the visitor origin itself. An old token of the same assistant keeps the visitor."""
        # Refusals are readable across origins too, so that the loader can say why; a token goes to allowed origins alone.
        cors = {"access-control-allow-origin": request.headers.get("origin", "null"), "vary": "origin"}
        try:
            async with services.database.transaction(None) as session:
                assistant = await self._assistant(session, data.assistant)
                origin = origins.check(services.settings, assistant.allowed_origins, request.headers.get("origin"))
                limits = await services.limiter.take((SESSIONS_ADDRESS, client_address(request)))
                visitor_id = self._visitor(services, assistant, data.visitor_token)
        except Problem as problem:
            problem.headers.update(cors)
            raise
        claims = VisitorClaims(assistant.workspace_id, assistant.id, visitor_id, origin)
        body = {
            "token": tokens.issue(services.settings.secret, claims),
            "expires_in": int(tokens.LIFE.total_seconds()),
            "visitor_id": str(visitor_id),
            "assistant": assistants.public_view(assistant),
        }
        return Response(body, status_code=201, headers={**cors, **limits})

    async def _assistant(self, session: Any, slug: str) -> Assistant:
        """The assistant of a slug; the transaction is bound to its workspace. Raises Problem 404."""
        found = await lookups.assistant_by_slug(session, slug)
        if found is None:
            detail = "No assistant has this slug. Check data-assistant in the page's script tag."
            raise Problem(404, "assistant-unknown", "There is no such assistant", detail, field="assistant")
        await bind_workspace(session, found[0])
        return (await session.execute(select(Assistant).where(Assistant.id == found[1]))).scalar_one()

    def _visitor(self, services: Services, assistant: Assistant, old: str | None) -> UUID:
        """Who it is: the signed token alone says so. A row is made with the first conversation."""
        if not old:
            return new_id()
        claims = tokens.read(services.settings.secret, old, expired_too=True)
        if claims.assistant_id != assistant.id:
            raise tokens.token_invalid()
        return claims.visitor_id


class VisitorController(Controller):
    path = "/widget/v1"
    tags = ("Visitors",)
    guards = (visitor_guard,)
    dependencies = {"services": Provide(provide_services), "visitor": Provide(provide_visitor)}  # noqa: RUF012
    security = [{"visitor": []}]  # noqa: RUF012

    @post("/conversations", operation_id="startConversation", summary="Start one", responses=answers(201, ConversationOut))
    async def start(self, services: Services, visitor: VisitorClaims) -> dict[str, Any]:
        await services.limiter.take((MESSAGES_VISITOR, str(visitor.visitor_id)))
        async with services.database.transaction(visitor.workspace_id) as session:
            await service.keep_visitor(session, visitor.workspace_id, visitor.assistant_id, visitor.visitor_id)
            return await posting.started(session, visitor.workspace_id, visitor.assistant_id, visitor.visitor_id)

    @get("/conversations/{conversation_id:uuid}", operation_id="readConversation", responses=answers(200, ConversationOut))
    async def read(self, services: Services, visitor: VisitorClaims, conversation_id: UUID) -> dict[str, Any]:
        return await posting.show(services, visitor.workspace_id, conversation_id, visitor.visitor_id)

    @post(
        "/conversations/{conversation_id:uuid}/messages",
        status_code=202,
        operation_id="postMessage",
        summary="Ask",
        responses=answers(202, PostedOut),
    )
    async def ask(
        self,
        request: Request,
        services: Services,
        visitor: VisitorClaims,
        conversation_id: UUID,
        data: NewMessage,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[dict[str, Any]]:
        """Stores the message and queues its answer, which then arrives as events. The same key gives the same message."""
        limits = await services.limiter.take(
            (MESSAGES_VISITOR, str(visitor.visitor_id)), (MESSAGES_ADDRESS, client_address(request))
        )
        async with services.database.transaction(visitor.workspace_id) as session:
            conversation = await posting.own_conversation(session, conversation_id, visitor.visitor_id)
            posted = await posting.post(services, session, conversation, data.text, idempotency_key)
        return await posting.accepted(services, "visitor", posted, limits)

    @get("/conversations/{conversation_id:uuid}/events", operation_id="followConversation", summary="Server-sent events")
    async def events(
        self,
        services: Services,
        visitor: VisitorClaims,
        conversation_id: UUID,
        last_event_id: Resume = None,
        last_event_id_query: ResumeQuery = None,
    ) -> Stream:
        """Resumes after Last-Event-ID without gap or duplicate; without it the first event is a snapshot."""
        after = last_event_id or last_event_id_query
        return await posting.follow(services, visitor.workspace_id, conversation_id, visitor.visitor_id, after)

    @post("/messages/{message_id:uuid}/stop", status_code=200, operation_id="stopMessage", responses=answers(200, MessageOut))
    async def stop(self, services: Services, visitor: VisitorClaims, message_id: UUID) -> dict[str, Any]:
        return await posting.stop(services, visitor.workspace_id, message_id, visitor.visitor_id)

    @post("/messages/{message_id:uuid}/retry", status_code=202, operation_id="retryMessage", responses=answers(202, PostedOut))
    async def retry(
        self, request: Request, services: Services, visitor: VisitorClaims, message_id: UUID
    ) -> Response[dict[str, Any]]:
        """Asks the same question again, after an answer that failed or was stopped."""
        limits = await services.limiter.take(
            (MESSAGES_VISITOR, str(visitor.visitor_id)), (MESSAGES_ADDRESS, client_address(request))
        )
        async with services.database.transaction(visitor.workspace_id) as session:
            message = await posting.own_message(session, message_id, visitor.visitor_id)
            posted = await posting.retry(services, session, message)
        return await posting.accepted(services, "visitor", posted, limits)

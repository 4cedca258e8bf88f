"""What visitors and members share: admit a message, post, stop and repeat it, show a conversation, follow its events."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from litestar import Response
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from app.chat import relay
from app.conversations import service
from app.conversations.models import Conversation, Message
from app.conversations.service import Posted
from app.conversations.views import message_view
from app.db import lookups
from app.http.problems import Problem, not_found
from app.http.services import Services

QUEUE_RETRY = 5  # seconds: a few answers are done by then
# A workspace may have so many open answers for each place that is left. One flood takes three quarters of the queue, two
# take three sevenths each, and a workspace with nothing open finds a place (dynamic thresholds: Choudhury and Hahne, 1998).
SHARE = 3
STREAMS_EACH = 8  # open streams of one conversation in one process: tabs and devices, not a flood


async def _refuse_when_full(services: Services, session: AsyncSession, workspace_id: UUID) -> None:
    """Beyond the limit nobody is left waiting for minutes, and one workspace's flood does not fill it for the others."""
    waiting = await lookups.open_messages(session)
    services.metrics.queue.set(waiting)
    left = services.settings.queue_limit - waiting
    if left <= 0 or await service.count_open_of(session, workspace_id) >= SHARE * left:
        services.metrics.refused.labels("queue-full" if left <= 0 else "workspace-share").inc()
        raise Problem(
            503,
            "queue-full",
            "Too many people are asking at once",
            f"Nothing was stored. Ask again in {QUEUE_RETRY} s.",
            headers={"retry-after": str(QUEUE_RETRY)},
        )


async def own_conversation(session: AsyncSession, conversation_id: UUID, visitor_id: UUID | None) -> Conversation:
    conversation = await service.find_conversation(session, conversation_id, visitor_id)
    if conversation is None:
        raise not_found("conversation")
    _follow_in_log(conversation_id=conversation.id)
    return conversation


async def own_message(session: AsyncSession, message_id: UUID, visitor_id: UUID | None) -> Message:
    message = await service.find_message(session, message_id, visitor_id)
    if message is None:
        raise not_found("message")
    _follow_in_log(conversation_id=message.conversation_id, message_id=message.id)
    return message


def _follow_in_log(**ids: UUID) -> None:
    """Name conversation and message in whatever is logged of this request from here on."""
    structlog.contextvars.bind_contextvars(**{name: str(value) for name, value in ids.items()})


def _request_id() -> str | None:
    """The id that Edge has bound for this request's log lines; the generator's lines of the answer carry it too."""
    return structlog.contextvars.get_contextvars().get("request_id")


async def started(session: AsyncSession, workspace_id: UUID, assistant_id: UUID, visitor_id: UUID) -> dict[str, Any]:
    """A new conversation of a visitor, as its readers see it."""
    made = await service.start_conversation(session, workspace_id, assistant_id, visitor_id)
    _follow_in_log(conversation_id=made.id)
    return {"id": str(made.id), "messages": [], "last_event_id": relay.START}


async def post(services: Services, session: AsyncSession, conversation: Conversation, text: str, key: str | None) -> Posted:
    """Post in the caller's transaction. A repeated key is answered however full the queue is. Raises Problem, MessageRefused."""
    if key is None or await service.find_posted(session, conversation.id, key) is None:
        service.check_text(text)
        await _refuse_when_full(services, session, conversation.workspace_id)
    return await service.post_message(session, conversation, text, key, request_id=_request_id())


async def retry(services: Services, session: AsyncSession, message: Message) -> Posted:
    """Ask the message's question again, in the caller's transaction. Raises Problem, MessageRefused."""
    await _refuse_when_full(services, session, message.workspace_id)
    return await service.retry_message(session, message, request_id=_request_id())


async def accepted(services: Services, surface: str, posted: Posted, headers: dict[str, str]) -> Response[dict[str, Any]]:
    """After the commit: announce, and answer 202."""
    _follow_in_log(message_id=posted.answer.id)
    if not posted.repeated:
        services.metrics.messages.labels(surface).inc()
    await service.announce(services.bus, posted)
    return Response(posted.view(), status_code=202, headers=headers)


async def stop(services: Services, workspace_id: UUID, message_id: UUID, visitor_id: UUID | None) -> dict[str, Any]:
    """Stop an answer; one that has already ended is shown as it is."""
    async with services.database.transaction(workspace_id) as session:
        message = await own_message(session, message_id, visitor_id)
        stopped = await service.stop_message(session, message)
    if stopped:
        await service.announce_stop(services.bus, message)
    return message_view(message)


async def show(services: Services, workspace_id: UUID, conversation_id: UUID, visitor_id: UUID | None) -> dict[str, Any]:
    """The conversation. The newest event's id is read first: what happens in between is in the events that follow it."""
    last = await services.relay.last_id(conversation_id)
    async with services.database.transaction(workspace_id) as session:
        conversation = await own_conversation(session, conversation_id, visitor_id)
        messages = await service.list_messages(session, conversation.id)
    return {"id": str(conversation.id), "messages": [message_view(m) for m in messages], "last_event_id": last}


async def follow(
    services: Services, workspace_id: UUID, conversation_id: UUID, visitor_id: UUID | None, last_event_id: str | None
) -> Stream:
    """Server-sent events after `last_event_id`; from None on, a snapshot first. Raises Problem 404, 429."""
    async with services.database.transaction(workspace_id) as session:
        await own_conversation(session, conversation_id, visitor_id)
    if services.relay.reader.readers(conversation_id) >= STREAMS_EACH:
        services.metrics.refused.labels("streams").inc()
        raise Problem(
            429,
            "too-many-streams",
            "This conversation is open too often",
            f"At most {STREAMS_EACH} streams follow one conversation. Close one.",
            headers={"retry-after": "5"},
        )
    events = services.relay.stream(workspace_id, conversation_id, relay.valid_id(last_event_id))
    return Stream(events, media_type="text/event-stream", headers=relay.HEADERS)

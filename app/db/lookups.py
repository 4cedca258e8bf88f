"""The few questions that must be asked before a workspace is known, or across all of them.

Each calls one SECURITY DEFINER function of migration 0001. The functions belong to `retort_lookup`, a role that cannot
log in and may read and write just the columns they need; the application's role may only execute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class SignedIn:
    workspace_id: UUID
    member_id: UUID
    session_id: UUID
    csrf_token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class KeyOwner:
    workspace_id: UUID
    member_id: UUID
    key_id: UUID
    scopes: list[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """A queued answer that this generator may write: nothing it publishes counts unless `fence` is still the row's."""

    workspace_id: UUID
    conversation_id: UUID
    message_id: UUID
    fence: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Swept:
    workspace_id: UUID
    conversation_id: UUID
    message_id: UUID
    status: str


async def _one(session: AsyncSession, statement: str, **values: Any) -> Any:
    return (await session.execute(text(statement), values)).one_or_none()


async def member_session(session: AsyncSession, token_hash: str) -> SignedIn | None:
    row = await _one(session, "SELECT * FROM lookup_member_session(:token_hash)", token_hash=token_hash)
    return SignedIn(*row) if row else None


async def sign_in_link(session: AsyncSession, token_hash: str) -> tuple[UUID, UUID] | None:
    """(workspace_id, link_id) of a link that is neither used nor expired."""
    row = await _one(session, "SELECT * FROM lookup_sign_in_link(:token_hash)", token_hash=token_hash)
    return (row[0], row[1]) if row else None


async def api_key(session: AsyncSession, token_hash: str) -> KeyOwner | None:
    row = await _one(session, "SELECT * FROM lookup_api_key(:token_hash)", token_hash=token_hash)
    return KeyOwner(*row) if row else None


async def member_by_email(session: AsyncSession, email: str) -> tuple[UUID, UUID] | None:
    """(workspace_id, member_id)."""
    row = await _one(session, "SELECT * FROM lookup_member(:email)", email=email.strip().lower())
    return (row[0], row[1]) if row else None


async def assistant_by_slug(session: AsyncSession, slug: str) -> tuple[UUID, UUID] | None:
    """(workspace_id, assistant_id)."""
    row = await _one(session, "SELECT * FROM lookup_assistant(:slug)", slug=slug)
    return (row[0], row[1]) if row else None


async def claim_message(session: AsyncSession, generator: str) -> Claim | None:
    """Take the next queued answer, of the workspace least served in the last minute, and mark it running."""
    row = await _one(session, "SELECT * FROM claim_message(:generator)", generator=generator)
    return Claim(*row) if row else None


async def open_messages(session: AsyncSession) -> int:
    """How many answers are queued or running, over all workspaces."""
    return (await session.execute(text("SELECT open_messages()"))).scalar_one()


async def sweep_messages(session: AsyncSession, *, stale_seconds: float, attempts: int) -> list[Swept]:
    """Free the answers whose generator no longer gives a sign of life: queued again, or failed after so many attempts."""
    rows = await session.execute(
        text("SELECT * FROM sweep_messages(make_interval(secs => :stale), :attempts)"),
        {"stale": stale_seconds, "attempts": attempts},
    )
    return [Swept(*row) for row in rows]


async def unread_sources(session: AsyncSession, *, stale_seconds: float) -> list[tuple[UUID, UUID]]:
    """(workspace_id, source_id) of the sources that wait, or whose reading has given no sign of life."""
    rows = await session.execute(text("SELECT * FROM unread_sources(make_interval(secs => :stale))"), {"stale": stale_seconds})
    return [(row[0], row[1]) for row in rows]


async def stale_documents(session: AsyncSession, encoder: str, *, limit: int) -> list[tuple[UUID, UUID]]:
    """(workspace_id, document_id) of at most 2 · `limit` documents that have passages with vectors of another encoder."""
    rows = await session.execute(text("SELECT * FROM stale_documents(:encoder, :limit)"), {"encoder": encoder, "limit": limit})
    return [(row[0], row[1]) for row in rows]

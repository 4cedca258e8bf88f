"""Conversations: visitors, messages (an assistant's message is also the job that produces it), and durable snapshots of the state."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, LargeBinary, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, deferred, mapped_column

from app.db.base import Base, TenantRow


class Visitor(TenantRow):
    """The person asking, anonymous. A member who tries the assistant is a visitor too (`member_id`)."""

    __tablename__ = "visitors"
    assistant_id: Mapped[UUID] = mapped_column(ForeignKey("assistants.id", ondelete="CASCADE"), index=True)
    member_id: Mapped[UUID | None] = mapped_column(ForeignKey("members.id", ondelete="CASCADE"), index=True)


class Conversation(TenantRow):
    """`epoch` rises with every visitor message, stop, handoff and erasure: nothing of an older epoch is published or committed.

    `state_key` is the SHA-256 of the token ids that the current state has consumed; the state itself lies in Redis under
    (conversation, key), an immutable value that may be lost at any time and is rebuilt from the messages' token ids.
    """

    __tablename__ = "conversations"
    assistant_id: Mapped[UUID] = mapped_column(ForeignKey("assistants.id", ondelete="CASCADE"), index=True)
    visitor_id: Mapped[UUID] = mapped_column(ForeignKey("visitors.id", ondelete="CASCADE"), index=True)
    epoch: Mapped[int] = mapped_column(server_default="0")
    last_ordinal: Mapped[int] = mapped_column(server_default="0")
    last_message_at: Mapped[datetime | None]
    state_key: Mapped[str | None] = mapped_column(Text)
    state_ordinal: Mapped[int] = mapped_column(server_default="0")  # the last message that the state has consumed
    state_tokens: Mapped[int] = mapped_column(server_default="0")
    # Persona prefix and hashes of model, tokenizer and template under which the stored token ids were made.
    persona: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[str | None] = mapped_column(Text)


class Message(TenantRow):
    """One turn. Of an assistant: queued → running(fence, attempt, heartbeat) → done | failed | cancelled | superseded."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("conversation_id", "ordinal"),
        UniqueConstraint("conversation_id", "idempotency_key"),
        CheckConstraint("role IN ('visitor', 'assistant', 'agent')", name="role"),
        CheckConstraint("status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'superseded')", name="status"),
        # Fairness asks how much of a workspace was served lately.
        Index("ix_messages_started", "workspace_id", "started_at", postgresql_where=text("started_at IS NOT NULL")),
        Index("ix_messages_open", "workspace_id", "created_at", postgresql_where=text("status IN ('queued', 'running')")),
    )
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    role: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    epoch: Mapped[int]
    text: Mapped[str] = mapped_column(
        Text, server_default=""
    )  # what is read: a visitor's words, or wording and evidence as Markdown
    reply_to: Mapped[UUID | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))  # the visitor's message answered
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)  # of the call that queued this answer: web and generator log it

    # What an answer is made of (docs/api.md gives the shapes).
    kind: Mapped[str | None] = mapped_column(Text)
    sentences: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")  # wording, as far as it was published
    evidence: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)  # null until it was published
    citations: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    nearest: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    refused: Mapped[bool] = mapped_column(server_default="false")
    trace: Mapped[dict[str, Any]] = deferred(mapped_column(JSONB, server_default="{}", nullable=False))
    timings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    tokens: Mapped[int] = mapped_column(server_default="0")  # written by the model for this answer
    error: Mapped[str | None] = mapped_column(Text)
    superseded_by: Mapped[UUID | None] = mapped_column(ForeignKey("messages.id", ondelete="SET NULL"))

    # The job.
    fence: Mapped[int] = mapped_column(server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    generator: Mapped[str | None] = mapped_column(Text)
    heartbeat_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    # The exact ids by which the conversation's state has consumed this message; null while it has not.
    token_ids: Mapped[list[int] | None] = deferred(mapped_column(ARRAY(Integer)))


class StateSnapshot(Base):
    """The last durable snapshot of a conversation's state (int8), at most one; it bounds a rebuild to a few seconds."""

    __tablename__ = "state_snapshots"
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id", ondelete="CASCADE"), index=True)
    state_key: Mapped[str] = mapped_column(Text)
    ordinal: Mapped[int]
    tokens: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)

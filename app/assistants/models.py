"""Assistants: persona, brand, mode, and the sources each answers from."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, TenantRow

DEFAULT_BRAND = "#0b6e63"


class Assistant(TenantRow):
    __tablename__ = "assistants"
    __table_args__ = (
        CheckConstraint("mode IN ('wording', 'evidence')", name="mode"),
        UniqueConstraint("workspace_id", "idempotency_key"),
    )
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    persona: Mapped[str] = mapped_column(Text)  # the system message that the state has read first
    tone: Mapped[str] = mapped_column(Text, server_default="friendly")  # plain, friendly, formal: chooses the fixed sentences
    greeting: Mapped[str] = mapped_column(Text)
    intro: Mapped[str] = mapped_column(Text, server_default="")
    contact_email: Mapped[str | None] = mapped_column(Text)
    contact_url: Mapped[str | None] = mapped_column(Text)
    brand_color: Mapped[str] = mapped_column(Text, server_default=DEFAULT_BRAND)  # as the owner gave it
    suggested_questions: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    allowed_origins: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    mode: Mapped[str] = mapped_column(Text, server_default="wording")  # evidence: no wording is generated at all
    version: Mapped[int] = mapped_column(server_default="1")  # raised when the persona changes: its prefix state is made anew
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    idempotency_key: Mapped[str | None] = mapped_column(Text)  # of the POST that made it


class AssistantSource(Base):
    """Which sources an assistant answers from."""

    __tablename__ = "assistant_sources"
    assistant_id: Mapped[UUID] = mapped_column(ForeignKey("assistants.id", ondelete="CASCADE"), primary_key=True)
    source_id: Mapped[UUID] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"), primary_key=True, index=True)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id", ondelete="CASCADE"), index=True)

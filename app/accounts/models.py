"""Workspaces, their members, and how members and programs prove who they are."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Row, TenantRow

ROLES = ("owner", "admin", "agent", "viewer")


class Workspace(Row):
    """The tenant. Its own row is visible to its own transactions alone."""

    __tablename__ = "workspaces"
    name: Mapped[str] = mapped_column(Text)
    slug: Mapped[str] = mapped_column(Text, unique=True)


class Member(TenantRow):
    """A person of the workspace. `email` is stored in lower case and is unique over all workspaces."""

    __tablename__ = "members"
    __table_args__ = (CheckConstraint("role IN ('owner', 'admin', 'agent', 'viewer')", name="role"),)
    email: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str | None] = mapped_column(Text)


class SignInLink(TenantRow):
    """A one-time sign-in. Only the SHA-256 of its token is kept."""

    __tablename__ = "sign_in_links"
    member_id: Mapped[UUID] = mapped_column(ForeignKey("members.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(Text, unique=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class MemberSession(TenantRow):
    """A signed-in browser. Only the SHA-256 of its cookie is kept."""

    __tablename__ = "member_sessions"
    member_id: Mapped[UUID] = mapped_column(ForeignKey("members.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(Text, unique=True)
    csrf_token: Mapped[str] = mapped_column(Text)
    by_link: Mapped[bool] = mapped_column(server_default="false")  # opened by a one-time link, not by a password
    expires_at: Mapped[datetime]


class ApiKey(TenantRow):
    """A program's key. Shown once; only its SHA-256 is kept. `scopes` are `read`, `write`, `ask`."""

    __tablename__ = "api_keys"
    member_id: Mapped[UUID] = mapped_column(ForeignKey("members.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    token_hash: Mapped[str] = mapped_column(Text, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

"""Creates and changes assistants. Never commits: the caller owns the transaction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from sqlalchemy import select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.service import free_slug, slugify
from app.assistants import brand
from app.assistants.models import DEFAULT_BRAND, Assistant, AssistantSource
from app.db import lookups
from app.db.ids import new_id

TONES = ("plain", "friendly", "formal")
MODES = ("wording", "evidence")
# The system message of the starting checkpoint's prompt: short, because every conversation's state begins with it.
DEFAULT_PERSONA = "You are {name}, a helpful assistant. Answer briefly, from the passages given."
NAME_LENGTH = 80
TEXT_LENGTH = 500
PERSONA_LENGTH = 2000
QUESTIONS = 6
ORIGINS = 50


class AssistantError(ValueError):
    """What was given cannot be an assistant. `field` names what to change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class SlugTaken(AssistantError):
    """Another assistant, of whatever workspace, has this public address."""

    def __init__(self, slug: str) -> None:
        super().__init__("slug", f"{slug} is another assistant's address already. Choose another one.")


class KeyReused(AssistantError):
    """An idempotency key came again with another request."""

    def __init__(self) -> None:
        super().__init__("name", "The key belongs to another assistant. Send a new key with a new assistant.")


def normal_origin(value: str) -> str:
    """An origin as a browser sends it: scheme, host, port unless it is the scheme's own. Raises ValueError."""
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ValueError(f"{value!r} is no origin; write for example https://www.example.org")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{value!r} has a path; an origin is only scheme, host and port")
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    if not re.fullmatch(r"[a-z0-9.\-_]+|\[[0-9a-f:.]+\]", host):
        raise ValueError(f"{value!r} is no origin; write for example https://www.example.org")
    port = parts.port
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != default else "")


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """The given columns, trimmed and checked. Raises AssistantError."""
    result = dict(values)
    for name, limit in (("name", NAME_LENGTH), ("greeting", TEXT_LENGTH), ("persona", PERSONA_LENGTH)):
        if name in result:
            result[name] = result[name].strip()
            if not 1 <= len(result[name]) <= limit:
                raise AssistantError(name, f"Write 1 to {limit} characters.")
    if "intro" in result:
        result["intro"] = result["intro"].strip()
        if len(result["intro"]) > TEXT_LENGTH:
            raise AssistantError("intro", f"Write at most {TEXT_LENGTH} characters.")
    if "tone" in result and result["tone"] not in TONES:
        raise AssistantError("tone", f"Choose one of {', '.join(TONES)}.")
    if "mode" in result and result["mode"] not in MODES:
        raise AssistantError("mode", f"Choose one of {', '.join(MODES)}.")
    if "brand_color" in result and not brand.is_colour(result["brand_color"]):
        raise AssistantError("brand_color", "Write a colour as #rrggbb.")
    if result.get("contact_email") and not re.fullmatch(r"[^@\s]+@[^@\s]+", result["contact_email"]):
        raise AssistantError("contact.email", "Write an e-mail address, or nothing.")
    if result.get("contact_url") and not re.fullmatch(r"https?://[^\s]+", result["contact_url"]):
        raise AssistantError("contact.url", "Write an address that begins with https://, or nothing.")
    if "suggested_questions" in result:
        questions = [q.strip() for q in result["suggested_questions"] if q.strip()]
        if len(questions) > QUESTIONS or any(len(q) > 200 for q in questions):
            raise AssistantError("suggested_questions", f"Give at most {QUESTIONS} questions of at most 200 characters.")
        result["suggested_questions"] = questions
    if "allowed_origins" in result:
        if len(result["allowed_origins"]) > ORIGINS:
            raise AssistantError("allowed_origins", f"Give at most {ORIGINS} origins.")
        try:
            result["allowed_origins"] = list(dict.fromkeys(normal_origin(o) for o in result["allowed_origins"]))
        except ValueError as error:
            raise AssistantError("allowed_origins", str(error)) from None
    return result


async def create_assistant(
    session: AsyncSession,
    workspace_id: UUID,
    *,
    name: str,
    slug: str | None = None,
    persona: str | None = None,
    greeting: str = "What would you like to look up?",
    intro: str = "",
    tone: str = "friendly",
    brand_color: str = DEFAULT_BRAND,
    contact_email: str | None = None,
    contact_url: str | None = None,
    suggested_questions: Sequence[str] = (),
    allowed_origins: Sequence[str] = (),
    mode: str = "wording",
    idempotency_key: str | None = None,
) -> Assistant:
    """Create an assistant; its slug is unique over all workspaces, because it is its public address.

    Without a slug one is made from the name. Raises AssistantError, SlugTaken.
    """
    if slug is None:
        slug = slugify(name, "assistant")
        slug = free_slug(slug) if await lookups.assistant_by_slug(session, slug) else slug
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?", slug):
        raise AssistantError("slug", f"{slug!r} is no slug: 1 to 60 of a-z, 0-9 and -.")
    values = checked(
        {
            "name": name,
            "persona": persona or DEFAULT_PERSONA.format(name=name.strip()),
            "greeting": greeting,
            "intro": intro,
            "tone": tone,
            "brand_color": brand_color,
            "contact_email": contact_email,
            "contact_url": contact_url,
            "suggested_questions": list(suggested_questions),
            "allowed_origins": list(allowed_origins),
            "mode": mode,
        }
    )
    values |= {"slug": slug, "version": 1, "idempotency_key": idempotency_key}
    try:
        async with session.begin_nested():
            assistant = Assistant(id=new_id(), workspace_id=workspace_id, **values)
            session.add(assistant)
            await session.flush()
    except IntegrityError:
        raise SlugTaken(slug) from None
    return assistant


async def create_once(
    session: AsyncSession, workspace_id: UUID, *, name: str, slug: str | None, idempotency_key: str | None
) -> Assistant:
    """Create an assistant, or give the one that this key made before. Raises AssistantError, SlugTaken, KeyReused."""
    if idempotency_key is None:
        return await create_assistant(session, workspace_id, name=name, slug=slug)
    made_before = select(Assistant).where(Assistant.idempotency_key == idempotency_key)
    found = (await session.execute(made_before)).scalar_one_or_none()
    if found is None:
        try:
            return await create_assistant(session, workspace_id, name=name, slug=slug, idempotency_key=idempotency_key)
        except SlugTaken:
            # By somebody else, or by this very request, sent twice at the same time.
            found = (await session.execute(made_before)).scalar_one_or_none()
            if found is None:
                raise
    if found.name != name.strip() or slug not in (None, found.slug):
        raise KeyReused
    return found


async def update_assistant(session: AsyncSession, assistant: Assistant, changes: dict[str, Any]) -> Assistant:
    """Change the given columns; another persona or name raises `version` (a new prefix state). Raises AssistantError."""
    values = checked(changes)
    if any(name in values and values[name] != getattr(assistant, name) for name in ("persona", "name")):
        assistant.version += 1
    for name, value in values.items():
        setattr(assistant, name, value)
    await session.flush()
    await session.refresh(assistant)
    return assistant


async def find_assistant(session: AsyncSession, id_or_slug: str) -> Assistant | None:
    """By id or slug, within the transaction's workspace."""
    try:
        condition = Assistant.id == UUID(id_or_slug)
    except ValueError:
        condition = Assistant.slug == id_or_slug
    return (await session.execute(select(Assistant).where(condition))).scalar_one_or_none()


async def list_assistants(session: AsyncSession, limit: int, after: tuple[datetime, UUID] | None = None) -> list[Assistant]:
    """The workspace's assistants, oldest first, after a cursor's: one more than `limit` when there are more."""
    query = select(Assistant).order_by(Assistant.created_at, Assistant.id).limit(limit + 1)
    if after is not None:
        query = query.where(tuple_(Assistant.created_at, Assistant.id) > tuple_(*after))
    return list((await session.execute(query)).scalars())


async def source_ids(session: AsyncSession, assistant_ids: Sequence[UUID]) -> dict[UUID, list[UUID]]:
    """Which sources each of these assistants answers from."""
    found: dict[UUID, list[UUID]] = {assistant: [] for assistant in assistant_ids}
    rows = await session.execute(
        select(AssistantSource.assistant_id, AssistantSource.source_id)
        .where(AssistantSource.assistant_id.in_(assistant_ids))
        .order_by(AssistantSource.source_id)
    )
    for assistant_id, source_id in rows:
        found[assistant_id].append(source_id)
    return found


def public_view(assistant: Assistant) -> dict[str, Any]:
    """What a visitor may see of an assistant."""
    return {
        "slug": assistant.slug,
        "name": assistant.name,
        "greeting": assistant.greeting,
        "intro": assistant.intro,
        "brand": brand.brand(assistant.brand_color),
        "suggested_questions": assistant.suggested_questions,
        "contact": {"email": assistant.contact_email, "url": assistant.contact_url},
    }


def member_view(assistant: Assistant, sources: Sequence[UUID]) -> dict[str, Any]:
    """The public part and what members may see and change."""
    return public_view(assistant) | msgspec.to_builtins(
        {
            "id": assistant.id,
            "persona": assistant.persona,
            "tone": assistant.tone,
            "brand_color": assistant.brand_color,
            "allowed_origins": assistant.allowed_origins,
            "mode": assistant.mode,
            "source_ids": list(sources),
            "created_at": assistant.created_at,
        }
    )

"""`retort owner` and `retort key`: members, their first assistant and their API keys, made where the database is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import service as accounts
from app.accounts.models import Member
from app.assistants import service as assistants
from app.assistants.models import Assistant
from app.config import Settings
from app.db import lookups
from app.db.session import Database
from app.operate import Problem

ASSISTANT_NAME = "Assistant"
MOST_KEYS = 1000  # of a workspace, that a list prints


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    """A connection for one command; what goes wrong with it is one line."""
    database = Database(settings.database_url, pool_size=1, max_overflow=0, application="retort-command")
    try:
        yield database
    except (accounts.AccountError, assistants.AssistantError) as error:
        raise Problem(str(error)) from None
    except (OperationalError, InterfaceError) as error:
        raise Problem(f"PostgreSQL does not answer: {str(error.orig).partition(chr(10))[0]}") from None
    except ProgrammingError:
        raise Problem("The database has not this release's schema; run `retort migrate` first.") from None
    finally:
        await database.close()


async def sign_in(settings: Settings, email: str, name: str | None = None, slug: str | None = None) -> tuple[str, bool, str]:
    """A one-time sign-in address for this member, whether a workspace was made for them now, and a first assistant's slug.

    An unknown address becomes the owner of a new workspace. A workspace without an assistant gets one, called `name`; the
    slug is empty when it had one already.
    """
    async with _database(settings) as database:
        async with database.transaction(None) as session:
            found = await lookups.member_by_email(session, email)
        async with database.transaction(found[0] if found else None) as session:
            if found:
                member = await _member(session, found[1], email)
            else:
                workspace_slug = accounts.free_slug(accounts.slugify(email.partition("@")[0], "workspace"))
                workspace = await accounts.create_workspace(session, "My workspace", workspace_slug)
                member = await accounts.create_member(session, workspace.id, email, email.partition("@")[0], "owner")
            made = await _first_assistant(session, member.workspace_id, name, slug)
            token = await accounts.create_sign_in_link(session, member)
        return f"{settings.dashboard_url}/sign-in#token={token}", found is None, made


async def _first_assistant(session: AsyncSession, workspace_id: UUID, name: str | None, slug: str | None) -> str:
    count = select(func.count()).where(Assistant.workspace_id == workspace_id)
    if (await session.execute(count)).scalar_one():
        if name or slug:
            raise Problem(
                "The workspace has an assistant already. Rename it in the dashboard, or add one by POST /api/v1/assistants."
            )
        return ""
    return (await assistants.create_assistant(session, workspace_id, name=name or ASSISTANT_NAME, slug=slug)).slug


async def _member(session: AsyncSession, member_id: UUID, email: str) -> Member:
    member = await session.get(Member, member_id)
    if member is None:
        raise Problem(f"{email} was removed a moment ago; try again.")
    return member


@asynccontextmanager
async def _acting_for(settings: Settings, email: str) -> AsyncIterator[tuple[AsyncSession, Member]]:
    """A transaction of the member's workspace. Raises Problem when nobody has this address."""
    async with _database(settings) as database:
        async with database.transaction(None) as session:
            found = await lookups.member_by_email(session, email)
        if found is None:
            raise Problem(f"No member has the address {email}; `retort owner {email}` makes one.")
        async with database.transaction(found[0]) as session:
            yield session, await _member(session, found[1], email)


async def create_key(settings: Settings, email: str, name: str, scopes: Sequence[str]) -> str:
    """A new key that acts for this member: the secret, to be shown once."""
    async with _acting_for(settings, email) as (session, member):
        return await accounts.create_api_key(session, member, name, scopes)


async def list_keys(settings: Settings, email: str) -> list[dict[str, Any]]:
    """The keys in use of this member's workspace, without their secrets."""
    async with _acting_for(settings, email) as (session, _):
        return [accounts.api_key_view(key, owner) for key, owner in await accounts.list_api_keys(session, None, MOST_KEYS)]


async def revoke_key(settings: Settings, email: str, which: str) -> str:
    """End the key of this prefix or id, in this member's workspace; gives its name. Raises Problem unless it is exactly one."""
    async with _acting_for(settings, email) as (session, _):
        keys = [key for key, _ in await accounts.list_api_keys(session, None, MOST_KEYS)]
        chosen = [key for key in keys if which in (str(key.id), key.prefix)]
        if len(chosen) != 1:
            found = "No key" if not chosen else "More than one key"
            raise Problem(f"{found} of this workspace is called {which}; `retort key list {email}` shows their prefixes and ids.")
        await accounts.revoke_api_key(session, chosen[0].id)
        return chosen[0].name

"""Creates workspaces and members, and proves who they are. Never commits: the caller owns the transaction.

Random secrets (sign-in links, session cookies, API keys) have 256 bits: their SHA-256 is kept. Passwords go through argon2.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import delete, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import ROLES, ApiKey, Member, MemberSession, SignInLink, Workspace
from app.db.ids import new_id
from app.db.session import WORKSPACE

LINK_LIFE = timedelta(hours=24)
SESSION_LIFE = timedelta(days=30)
PASSWORD_LENGTH = 10  # characters, at least
PASSWORD_LIMIT = 256  # argon2 takes any length; a request should not
KEY_PREFIX = "rk_"
SCOPES = ("read", "write", "ask")
KEY_NAME_LENGTH = 80
KEYS_EACH = 50  # keys in use of one member
# After a sign-in by link a password may be replaced without the old one for so long: this is how a forgotten one is renewed.
LINK_TRUST = timedelta(hours=1)

# OWASP's second choice for argon2id: 19 MiB, two passes, one lane. Sign-ins are few, and web must stay small.
_passwords = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1),))


@cache
def _nobody() -> str:
    """Compared when there is no such member, so that an unknown address takes as long as a wrong password."""
    return _passwords.hash(secrets.token_urlsafe(16))


class AccountError(ValueError):
    """What was given cannot be an account; the message says what to change."""


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A fresh member session: `token` goes into the cookie and is kept nowhere else."""

    token: str
    csrf_token: str
    expires_at: datetime


def hash_token(token: str) -> str:
    """The SHA-256 of a random token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def slugify(name: str, fallback: str) -> str:
    """Up to 40 of a-z, 0-9 and -, or the fallback when nothing of the name is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or fallback


def free_slug(slug: str) -> str:
    """The slug with 24 random bits: of two workspaces or assistants of one name, each has an address of its own."""
    return f"{slug[:33].strip('-')}-{secrets.token_hex(3)}"


async def bind_workspace(session: AsyncSession, workspace_id: UUID) -> None:
    """Bind a transaction that began without a workspace to one, from here to its end."""
    session.info[WORKSPACE] = workspace_id
    await session.execute(text("SELECT set_config('app.workspace_id', :id, true)"), {"id": str(workspace_id)})


async def create_workspace(session: AsyncSession, name: str, slug: str) -> Workspace:
    """Create a tenant, in a transaction that began without a workspace; the transaction is then bound to the new one."""
    if not name.strip():
        raise AccountError("A workspace needs a name.")
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", slug):
        raise AccountError(f"{slug!r} is no slug: 1 to 40 of a-z, 0-9 and -, such as acme-docs.")
    workspace = Workspace(id=new_id(), name=name.strip(), slug=slug)
    await bind_workspace(session, workspace.id)
    session.add(workspace)
    await session.flush()
    return workspace


async def create_member(session: AsyncSession, workspace_id: UUID, email: str, name: str, role: str) -> Member:
    """A person of the workspace. Raises AccountError when the address or the role is none."""
    address = email.strip().lower()
    if not re.fullmatch(r"[^@\s\x00]+@[^@\s\x00]+", address):
        raise AccountError(f"{email!r} is no e-mail address.")
    if role not in ROLES:
        raise AccountError(f"{role!r} is no role; choose one of {', '.join(ROLES)}.")
    member = Member(id=new_id(), workspace_id=workspace_id, email=address, name=name.strip() or address, role=role)
    session.add(member)
    await session.flush()
    return member


async def create_sign_in_link(session: AsyncSession, member: Member, life: timedelta = LINK_LIFE) -> str:
    """A token that signs this member in once, within `life`."""
    token = secrets.token_urlsafe(32)
    session.add(
        SignInLink(
            workspace_id=member.workspace_id,
            member_id=member.id,
            token_hash=hash_token(token),
            expires_at=datetime.now(UTC) + life,
        )
    )
    await session.flush()
    return token


async def use_sign_in_link(session: AsyncSession, link_id: UUID) -> Member | None:
    """Mark the link used and give its member; None when another request was first or it has expired."""
    used = await session.execute(
        update(SignInLink)
        .where(SignInLink.id == link_id, SignInLink.used_at.is_(None), SignInLink.expires_at > datetime.now(UTC))
        .values(used_at=datetime.now(UTC))
        .returning(SignInLink.member_id)
    )
    member_id = used.scalar_one_or_none()
    return await session.get(Member, member_id) if member_id else None


async def create_api_key(session: AsyncSession, member: Member, name: str, scopes: Sequence[str]) -> str:
    """A program's key, shown once. `scopes` are of `read`, `write`, `ask`. Raises AccountError."""
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise AccountError(f"Scopes are some of {', '.join(SCOPES)}.")
    name = name.strip()
    if not 1 <= len(name) <= KEY_NAME_LENGTH:
        raise AccountError(f"A key needs a name of 1 to {KEY_NAME_LENGTH} characters.")
    in_use = select(func.count()).where(ApiKey.member_id == member.id, ApiKey.revoked_at.is_(None))
    if (await session.execute(in_use)).scalar_one() >= KEYS_EACH:
        raise AccountError(f"{member.email} has {KEYS_EACH} keys in use. Revoke one first.")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    session.add(
        ApiKey(
            workspace_id=member.workspace_id,
            member_id=member.id,
            name=name,
            prefix=key[:10],
            token_hash=hash_token(key),
            scopes=sorted(set(scopes)),
        )
    )
    await session.flush()
    return key


async def list_api_keys(
    session: AsyncSession, member_id: UUID | None, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[tuple[ApiKey, str]]:
    """Keys in use with their members' addresses, oldest first: of one member, or (None) of the whole workspace.

    One more than `limit` when there are more.
    """
    query = select(ApiKey, Member.email).join(Member, Member.id == ApiKey.member_id).where(ApiKey.revoked_at.is_(None))
    if member_id is not None:
        query = query.where(ApiKey.member_id == member_id)
    if after is not None:
        query = query.where(tuple_(ApiKey.created_at, ApiKey.id) > tuple_(*after))
    rows = await session.execute(query.order_by(ApiKey.created_at, ApiKey.id).limit(limit + 1))
    return [(key, email) for key, email in rows]


async def find_api_key(session: AsyncSession, token: str) -> ApiKey:
    """The row of a key that was just made."""
    return (await session.execute(select(ApiKey).where(ApiKey.token_hash == hash_token(token)))).scalar_one()


async def revoke_api_key(session: AsyncSession, key_id: UUID, member_id: UUID | None = None) -> bool:
    """End a key at once: of this member, or (None) of whomever in the workspace. False when there is no such key in use."""
    revoking = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=datetime.now(UTC))
    if member_id is not None:
        revoking = revoking.where(ApiKey.member_id == member_id)
    return (await session.execute(revoking.returning(ApiKey.id))).scalar_one_or_none() is not None


def api_key_view(key: ApiKey, email: str) -> dict[str, Any]:
    """ApiKeyOut of docs/api.md: everything but the secret, which nobody has any more."""
    names = ("id", "name", "prefix", "scopes", "created_at", "last_used_at")
    return msgspec.to_builtins({name: getattr(key, name) for name in names} | {"member": email})


def check_password(password: str) -> None:
    if not PASSWORD_LENGTH <= len(password) <= PASSWORD_LIMIT:
        raise AccountError(f"A password has {PASSWORD_LENGTH} to {PASSWORD_LIMIT} characters.")


def hash_password(password: str) -> str:
    """argon2id; about 30 ms, so call it in a thread."""
    check_password(password)
    return _passwords.hash(password)


def verify_password(password: str, password_hash: str | None) -> bool:
    """Takes as long for a member that does not exist (`None`); call it in a thread."""
    matches = _passwords.verify(password[:PASSWORD_LIMIT], password_hash or _nobody())
    return matches and password_hash is not None


async def came_by_link(session: AsyncSession, session_id: UUID | None) -> bool:
    """Whether this session was opened by a one-time link within the last hour, and has set no password since."""
    query = select(MemberSession.by_link).where(
        MemberSession.id == session_id, MemberSession.created_at > datetime.now(UTC) - LINK_TRUST
    )
    return bool((await session.execute(query)).scalar_one_or_none())


async def set_password(session: AsyncSession, member_id: UUID, password_hash: str, keep_session: UUID | None) -> None:
    """Store a hash and sign the member out everywhere but in `keep_session`, whose link has done its service."""
    await session.execute(update(Member).where(Member.id == member_id).values(password_hash=password_hash))
    await session.execute(delete(MemberSession).where(MemberSession.member_id == member_id, MemberSession.id != keep_session))
    await session.execute(update(MemberSession).where(MemberSession.id == keep_session).values(by_link=False))


async def open_session(session: AsyncSession, member: Member, *, by_link: bool = False) -> OpenedSession:
    """Sign a member in. Sessions of theirs that have expired go."""
    now = datetime.now(UTC)
    await session.execute(delete(MemberSession).where(MemberSession.member_id == member.id, MemberSession.expires_at < now))
    opened = OpenedSession(secrets.token_urlsafe(32), secrets.token_urlsafe(24), now + SESSION_LIFE)
    session.add(
        MemberSession(
            workspace_id=member.workspace_id,
            member_id=member.id,
            token_hash=hash_token(opened.token),
            csrf_token=opened.csrf_token,
            by_link=by_link,
            expires_at=opened.expires_at,
        )
    )
    await session.flush()
    return opened


async def close_session(session: AsyncSession, session_id: UUID) -> None:
    await session.execute(delete(MemberSession).where(MemberSession.id == session_id))


async def member_view(session: AsyncSession, member: Member) -> dict[str, object]:
    """`member` and `workspace` of Me (docs/api.md)."""
    workspace = (await session.execute(select(Workspace).where(Workspace.id == member.workspace_id))).scalar_one()
    return msgspec.to_builtins(
        {
            "member": {
                "id": member.id,
                "email": member.email,
                "name": member.name,
                "role": member.role,
                "has_password": member.password_hash is not None,
            },
            "workspace": {"id": workspace.id, "name": workspace.name, "slug": workspace.slug},
        }
    )

"""Creates workspaces and members, and proves who they are. Never commits: the caller owns the transaction.

Random secrets (sign-in links, session cookies, API keys) have 256 bits: their SHA-256 is kept. Passwords go through argon2.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID

import msgspec
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import delete, select, text, update
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
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return slug or fallback


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


async def create_api_key(session: AsyncSession, member: Member, name: str, scopes: list[str] | tuple[str, ...]) -> str:
    """A program's key, shown once. `scopes` are of `read`, `write`, `ask`."""
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise AccountError(f"Scopes are some of {', '.join(SCOPES)}.")
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


async def revoke_api_key(session: AsyncSession, key_id: UUID) -> None:
    await session.execute(update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=datetime.now(UTC)))


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


async def set_password(session: AsyncSession, member_id: UUID, password_hash: str, keep_session: UUID | None) -> None:
    """Store a hash and sign the member out everywhere but in `keep_session`."""
    await session.execute(update(Member).where(Member.id == member_id).values(password_hash=password_hash))
    await session.execute(delete(MemberSession).where(MemberSession.member_id == member_id, MemberSession.id != keep_session))


async def open_session(session: AsyncSession, member: Member) -> OpenedSession:
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

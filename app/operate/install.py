"""The first workspace, its owner, and the assistant that answers from this project's own docs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from app.accounts import service as accounts
from app.accounts.models import Member
from app.assistants import service as assistants
from app.config import Settings
from app.db import lookups
from app.db.session import Database
from app.embedded.secrets import write_private
from app.operate import ROOT, Problem
from app.operate.client import KEY_FILE

GUIDE = "guide"
GUIDE_NAME = "Retort guide"
OWNER_EMAIL = "owner@retort.localhost"
INSTALLATION = "installation.json"
READ_DOCS = "guide-docs.json"
DOCS = ROOT / "docs"


@dataclass(frozen=True, slots=True)
class Installation:
    workspace_id: UUID
    member_id: UUID
    api_key: str
    sign_in_token: str  # used once, within a day
    created: bool


async def install(settings: Settings, owner_email: str = OWNER_EMAIL) -> Installation:
    """Make workspace, owner and guide unless they were made before; a fresh sign-in link each time.

    What was made is noted in the data folder, so an owner may rename or delete all of it without its coming back.
    """
    database = Database(settings.database_url, pool_size=1, max_overflow=0, application="retort-up")
    try:
        known = _known(settings.data)
        created = known is None
        workspace_id, member_id = known or await _create(database, settings, owner_email)
        key_file = settings.data / KEY_FILE
        async with database.transaction(workspace_id) as session:
            member = await session.get(Member, member_id)
            if member is None:
                raise Problem(
                    f"The owner that {settings.data / INSTALLATION} names is not in the database; "
                    "the folder holds files of two installations. Restore it from one backup."
                )
            key = key_file.read_text().strip() if key_file.exists() else ""
            # Whoever revoked it meant the key that is out there; this machine's commands get another one.
            if not key or await lookups.api_key(session, accounts.hash_token(key)) is None:
                key = await accounts.create_api_key(session, member, "retort on this machine", accounts.SCOPES)
            token = await accounts.create_sign_in_link(session, member)
        write_private(key_file, key + "\n")
        return Installation(workspace_id, member_id, key, token, created)
    finally:
        await database.close()


def _known(data: Path) -> tuple[UUID, UUID] | None:
    try:
        held = json.loads((data / INSTALLATION).read_text())
        return UUID(held["workspace_id"]), UUID(held["member_id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem(f"{data / INSTALLATION} cannot be read ({error}); put back the file of a backup.") from None


async def _create(database: Database, settings: Settings, owner_email: str) -> tuple[UUID, UUID]:
    async with database.transaction(None) as session:
        workspace = await accounts.create_workspace(session, "My workspace", "my-workspace")
        member = await accounts.create_member(session, workspace.id, owner_email, "Owner", "owner")
        await assistants.create_assistant(
            session,
            workspace.id,
            slug=GUIDE,
            name=GUIDE_NAME,
            greeting="Ask me how to run, embed or operate Retort.",
            intro="I answer from Retort's own documentation and show the sentences that I rest on.",
            suggested_questions=[
                "How do I put the widget on my website?",
                "How much memory does it need?",
                "What can the model not do?",
            ],
            allowed_origins=[settings.visitor_url],
        )
        # Written before the transaction is committed: a crash in between leaves a note whose rows are missing, so it is
        # taken back below; the other way round the next start would stumble over the rows.
        note = {"workspace_id": str(workspace.id), "member_id": str(member.id)}
        write_private(settings.data / INSTALLATION, json.dumps(note))
        try:
            await session.commit()
        except BaseException:
            (settings.data / INSTALLATION).unlink(missing_ok=True)
            raise
        return workspace.id, member.id


def docs_hash(folder: Path = DOCS) -> str:
    """Changes when a page of the docs does."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.md")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def docs_note(data: Path) -> dict[str, object]:
    """What was read of the docs: `url`, `hash`, and `removed` when the owner had taken the source away; empty before."""
    try:
        held = json.loads((data / READ_DOCS).read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def docs_were_read(data: Path, url: str) -> bool:
    """Whether nothing is to be read: the docs as they are now were read from this address, or the owner wants none."""
    note = docs_note(data)
    return note.get("url") == url and note.get("hash") == docs_hash()


def note_docs_read(data: Path, url: str, read_hash: str, *, removed: bool = False) -> None:
    """Remember it for the next start."""
    write_private(data / READ_DOCS, json.dumps({"url": url, "hash": read_hash} | ({"removed": True} if removed else {})))

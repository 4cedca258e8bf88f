"""The system account that the embedded servers run as: PostgreSQL refuses to run as root, and rightly so."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.embedded.errors import EmbeddedError

NAME = "retort"
# Taken, in this order, where no account can be made.
FALLBACKS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int

    def popen_arguments(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def owns(self, path: Path, mode: int) -> None:
        """Hand a file or folder of ours to this account."""
        os.chown(path, self.uid, self.gid)
        path.chmod(mode)

    def can_enter(self, folder: Path) -> bool:
        """Whether this account may reach `folder` (tried, not computed: ACLs and mount options count as well)."""
        return self._try("test", "-x", str(folder))

    def can_run(self, program: Path, *arguments: str) -> bool:
        return self._try(str(program), *arguments)

    def _try(self, *command: str) -> bool:
        try:
            done = subprocess.run(
                command, cwd="/", env={"PATH": os.defpath}, capture_output=True, timeout=20, **self.popen_arguments()
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0


def server_account(cluster: Path, environment: Mapping[str, str] | None = None) -> Account | None:
    """None unless we are root; else the owner of `cluster` where it exists, or an account without rights.

    Makes the system account `retort` when it is missing; `RETORT_SYSTEM_USER` names another.
    Raises EmbeddedError when there is none to take.
    """
    if os.geteuid() != 0:
        return None
    wanted = (os.environ if environment is None else environment).get("RETORT_SYSTEM_USER", "")
    if wanted:
        found = _lookup(wanted)
        if found is None:
            raise EmbeddedError(f"RETORT_SYSTEM_USER names {wanted!r}, which this machine does not know; name another account.")
        return found
    if cluster.exists() and (uid := cluster.stat().st_uid) != 0:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedError(
                f"{cluster} belongs to user id {uid}, which this machine does not know; "
                f"give it an account (useradd --system --uid {uid} {NAME})."
            ) from None
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    account = _lookup(NAME) or _create(NAME)
    for name in FALLBACKS:
        account = account or _lookup(name)
    if account is None:
        raise EmbeddedError("PostgreSQL does not run as root. Start Retort as an ordinary user, or set RETORT_SYSTEM_USER.")
    return account


def _lookup(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return None if entry.pw_uid == 0 else Account(name, entry.pw_uid, entry.pw_gid)


def _create(name: str) -> Account | None:
    if not (useradd := shutil.which("useradd")):
        return None
    subprocess.run(
        [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false", name],
        capture_output=True,
        timeout=20,
    )
    return _lookup(name)

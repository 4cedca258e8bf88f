"""The passwords and keys of one installation: made once, kept in the data folder, readable by its owner alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from app.embedded.errors import EmbeddedError

FILE = "secrets.json"


def _new() -> str:
    return secrets.token_hex(32)


@dataclass(frozen=True, slots=True)
class Secrets:
    """256 random bits each, in hexadecimal, so that they stand in URLs and configuration files as they are."""

    postgres: str = field(default_factory=_new)  # the superuser of the embedded PostgreSQL
    application: str = field(default_factory=_new)  # the role retort_app
    bus: str = field(default_factory=_new)
    states: str = field(default_factory=_new)
    visitor_tokens: str = field(default_factory=_new)  # RETORT_SECRET

    @classmethod
    def of(cls, data: Path) -> Secrets:
        """Read the folder's secrets, or make them. Raises EmbeddedError when the file is there but not readable as such."""
        path = data / FILE
        if not path.exists():
            made = cls()
            write_private(path, json.dumps(asdict(made), indent=1))
            return made
        try:
            held = json.loads(path.read_text())
            return cls(**{f.name: str(held[f.name]) for f in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EmbeddedError(
                f"{path} cannot be read ({type(error).__name__}): put back the file of a backup; "
                "the data of the servers beside it opens with these secrets alone."
            ) from error


def write_private(path: Path, text: str) -> None:
    """Write `text` whole or not at all, with mode 0600 from the first byte on."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)

"""The base of every request body: unknown fields are refused, and no text holds a NUL (PostgreSQL stores none)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

KEY_LENGTH = 200  # characters of an idempotency key


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


class Input(msgspec.Struct, forbid_unknown_fields=True):
    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if any("\x00" in text for text in _texts(getattr(self, name))):
                raise ValueError(f"{name} holds a NUL")


def usable_key(key: str) -> bool:
    """Whether an Idempotency-Key can be kept: 1 to 200 printable characters."""
    return 0 < len(key) <= KEY_LENGTH and key.isprintable()

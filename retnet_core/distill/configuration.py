"""What the steps' configuration files have in common: a TOML file becomes a frozen dataclass, or a line that says which key is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from retnet_core.distill import DistillError

T = TypeVar("T")


def read_table(path: Path) -> dict[str, Any]:
    """The file's top table. Raises `DistillError` for a file that can't be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DistillError(f"{path} can't be read: {error}") from None


def built(kind: type[T], table: Any, where: str, **made: Callable[[Any], Any]) -> T:
    """The dataclass `kind` from `table`; `made` turns values of these names into what their fields hold, numbers and texts are only checked.

    Raises `DistillError`, beginning with `where`, for a key that is unknown or missing and for a value that does not fit.
    """
    if not isinstance(table, Mapping):
        raise DistillError(f"{where} is {table!r}; expected a table")
    known, hints = {one.name: one for one in fields(kind)}, get_type_hints(kind)  # type: ignore[arg-type]
    for name in table:
        if name not in known:
            raise DistillError(f"{where}: {name} is unknown; known are {', '.join(known)}")
    for name, one in known.items():
        if name not in table and one.default is MISSING and one.default_factory is MISSING:
            raise DistillError(f"{where}: {name} is missing")
    values = {}
    try:
        for name, value in table.items():
            values[name] = made[name](value) if name in made else _number_or_text(name, value, hints[name])
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise DistillError(f"{where}: {error}") from None


def folder_or_file(value: Any) -> Path:
    """Relative to the folder that the command is called in. Raises `ValueError`."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no path")
    return Path(value)


def files(value: Any) -> list[Path]:
    """A list of paths. Raises `ValueError`."""
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list of paths")
    return [folder_or_file(one) for one in value]


def _number_or_text(name: str, value: Any, wanted: type) -> Any:
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{name} is {value!r}; expected {wanted.__name__}")
    return value

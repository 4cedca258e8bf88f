"""The rows of earlier runs in `benchmarks/results`, for the pictures and tables of docs/retnet.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


class Missing(LookupError):
    """The results that a picture or a table shows are not there."""


@dataclass(frozen=True, slots=True)
class Results:
    """The rows of one run, as `--json` wrote them."""

    rows: Sequence[dict[str, Any]]

    @classmethod
    def read(cls, name: str) -> Results:
        path = RESULTS / name
        if not path.is_file():
            raise Missing(f"{path.name} is not there")
        return cls(json.loads(path.read_text()))

    def matching(self, pattern: str) -> Iterator[tuple[re.Match[str], dict[str, Any]]]:
        """Rows whose whole name matches, with the match."""
        for row in self.rows:
            if match := re.fullmatch(pattern, row["name"]):
                yield match, row

    def value(self, name: str, key: str = "value") -> float:
        for row in self.rows:
            if row["name"] == name and row[key] is not None:
                return row[key]
        raise Missing(f"there is no row {name!r} with a {key}")

    def line(self, pattern: str, key: str = "value", peer: str | None = None) -> tuple[list[float], list[float]]:
        """x (the pattern's first group) and y (`key`) of all rows that match and have it, in the order of x."""
        found = sorted(
            (float(match[1]), float(row[key]))
            for match, row in self.matching(pattern)
            if row[key] is not None and peer in (None, row["peer"])
        )
        if not found:
            raise Missing(f"no row is named like {pattern!r}")
        return [x for x, _ in found], [y for _, y in found]

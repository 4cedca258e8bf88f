"""What every benchmark reports: rows with a value, what it is compared with, and the goal it should meet.

A row is `{"name", "value", "unit", "peer", "peer_value", "ratio", "goal", "met"}`; absent parts are null. `ratio` is
value over peer_value. A benchmark prints its rows as a table; with `--json` it prints them as a list as well (the table
then goes to stderr), and with `--json FILE` it writes the list there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Row:
    """One measurement. `value` is None when it could not be measured; `note` then says why."""

    name: str
    value: float | None
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    goal: float | None = None
    at_least: bool = False  # the goal is a floor rather than a ceiling
    note: str = ""
    detail: bool = False  # for the JSON alone, such as an end of an interval

    @property
    def ratio(self) -> float | None:
        if self.value is None or not self.peer_value:
            return None
        return self.value / self.peer_value

    @property
    def met(self) -> bool | None:
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": _rounded(self.peer_value),
            "ratio": _rounded(self.ratio),
            "goal": self.goal,
            "met": self.met,
        }


@dataclass(slots=True)
class Report:
    """The rows of one run, in the order in which they were measured."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, value: float | None, unit: str, **more: Any) -> Row:
        row = Row(name, value, unit, **more)
        self.rows.append(row)
        return row

    def print(self, console: Console) -> None:
        table = Table(title=self.title, title_justify="left")
        table.add_column("measure", overflow="fold")
        for heading in ("value", "peer", "ratio", "goal"):
            table.add_column(heading, justify="right")
        table.add_column("met")
        for row in self.rows:
            if row.detail:
                continue
            table.add_row(
                row.name + (f" ({row.note})" if row.note else ""),
                _shown(row.value, row.unit),
                f"{_shown(row.peer_value, row.unit)} {row.peer}" if row.peer else "",
                "" if row.ratio is None else f"{row.ratio:.2f}",
                "" if row.goal is None else f"{'≥' if row.at_least else '≤'} {_shown(row.goal, row.unit)}",
                {True: "yes", False: "no", None: ""}[row.met],
            )
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False)

    def finish(self, given: argparse.Namespace) -> None:
        """Print the table, and the rows as JSON where they were asked for."""
        rows = json.dumps([row.as_json() for row in self.rows], indent=2, ensure_ascii=False)
        to_stdout = given.json and given.file is None
        self.print(Console(stderr=bool(to_stdout), width=None if sys.stdout.isatty() else 140))
        if to_stdout:
            print(rows)
        elif given.file is not None:
            given.file.write_text(rows + "\n")


def arguments(description: str) -> argparse.ArgumentParser:
    """The parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON on stdout, or write them to FILE")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="with --json: where the rows go")
    parser.add_argument("--quick", action="store_true", help="the same comparison, smaller: ends within 50 s")
    return parser


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile: the smallest value that at least `share` of all do not exceed. None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float | None:
    return quantile(values, 0.5)


def _rounded(value: float | None) -> float | None:
    """Counts and bytes exactly, measurements to four digits."""
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    number = f"{value:.3f}" if abs(value) < 10 and not float(value).is_integer() else f"{value:,.0f}"
    return f"{number} {unit}".rstrip()

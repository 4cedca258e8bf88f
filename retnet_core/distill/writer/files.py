"""JSONL files between the steps: what the writer wrote, a part a process, and the passages it wrote about."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retnet_core.distill import DistillError
from retnet_core.distill.handwritten.rows import Passage

LINES = 4096  # of a file


class Files:
    """Numbered files of one kind in a process's folder: `append` writes lines through, a file at a time; `read` gives all of them.

    A line that was cut off when the command was killed is taken away, so that what is appended stands on a line of its own.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"{kind}-*.jsonl"):
            _cut(path)
        self.count = sum(1 for _ in self.read())

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        start = 0
        while start < len(records):
            room = LINES - self.count % LINES
            part = records[start : start + room]
            with (self.folder / f"{self.kind}-{self.count // LINES:05d}.jsonl").open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in part))
            start += room
            self.count += len(part)

    def read(self) -> Iterator[dict[str, Any]]:
        """All records, in the order they were written."""
        for path in sorted(self.folder.glob(f"{self.kind}-*.jsonl")):
            yield from whole_records(path)


def every(out: Path, kind: str) -> list[Path]:
    """The files of one kind that all processes of all runs wrote."""
    return sorted(out.glob(f"part-*/{kind}-*.jsonl"))


def whole_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that may be written meanwhile, or was when the command was killed: what is no whole record is left out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if (record := record_in(line)) is not None:
                yield record


def record_in(line: str) -> dict[str, Any] | None:
    """The record of one line; None where the line was cut off."""
    try:
        found = json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def records(path: Path, what: str) -> Iterator[dict[str, Any]]:
    """The records of a finished file, packed with xz or not. Raises `DistillError` saying that it is no `what`."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise ValueError(f"line {number} is no object")
                yield found
    except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
        raise DistillError(f"{path} is no {what}: {error}") from None


def passages_in(path: Path) -> Iterator[Passage]:
    """The passages that `data` gathered. Raises `DistillError`."""
    for number, one in enumerate(records(path, "file of passages"), start=1):
        try:
            yield passage_of(one)
        except (KeyError, AttributeError) as error:
            raise DistillError(f"{path} is no file of passages: line {number} lacks {error}") from None


def passage_of(record: dict[str, Any]) -> Passage:
    """`split` other than "train" is for measuring. Raises `KeyError`."""
    return Passage(record["id"], record["package"], record["title"], record["text"], dev=record.get("split", "train") != "train")


def _cut(path: Path) -> None:
    with path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)

"""Brings hand-written rows, and the passages that they need, into this folder.

    python -m retnet_core.distill.handwritten.bring_in ROWS… [--passages FILE…] [--pages FILE…] [--leave-out-faulty]

ROWS are named core-….jsonl or dev-….jsonl; a file of the same name here is replaced. `--passages` are the grounded-….jsonl.xz
whose numbers the rows use (id, pkg, title, text, dev), and all their development passages are taken in. `--pages` are pages that
were written together with their rows, with ids of their own; those in a file named dev-… are development passages. All of them
are taken in. Rows may also use ids of passages that are here already.

Every row is checked first: with a fault nothing is written, unless the faulty rows shall be left out. A dev row keeps the half
it has. New ones are dealt out for each kind and package in the order of their ids, which are hashes, each to the half that has
fewer.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retnet_core.distill.handwritten.rows import (
    FOLDER,
    HALVES,
    OWN,
    OWN_PAGES,
    PARTS,
    PASSAGES,
    Passage,
    Row,
    RowError,
    faults,
    key,
    lines,
    passage_id,
    passages,
    row_from,
    rows,
    span_of,
)

# Packages that only the final report may use: neither trained on nor chosen on.
HELD_OUT = ("debian-faq", "gnome-user-docs")


def read_passages(files: Iterable[Path], pages: Iterable[Path]) -> dict[str, Passage]:
    """The passages of both kinds of files by the ids that rows use for them. Raises RowError for an id that means two things."""
    found: dict[str, Passage] = {}
    for path in (*files, *pages):
        measured = path in pages and path.name.startswith("dev-")
        for where, values in lines(path):
            package, title, text = values["pkg"], values["title"], values["text"]
            if package in HELD_OUT:
                raise RowError(f"{where}: {package} is held out for the final report.")
            one = Passage(passage_id(package, title, text), package, title, text, measured or bool(values.get("dev", 0)))
            if found.setdefault(str(values["id"]), one) != one:
                raise RowError(f"{where}: the id {values['id']} is there twice, with another text")
    return found


def converted(path: Path, named: Mapping[str, Passage], known: Mapping[str, Passage]) -> list[tuple[str, Row]]:
    """(place, row) of a file, with the ids of this folder and evidence cut out of the passages character for character."""
    found = []
    for where, values in lines(path):
        row = row_from(values, where)
        ids = tuple(named[one].id if one in named else one for one in row.passages)
        read = [known[one].whole for one in ids if one in known] + (list(row.turns[:-1]) if row.kind in OWN else [])
        row = replace(row, passages=ids, evidence=tuple(_verbatim(piece, read) for piece in row.evidence), half=None)
        found.append((where, row))
    return found


def _verbatim(piece: str, read: Sequence[str]) -> str:
    """The same words as they stand in what was read; as they are where they stand nowhere."""
    for text in read:
        if span := span_of(piece, text):
            return text[span[0] : span[1]]
    return piece


def deal(new: Sequence[Row], kept: Mapping[str, str]) -> list[Row]:
    """The dev rows with their halves. `kept`: the halves of rows that had one, by the row's id."""
    counts: Counter[tuple[str, str, str]] = Counter()
    halves = {}
    for row in new:
        if half := kept.get(row.id):
            halves[row.id] = half
            counts[row.kind, row.package, half] += 1
    for row in sorted(new, key=lambda row: row.id):
        if row.id in halves:
            continue
        first, second = (counts[row.kind, row.package, half] for half in HALVES)
        # With equal numbers the row's own hash decides, so that groups of one do not all fall to one half.
        place = int(row.id[-1], 16) % 2 if first == second else int(second < first)
        halves[row.id] = HALVES[place]
        counts[row.kind, row.package, HALVES[place]] += 1
    return [replace(row, half=halves[row.id]) for row in new]


def bring_in(
    files: Sequence[Path], grounded: Sequence[Path], pages: Sequence[Path], *, leave_out: bool, folder: Path = FOLDER
) -> list[str]:
    """Write rows and passages; returns what was told of the faulty ones. Raises RowError for faults that were not to be left out."""
    for path in files:
        if path.name.split("-")[0] not in PARTS or path.suffix != ".jsonl" or path.stem.endswith("-pages"):
            raise RowError(f"{path.name}: rows are named core-….jsonl or dev-….jsonl; pages are given with --pages.")
    named = read_passages(grounded, pages)
    known = dict(passages(folder)) if (folder / PASSAGES).exists() else {}
    known |= {one.id: one for one in named.values()}
    parts: dict[str, dict[str, list[Row]]] = {part: {} for part in PARTS}
    told: list[str] = []
    kept: dict[str, str] = {}
    for part in PARTS:
        for path in sorted(folder.glob(f"{part}-*.jsonl")):
            parts[part][path.name] = [row_from(values, where) for where, values in lines(path)]
            kept |= {row.id: row.half for row in parts[part][path.name] if row.half}
    for path in files:
        part = path.name.split("-")[0]
        others = {key(row) for name, group in parts[part].items() if name != path.name for row in group}
        good, seen = [], set()
        for where, row in converted(path, named, known):
            wrong = faults(row, known) + (["the question is there already"] if key(row) in others | seen else [])
            wrong += [
                f"{one} is {'no' if part == 'dev' else 'a'} development passage"
                for one in row.passages
                if one in known and known[one].dev != (part == "dev")
            ]
            told += [f"{where}: {why}" for why in wrong]
            if not wrong:
                good.append(row)
                seen.add(key(row))
        parts[part][path.name] = good
    if told and not leave_out:
        raise RowError("\n".join([*told, f"{len(told)} faults, nothing was written."]))
    _write(folder, parts, known, kept)
    return told


def _write(
    folder: Path, parts: Mapping[str, Mapping[str, list[Row]]], known: Mapping[str, Passage], kept: Mapping[str, str]
) -> None:
    halves = {row.id: row.half for row in deal([row for group in parts["dev"].values() for row in group], kept)}
    used = {one for part in parts.values() for group in part.values() for row in group for one in row.passages}
    needed = [one for one in known.values() if one.dev or one.id in used or one.package == OWN_PAGES]
    packed = "".join(_line(one) for one in sorted(needed, key=lambda one: one.id))
    for part in parts.values():
        for name, group in part.items():
            text = "".join(replace(row, half=halves.get(row.id)).as_json() + "\n" for row in group)
            (folder / name).write_text(text, encoding="utf-8")
    (folder / PASSAGES).write_bytes(lzma.compress(packed.encode(), preset=9 | lzma.PRESET_EXTREME))
    rows.cache_clear()
    passages.cache_clear()


def _line(one: Passage) -> str:
    values: dict[str, Any] = {"id": one.id, "package": one.package, "title": one.title, "text": one.text, "dev": int(one.dev)}
    return json.dumps(values, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m retnet_core.distill.handwritten.bring_in", description="Bring hand-written rows and their passages in."
    )
    parser.add_argument("rows", nargs="+", type=Path, metavar="ROWS", help="core-….jsonl or dev-….jsonl")
    parser.add_argument("--passages", nargs="*", default=[], type=Path, metavar="FILE", help="grounded-….jsonl.xz")
    parser.add_argument("--pages", nargs="*", default=[], type=Path, metavar="FILE", help="pages written with the rows")
    parser.add_argument("--leave-out-faulty", action="store_true", help="bring in the other rows of a file with faulty ones")
    given = parser.parse_args()
    try:
        told = bring_in(given.rows, given.passages, given.pages, leave_out=given.leave_out_faulty)
    except (RowError, OSError) as error:
        sys.exit(str(error))
    for line in told:
        print(f"left out: {line}", file=sys.stderr)
    for part in PARTS:
        found = rows(part)
        print(f"{part}: {len(found)} rows; {dict(Counter(row.kind for row in found))}")
    print(f"passages: {len(passages())}, of them for development {sum(one.dev for one in passages().values())}")


if __name__ == "__main__":
    main()

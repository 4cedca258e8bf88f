"""The hand-written questions and the passages they rest on: loading them, and holding each row to its passages.

A row is one question of a visitor with the evidence that answers it, word for word, a short answer, and the facts that any right
answer must contain. The `core` rows are for training and as examples for a writer, the `dev` rows for measuring alone; of these
the half `choose` is for choosing designs and thresholds, the half `report` for what is reported. The README beside this module
tells how they were made.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PASSAGES = "passages.jsonl.xz"

KINDS = ("answerable", "two-passages", "follow-up", "near-miss", "memory", "not-told")
UNANSWERED = ("near-miss", "not-told")
OWN = ("memory", "not-told")
"""Kinds that ask for what the visitor told of themselves; they may rest on no passage."""
LEANING = ("follow-up", *OWN)
"""Kinds whose last message needs the messages before it."""
PARTS = ("core", "dev")
HALVES = ("choose", "report")
OWN_PAGES = "handwritten-pages"
"""The package of the pages that were written by hand together with their rows."""

ID_DIGITS = 10
ANSWER_WORDS = (3, 40)
# Two passages of a package are twins when so large a share of their runs of words is the same: kmail's handbook prints several
# chapters twice, with other marks or a sentence more. At .5 there are passages that share a paragraph and differ in what they tell.
TWIN_SHARE, RUN_WORDS = 0.6, 4

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_QUOTES = {"'": "['’‘]", "’": "['’‘]", "‘": "['’‘]"}


class RowError(ValueError):
    """A file of rows or passages that cannot be used; says which line and why."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of a site. `package` is the site in the measurements; `dev` passages are never trained on."""

    id: str
    package: str
    title: str
    text: str
    dev: bool

    @property
    def whole(self) -> str:
        """What evidence is quoted from: the title, then the text."""
        return f"{self.title}\n{self.text}"


@dataclass(frozen=True, slots=True)
class Row:
    """One question. `turns` are the visitor's messages and the last is the question; `facts` are regular expressions without case."""

    kind: str
    passages: tuple[str, ...]
    turns: tuple[str, ...]
    evidence: tuple[str, ...]
    answer: str
    facts: tuple[str, ...]
    style: tuple[str, ...]
    half: str | None = None

    @property
    def question(self) -> str:
        return self.turns[-1]

    @property
    def id(self) -> str:
        """The same as long as kind, passages and messages are."""
        return _digest("\n".join([self.kind, *self.passages, *self.turns]))

    @property
    def package(self) -> str:
        """The package of its first passage; "" for a row that rests on none."""
        return self.passages[0].partition(":")[0] if self.passages else ""

    def holds_facts(self, text: str) -> bool:
        """Whether `text` contains every fact; True of no facts."""
        return all(re.search(fact, text, re.IGNORECASE) for fact in self.facts)

    def as_json(self) -> str:
        """The row as one line of its file."""
        values = asdict(self)
        if self.half is None:
            del values["half"]
        return json.dumps(values, ensure_ascii=False)


def passage_id(package: str, title: str, text: str) -> str:
    return package + ":" + _digest(f"{title}\n{text}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def row_from(values: Mapping[str, Any], where: str) -> Row:
    """The row of a parsed line. Raises RowError naming `where` when keys are missing, unknown or of another type."""
    names = {"kind", "passages", "turns", "evidence", "answer", "facts", "style"}
    if not isinstance(values, Mapping) or set(values) - {"half"} != names:
        raise RowError(f"{where}: a row has exactly the keys {', '.join(sorted(names))}, and half in dev rows")
    lists = {name: values[name] for name in ("turns", "evidence", "facts", "style")}
    if not all(isinstance(one, list) and all(isinstance(item, str) for item in one) for one in lists.values()):
        raise RowError(f"{where}: turns, evidence, facts and style are lists of texts")
    if not isinstance(values["kind"], str) or not isinstance(values["answer"], str) or not isinstance(values["passages"], list):
        raise RowError(f"{where}: kind and answer are texts, passages is a list")
    return Row(
        values["kind"],
        tuple(map(str, values["passages"])),
        answer=values["answer"],
        half=values.get("half"),
        **{name: tuple(one) for name, one in lists.items()},
    )


def lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(place such as "core-1.jsonl:12", parsed line) of a JSONL file, packed with xz or not. Raises RowError."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield f"{path.name}:{number}", json.loads(line)
                except ValueError as error:
                    raise RowError(f"{path.name}:{number}: no JSON ({error})") from error


@cache
def passages(folder: Path = FOLDER) -> Mapping[str, Passage]:
    """All passages by id, in the order of their file."""
    found = {}
    for where, values in lines(folder / PASSAGES):
        one = Passage(values["id"], values["package"], values["title"], values["text"], bool(values["dev"]))
        if one.id in found:
            raise RowError(f"{where}: the id {one.id} is there twice")
        found[one.id] = one
    return found


@cache
def rows(part: str, half: str | None = None, folder: Path = FOLDER) -> tuple[Row, ...]:
    """The rows of a part, `core` or `dev`, and of one half of `dev` if named, in the order of their files."""
    if part not in PARTS or half not in (None, *HALVES):
        raise RowError(f"There are the parts {PARTS} and, of dev, the halves {HALVES}.")
    found = [row_from(values, where) for path in sorted(folder.glob(f"{part}-*.jsonl")) for where, values in lines(path)]
    return tuple(row for row in found if half is None or row.half == half)


def normalised(text: str) -> str:
    """White space, compatible characters and apostrophes made alike, as the checks compare texts."""
    plain = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'")
    return re.sub(r"\s+", " ", plain).strip()


def span_of(piece: str, text: str) -> tuple[int, int] | None:
    """Where `piece` stands in `text`, whatever the white space and apostrophes; None where it does not."""
    words = ["".join(_QUOTES.get(character, re.escape(character)) for character in word) for word in piece.split()]
    match = re.search(r"\s+".join(words), text) if words else None
    return match.span() if match else None


def faults(row: Row, known: Mapping[str, Passage]) -> list[str]:
    """What is wrong with a row, in sentences; nothing if evidence, facts and numbers are those of its passages."""
    if row.kind not in KINDS:
        return [f"the kind {row.kind!r} is none of {', '.join(KINDS)}"]
    missing = [one for one in row.passages if one not in known]
    found = [f"the passage {one} is not there" for one in missing]
    if not row.turns or not row.question.strip():
        found.append("there is no question")
    if row.kind in LEANING and len(row.turns) < 2:
        found.append("it needs the messages before the question")
    if row.kind not in OWN and not row.passages:
        found.append("it names no passage")
    if found:
        return found
    if row.kind in UNANSWERED:
        return (
            ["what is not answered has neither evidence nor facts nor answer"] if row.evidence or row.facts or row.answer else []
        )
    read = [known[one].whole for one in row.passages]
    if row.kind in OWN:
        read += row.turns[:-1]
    found = [f"the evidence is not verbatim: {piece!r}" for piece in row.evidence if not any(piece in text for text in read)]
    if row.kind == "two-passages":
        both = [any(piece in known[one].whole for piece in row.evidence) for one in row.passages]
        if len(both) != 2 or not all(both):
            found.append("it needs evidence from each of two passages")
    if not row.evidence:
        found.append("there is no evidence")
    return found + _faults_of_answer(row, " ".join(read))


def _faults_of_answer(row: Row, read: str) -> list[str]:
    found = []
    answer, evidence, source = normalised(row.answer), normalised(" ".join(row.evidence)), normalised(read)
    low, high = ANSWER_WORDS
    if not low <= len(answer.split()) <= high:
        found.append(f"the answer has {len(answer.split())} words ({low} to {high})")
    asked = " ".join(row.turns)
    for number in _NUMBER.findall(answer):
        if number not in source and number not in asked:
            found.append(f"the number {number} of the answer is not in the passages")
    if not row.facts:
        found.append("there are no facts")
    for fact in row.facts:
        try:
            for text, name in ((answer, "answer"), (evidence, "evidence")):
                if not re.search(fact, text, re.IGNORECASE):
                    found.append(f"the fact {fact!r} does not match the {name}")
            if re.search(fact, row.question if row.kind in OWN else asked, re.IGNORECASE):
                found.append(f"the fact {fact!r} matches the question")
        except re.error as error:
            found.append(f"the fact {fact!r} is no regular expression: {error}")
    return found


def key(row: Row) -> str:
    """What two rows of one part may not share: the question, or the whole dialogue where the question needs it."""
    return normalised(" / ".join(row.turns) if row.kind in LEANING else row.question).lower()


def twins(known: Sequence[Passage]) -> dict[str, frozenset[str]]:
    """For each passage the ids of those of its package that say the same, itself among them.

    Near-identical means that TWIN_SHARE of all runs of RUN_WORDS words of both are in both (Jaccard; Broder, 1997).
    """
    runs = {one.id: _runs(one.text) for one in known}
    holders: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in known:
        for run in runs[one.id]:
            holders.setdefault((one.package, run), []).append(one.id)
    near: dict[str, set[str]] = {one.id: {one.id} for one in known}
    counts: dict[tuple[str, str], int] = {}
    for ids in holders.values():
        for first in range(len(ids)):
            for second in range(first + 1, len(ids)):
                counts[ids[first], ids[second]] = counts.get((ids[first], ids[second]), 0) + 1
    for (first, second), shared in counts.items():
        if shared >= TWIN_SHARE * (len(runs[first]) + len(runs[second]) - shared):
            near[first].add(second)
            near[second].add(first)
    return {one: frozenset(ids) for one, ids in near.items()}


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[place : place + RUN_WORDS]) for place in range(max(1, len(words) - RUN_WORDS + 1))}

"""The sites that are searched, the questions as they are put to them, and which of a site's passages count as found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from retnet_core.distill.handwritten.rows import Passage, Row, normalised, twins
from workers.answer.query import context
from workers.answer.sentences import split_sentences
from workers.ingest.split import ROW_WORDS

# Another passage that holds the evidence word for word was found as well as the named one, if the evidence has so many words:
# fewer ("It is off by default.") may be said of many things.
EVIDENCE_WORDS = 8
# A table's row as the product writes it into a passage, a line each: "First cell: Column: value; Column: value".
_NAME = r"(?:(?!\.\s|: )[^;\n])"
_COLUMN = rf"[A-Z0-9]{_NAME}{{0,39}}: [^;\n]*"
_ROW = re.compile(rf"^{_NAME}{{1,80}}: {_COLUMN}(?:; {_COLUMN})*$", re.MULTILINE)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Spans [start, end) as ingest makes them: a table's row is one sentence, whatever stops are in it (workers.ingest.split)."""
    spans: list[tuple[int, int]] = []
    prose = 0
    for row in _ROW.finditer(text):
        if len(row.group().split()) <= ROW_WORDS:
            spans += _prose(text, prose, row.start())
            spans.append(row.span())
            prose = row.end()
    return spans + _prose(text, prose, len(text))


def _prose(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [(start + left, start + right) for left, right in split_sentences(text[start:end])]


@dataclass(frozen=True)
class Site:
    """All passages of a package, with their sentences as the product splits them."""

    package: str
    passages: Sequence[Passage]

    @cached_property
    def spans(self) -> list[list[tuple[int, int]]]:
        """[start, end) of the sentences of each passage's text."""
        return [sentence_spans(one.text) for one in self.passages]

    @cached_property
    def twins(self) -> Mapping[str, frozenset[str]]:
        return twins(self.passages)

    @cached_property
    def compared(self) -> list[str]:
        """The passages' texts, white space and apostrophes made alike."""
        return [normalised(one.whole) for one in self.passages]

    def sentences(self, place: int) -> list[str]:
        text = self.passages[place].text
        return [text[start:end] for start, end in self.spans[place]]


@dataclass(frozen=True, slots=True)
class Message:
    """What `workers.answer.query.context` needs of a stored message."""

    text: str
    id: int = 0
    role: str = "visitor"
    reply_to: int | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A row as it is put: its last message, and the earlier ones that it may lean on ("" where there are none)."""

    row: Row
    site: Site
    text: str
    before: str


def sites(known: Iterable[Passage]) -> dict[str, Site]:
    """The development sites by package."""
    grouped: dict[str, list[Passage]] = {}
    for one in known:
        if one.dev:
            grouped.setdefault(one.package, []).append(one)
    return {package: Site(package, found) for package, found in grouped.items()}


def questions(rows: Iterable[Row], found: Mapping[str, Site]) -> list[Question]:
    """The rows that ask a site: those of memory alone rest on no passage and are left out."""
    asked = []
    for row in rows:
        if row.passages:
            before = context([Message(turn) for turn in row.turns[:-1]])  # type: ignore[arg-type]
            asked.append(Question(row, found[row.package], row.question, before))
    return asked


def gold(question: Question) -> list[frozenset[int]]:
    """For each passage of the row the places in its site of those that count as that passage: itself, and what says the same."""
    row, site = question.row, question.site
    place = {one.id: number for number, one in enumerate(site.passages)}
    counted = []
    for one in row.passages:
        found = {place[same] for same in site.twins[one]}
        whole = site.compared[place[one]]
        evidence = [piece for piece in map(normalised, row.evidence) if piece in whole]
        if sum(len(piece.split()) for piece in evidence) >= EVIDENCE_WORDS:
            found |= {number for number, text in enumerate(site.compared) if all(piece in text for piece in evidence)}
        counted.append(frozenset(found))
    return counted

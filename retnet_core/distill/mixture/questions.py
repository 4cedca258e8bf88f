"""What grounded turns are made of: questions with the passages they rest on, from hand-written rows, kept pairs and older pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from retnet_core.distill import DistillError
from retnet_core.distill.handwritten.rows import OWN, Passage, Row, passage_id
from retnet_core.distill.writer.files import records
from retnet_core.distill.writer.samples import Sentences, places_of


@dataclass(frozen=True, slots=True)
class Question:
    """`gold`: (number of the passage in `passages`, number of its sentence) of what answers, none where nothing does.

    `answer` is None where it is not known. `before`: the visitor's earlier messages, oldest first.
    """

    text: str
    before: tuple[str, ...]
    passages: tuple[str, ...]
    gold: tuple[tuple[int, int], ...]
    answer: str | None
    weight: float


class Library:
    """Passages by id, cut into sentences when first needed, and who stands beside whom on a site."""

    def __init__(self, known: Mapping[str, Passage], sentences: Sentences, *, dev: bool = False) -> None:
        self.known, self._spans = known, sentences
        self._packages: dict[str, list[str]] = defaultdict(list)
        self._places: dict[str, int] = {}
        for one in known.values():
            if one.dev == dev:
                self._places[one.id] = len(self._packages[one.package])
                self._packages[one.package].append(one.id)
        self.ids = list(self._places)
        if not self.ids:
            raise DistillError("there are no passages to draw from: name the files that `data` gathered as passages")
        self.sentences = lru_cache(maxsize=20000)(self._cut)

    def _cut(self, one: str) -> tuple[str, ...]:
        text = self.known[one].text
        return tuple(text[start:end] for start, end in self._spans(text))

    def title(self, one: str) -> str:
        return self.known[one].title

    def beside(self, one: str, distance: int) -> str:
        """The passage so far on in its package, round to the beginning."""
        package = self._packages.get(self.known[one].package) or self.ids
        return package[(self._places.get(one, 0) + distance) % len(package)]


def from_rows(rows: Sequence[Row], library: Library, weight: float) -> list[Question]:
    """The hand-written rows that rest on passages and ask nothing of the visitor's own."""
    found = []
    for row in rows:
        if row.kind in OWN or not row.passages:
            continue
        passages = [library.known[one] for one in row.passages]
        gold = _counted_apart(places_of(row, passages, library._spans), row.passages, library)
        # Evidence that is a title names no sentence.
        if bool(row.evidence) == bool(gold):
            found.append(Question(row.question, row.turns[:-1], row.passages, gold, row.answer or None, weight))
    return found


def from_pairs(path: Path, library: Library, weight: float) -> list[Question]:
    """The pairs that `keep` wrote. Raises `DistillError` for a file that holds none, or one whose passages are not known."""
    found = []
    for number, record in enumerate(records(path, "file of pairs"), start=1):
        ids = tuple(record["passages"])
        if missing := [one for one in ids if one not in library.known]:
            raise DistillError(
                f"{path}, line {number}: the passage {missing[0]} is missing: name the passages and pages of `keep`"
            )
        gold = _counted_apart(record["at"], ids, library) if len(ids) > 1 else tuple((0, place) for place in record["at"])
        before = (record["before"],) if record.get("before") else ()
        found.append(Question(record["q"], before, ids, gold, record.get("a"), weight))
    return found


def _counted_apart(places: Sequence[int], ids: Sequence[str], library: Library) -> tuple[tuple[int, int], ...]:
    """Places counted through the passages, as (passage, sentence)."""
    found, first = [], 0
    for number, one in enumerate(ids):
        length = len(library.sentences(one))
        found += [(number, place - first) for place in places if first <= place < first + length]
        first += length
    return tuple(found)


def older_passages(paths: Sequence[Path]) -> Iterator[Passage]:
    """The passages of files in which the pairs stand with their passage ("qa"); development passages are left out."""
    for path in paths:
        for record in records(path, "file of older pairs"):
            if not record["dev"]:
                yield Passage(
                    passage_id(record["pkg"], record["title"], record["text"]),
                    record["pkg"],
                    record["title"],
                    record["text"],
                    False,
                )


def from_older(paths: Sequence[Path], library: Library, weight: float) -> list[Question]:
    """The stricter half of such pairs. The sentence that answers is not known there: the one that shares most words with the answer."""
    found = []
    for path in paths:
        for record in records(path, "file of older pairs"):
            if record["dev"]:
                continue
            one = passage_id(record["pkg"], record["title"], record["text"])
            for pair in record["qa"]:
                if not pair["hq"] or "f" in pair:
                    continue
                answer = set(content(pair["a"]))
                scores = [len(answer & set(content(sentence))) for sentence in library.sentences(one)]
                best = max(scores, default=0)
                if 2 * best >= len(answer) > 0:
                    found.append(Question(pair["q"], (), (one,), ((0, scores.index(best)),), pair["a"], weight))
    return found


_STOP_TABLE = """
    a an the of to in is are and or that this it for on with as be by can if you not from at will which your when has have was but do does did how
    what why where who i my me we our they there then than so its use used
"""
_STOP = frozenset(_STOP_TABLE.split())


def content(text: str) -> list[str]:
    """Words that tell, in lower case, their plural's s cut off."""
    words = "".join(character if character.isalnum() else " " for character in text.lower()).split()
    return [word.rstrip("s") if len(word) > 3 else word for word in words if word not in _STOP]

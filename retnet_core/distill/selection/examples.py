"""Questions to learn finding from: hand-written rows and kept pairs, with the passages and sentences that answer, and passages that do not."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retnet_core.distill import DistillError
from retnet_core.distill.handwritten.rows import OWN, Passage, Row
from retnet_core.distill.writer.files import records
from retnet_core.distill.writer.samples import Sentences, places_of

HANDWRITTEN_WEIGHT = 4.0


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `answers` names the passages that answer and their sentences that do; a question without any is a near-miss of `near`."""

    text: str
    before: str
    answers: tuple[tuple[str, tuple[int, ...]], ...]
    near: tuple[str, ...]
    weight: float = 1.0

    @property
    def joined(self) -> str:
        """With the message before it, as a follow-up is read."""
        return f"{self.before} {self.text}".strip()


def from_rows(rows: Sequence[Row], known: Mapping[str, Passage], sentences: Sentences) -> list[Question]:
    """Of the hand-written rows, those that rest on passages."""
    found = []
    for row in rows:
        if row.kind in OWN or not row.passages:
            continue
        before = " ".join(row.turns[:-1]) if row.kind == "follow-up" else ""
        answers = []
        for one in row.passages:
            places = places_of(row, [known[one]], sentences)
            if places:
                answers.append((one, places))
        if bool(row.evidence) == bool(answers):
            found.append(Question(row.question, before, tuple(answers), row.passages, HANDWRITTEN_WEIGHT))
    return found


def from_pairs(path: Path, known: Mapping[str, Passage], sentences: Sentences) -> list[Question]:
    """Of the pairs that `keep` wrote. Places count through the pair's passages.

    Raises `DistillError` for a file that holds no pairs, and for a pair that rests on a passage which is not known.
    """
    found = []
    for number, record in enumerate(records(path, "file of pairs"), start=1):
        try:
            found.append(_question(record, known, sentences))
        except KeyError as error:
            raise DistillError(
                f"{path}, line {number}: {error} is missing: name the same passages and written pages as for `keep`"
            ) from None
    return found


def _question(record: Mapping[str, Any], known: Mapping[str, Passage], sentences: Sentences) -> Question:
    passages = [known[one] for one in record["passages"]]
    first = len(sentences(passages[0].text)) if len(passages) > 1 else 0
    answers: dict[str, list[int]] = {}
    for place in record["at"]:
        second = len(passages) > 1 and place >= first
        answers.setdefault(passages[second].id, []).append(place - first if second else place)
    return Question(
        record["q"],
        record.get("before", ""),
        tuple((one, tuple(places)) for one, places in answers.items()),
        tuple(one.id for one in passages),
    )


class Neighbours:
    """Passages that do not answer a question but might seem to: of the same package, near in the order of its pages or by likeness."""

    def __init__(self, known: Mapping[str, Passage]) -> None:
        self._packages: dict[str, list[str]] = defaultdict(list)
        self._places: dict[str, int] = {}
        for one in known.values():
            if not one.dev:
                self._places[one.id] = len(self._packages[one.package])
                self._packages[one.package].append(one.id)
        self._everything = list(self._places)

    def draw(self, question: Question, count: int, shuffled: random.Random, alike: Sequence[str] = ()) -> list[str]:
        """`count` passages: first some of `alike`, then neighbours on the page, then any of the package, then any."""
        own = {one for one, _ in question.answers} | set(question.near)
        found: list[str] = []

        def take(one: str) -> None:
            if one not in own and one not in found:
                found.append(one)

        for one in shuffled.sample(list(alike), min(len(alike), count)):
            if len(found) < count:
                take(one)
        package = self._packages[question.near[0].partition(":")[0]] if question.near else self._everything
        tries = 0
        while len(found) < count and tries < 50:
            tries += 1
            if len(package) > 4 and shuffled.random() < 0.6:
                place = self._places.get(question.near[0], 0) + shuffled.choice((-3, -2, -1, 1, 2, 3))
                take(package[place % len(package)])
            else:
                take(shuffled.choice(package if len(package) > 8 else self._everything))
        return found

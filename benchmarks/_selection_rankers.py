"""Encoder and reader as the product uses them, as rankers of the report card:

    python -m benchmarks.report_card selection --ranker minilm --ranker benchmarks._selection_rankers:shipped

RETORT_SELECTION names another folder than `retnet_core/weights/selection/`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.report_card.rankers import Asked, Occurrences, Picked, Product, Vectors
from workers.answer.retrieve import LIMIT, READ
from workers.answer.select import PassageCandidate, grounds, select, sentence_scores
from workers.encoder import Encoder
from workers.reader import Page, Reader

FOLDER, CACHE = "RETORT_SELECTION", "RETORT_VECTORS"


class Shipped(Product):
    """Hybrid search, the reader on the best, then the product's scores; without a reader what is found by vectors and words."""

    def __init__(self, name: str, vectors: Vectors, reader: Reader | None) -> None:
        super().__init__(name, vectors, Occurrences())
        self._reader = reader
        self._last: tuple[Asked, dict[int, PassageCandidate]] | None = None

    def passage_scores(self, asked: Asked) -> np.ndarray:
        """Those read by what selection makes of them; the others keep the search's order below."""
        found = self._candidates(asked)
        scores = super().passage_scores(asked)
        scores = scores - scores.max() - 1e3
        for place, ground in zip(found, grounds(list(found.values())), strict=True):
            if found[place].reads is not None or self._reader is None:
                scores[place] = ground
        return scores

    def sentence_scores(self, asked: Asked, places: Sequence[int]) -> list[np.ndarray]:
        found = self._candidates(asked)
        scores = sentence_scores(self.vector(asked), list(found.values()), question=asked.text)
        by_place = dict(zip(found, scores, strict=True))
        return [by_place.get(place, np.full(len(asked.question.site.spans[place]), -1e3)) for place in places]

    def answerability(self, asked: Asked, places: Sequence[int]) -> float:
        """The best log-odds of the reader; without one what the first gate looks at."""
        reads = [one.reads for one in self._candidates(asked).values() if one.reads is not None]
        return max(reads) if reads else super().answerability(asked, places)

    def selected(self, asked: Asked, ranked: Sequence[int], scores: np.ndarray) -> Picked:
        chosen = select(self.vector(asked), list(self._candidates(asked).values()), question=asked.text).sentences
        return [(int(str(one.passage_id)), one.text) for one in chosen]

    def _candidates(self, asked: Asked) -> dict[int, PassageCandidate]:
        """By place, as the product makes them, best of the search first."""
        if self._last is not None and self._last[0].question is asked.question and self._last[0].joined == asked.joined:
            return self._last[1]
        site, cosines, fused = asked.question.site, self.cosines(asked), super().passage_scores(asked)
        sentences = self._site(site)[1]
        found: dict[int, PassageCandidate] = {}
        for place in map(int, np.argsort(-fused, kind="stable")[:LIMIT]):
            one = site.passages[place]
            found[place] = PassageCandidate(
                place, one.title, [], one.text, site.spans[place], sentences[place], max(float(fused[place]), 0.0),
                float(cosines[place]),
            )  # fmt: skip
        if self._reader is not None:
            read = list(found)[:READ]
            pages = [Page(found[place].title, found[place].text, found[place].spans) for place in read]
            for place, reading in zip(read, self._reader.read(asked.text, pages), strict=True):
                found[place] = replace(found[place], reads=reading.passage, sentence_reads=reading.sentences)
        self._last = asked, found
        return found


def _vectors(folder: Path | None) -> Vectors:
    encoder = Encoder.load(1, bulk=True, folder=folder)
    cache = os.environ.get(CACHE)
    return Vectors("tuned MiniLM", encoder.encode, cache=Path(cache) if cache else None, fingerprint=encoder.fingerprint)


def _folder() -> Path | None:
    given = os.environ.get(FOLDER)
    return Path(given) if given else None


def encoder() -> Vectors:
    """The encoder's vectors alone."""
    return _vectors(_folder())


def shipped() -> Shipped:
    """Search, reader and selection together."""
    return Shipped("encoder + reader", _vectors(_folder()), Reader.load(folder=_folder()))


def unread() -> Shipped:
    """The same without the reader."""
    return Shipped("encoder, product", _vectors(_folder()), None)

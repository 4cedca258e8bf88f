"""What one ranker made of one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.report_card.rankers import PASSAGES, Asked, Picked, Ranker
from benchmarks.report_card.sites import Question, gold
from retnet_core.distill.handwritten.rows import UNANSWERED, Row

FEW, SEVERAL = 2, 4
"""Sentences of evidence, as the report card counts them."""


@dataclass(slots=True)
class Outcome:
    """Ranks count from 1. `facts` is None for a row without facts, `facts["product"]` for a ranker that the product cannot use."""

    row: Row
    joined: bool
    first: int  # rank of the first gold passage
    last: int  # rank at which all gold passages were there; the same as `first` where there is one
    answerability: float
    facts: dict[str, bool | None] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    best: list[str] = field(default_factory=list)  # ids of the best passages
    sentences: Picked = field(default_factory=list)  # the best SEVERAL

    @property
    def answerable(self) -> bool:
        return self.row.kind not in UNANSWERED


def outcome(ranker: Ranker, question: Question) -> Outcome:
    """Search, rank, select and weigh as `ranker` does."""
    row, site = question.row, question.site
    asked = Asked(question, ranker.joins(question))
    scores = np.asarray(ranker.passage_scores(asked))
    ranked = [int(place) for place in np.argsort(-scores, kind="stable")]
    rank = {place: number for number, place in enumerate(ranked, start=1)}
    golds = [min(rank[place] for place in places) for places in gold(question)]
    best = ranked[:PASSAGES]
    sentences = best_sentences(ranker, asked, best)
    found = Outcome(row, asked.joined, min(golds), max(golds), ranker.answerability(asked, best))
    found.best, found.sentences = [site.passages[place].id for place in best], sentences
    picked = {"two": sentences[:FEW], "four": sentences, "product": ranker.selected(asked, ranked, scores)}
    for name, chosen in picked.items():
        if chosen is not None:
            shown = " ".join(text for _, text in chosen)
            found.words[name] = len(shown.split())
            # What the visitor told is known to the reader without evidence.
            read = " ".join([shown, *row.turns[:-1]]) if row.kind == "memory" else shown
            found.facts[name] = row.holds_facts(read) if row.facts else None
    return found


def best_sentences(ranker: Ranker, asked: Asked, places: Sequence[int]) -> Picked:
    """The SEVERAL best sentences of these passages, best first, each text once."""
    scored = [
        (float(score), place, sentence)
        for place, scores in zip(places, ranker.sentence_scores(asked, places), strict=True)
        for score, sentence in zip(scores, asked.question.site.sentences(place), strict=True)
    ]
    chosen: Picked = []
    for _, place, sentence in sorted(scored, key=lambda one: -one[0]):
        if sentence not in [text for _, text in chosen]:
            chosen.append((place, sentence))
        if len(chosen) == SEVERAL:
            break
    return chosen

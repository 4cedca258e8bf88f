"""Which sentences a grounded turn shows: what answers together with what merely looks like it, as selection would give them.

At run time selection is right in only half to two thirds of the questions. So the sentences that answer are shown with others of the same
passage and of passages beside it, and are sometimes missing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from retnet_core.distill.mixture.questions import Library, Question, content

SENTENCES = 4
WORDS = 110
"""As the product's budget (90 words) with the best sentence whole."""
LOOKED_AT = 3
"""Passages beside the question's own that distracting sentences come from."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Passages as (title, text) in the order of their numbers, and the number of the one that answers; 0: none does."""

    passages: list[tuple[str, str]]
    number: int


def shown(
    question: Question,
    library: Library,
    drawn: random.Random,
    *,
    missing: float = 0.2,
    alone: float = 0.25,
    elsewhere: bool = False,
) -> Shown:
    """Evidence for a question. `missing`: how often what answers is left out; `alone`: how often it stands alone; `elsewhere`: only sentences
    of other passages, whatever the question."""
    gold = list(question.gold)[:SENTENCES]
    if gold and (elsewhere or drawn.random() < missing):
        gold = []
    chosen = {(question.passages[passage], sentence) for passage, sentence in gold}
    left = 0 if gold and drawn.random() < alone else drawn.randint(1, SENTENCES) - len(chosen)
    if not gold:
        left = drawn.randint(1, SENTENCES)
    avoided = {(question.passages[passage], sentence) for passage, sentence in question.gold}
    words = sum(_words(library, one) for one in chosen)
    for one in _distracting(question, library, drawn, avoided, elsewhere):
        if left <= 0 or len(chosen) == SENTENCES:
            break
        if chosen and words + _words(library, one) > WORDS:
            continue
        chosen.add(one)
        words += _words(library, one)
        left -= 1
    return _laid_out(question, library, drawn, chosen, {(question.passages[passage], sentence) for passage, sentence in gold})


def _words(library: Library, one: tuple[str, int]) -> int:
    return len(library.sentences(one[0])[one[1]].split())


def _distracting(
    question: Question, library: Library, drawn: random.Random, avoided: set[tuple[str, int]], elsewhere: bool
) -> list[tuple[str, int]]:
    """Sentences that do not answer, those that share words with the question first, as selection finds them; some at random."""
    passages = [] if elsewhere else list(question.passages)
    for _ in range(LOOKED_AT + elsewhere):
        near = drawn.random() < 0.75
        other = library.beside(question.passages[0], drawn.choice((-3, -2, -1, 1, 2, 3))) if near else drawn.choice(library.ids)
        if other not in question.passages and other not in passages:
            passages.append(other)
    asked = set(content(question.text))
    scored = []
    for one in passages:
        own = one in question.passages
        for place, sentence in enumerate(library.sentences(one)):
            if (one, place) in avoided or len(sentence) < 12:
                continue
            shared = len(asked & set(content(sentence)))
            scored.append((shared + 0.7 * own + drawn.random() * 2.5, one, place))
    return [(one, place) for _, one, place in sorted(scored, reverse=True)]


def _laid_out(
    question: Question, library: Library, drawn: random.Random, chosen: set[tuple[str, int]], gold: set[tuple[str, int]]
) -> Shown:
    """Sentences of a passage in the order of the page; the passage that looks best stands first, which often is the right one."""
    ids = sorted({one for one, _ in chosen})
    drawn.shuffle(ids)
    answering = {one for one, _ in gold}
    if answering and drawn.random() < 0.5:
        ids.sort(key=lambda one: one not in answering)
    passages = []
    for one in ids:
        places = sorted(place for other, place in chosen if other == one)
        passages.append((library.title(one), " ".join(library.sentences(one)[place] for place in places)))
    number = next((place for place, one in enumerate(ids, start=1) if one in answering), 0)
    return Shown(passages, number)

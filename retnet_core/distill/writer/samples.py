"""Hand-written rows as samples to tune the writer on: writing questions, placing them, writing pages and conversations."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from retnet_core.distill.handwritten.rows import OWN, OWN_PAGES, Passage, Row, span_of
from retnet_core.distill.writer.tasks import (
    LETTERS,
    NONE,
    STYLES,
    Ask,
    Page,
    Pair,
    answer_text,
    conversation_answer,
    conversation_text,
    new_page_answer,
    new_page_text,
    page_text,
    read_text,
    write_text,
)

# The spans of the sentences of a text, as the product cuts them.
Sentences = Callable[[str], Sequence[tuple[int, int]]]
# A page is asked for at most so many things at once.
ASKS = 5
# Of a reading sample's kinds: a question with the page that answers, with a neighbour that does not, a near-miss.
NEIGHBOURS = 2
READING_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt (its page first, then what is asked, so that several can share the page) and what is to be written."""

    page: str
    asked: str
    target: str
    weight: float = 1.0


def page_of(passages: Sequence[Passage], sentences: Sentences) -> Page | None:
    """The page, or None if it has more sentences than there are letters."""
    parts = tuple(
        (one.title, tuple(" ".join(one.text[start:end].split()) for start, end in sentences(one.text))) for one in passages
    )
    page = Page(parts)
    return page if page.fits() else None


def places_of(row: Row, passages: Sequence[Passage], sentences: Sentences) -> tuple[int, ...]:
    """The sentences, counted through the row's passages, that its evidence touches; evidence that is a title is left out."""
    found: set[int] = set()
    before = 0
    for passage in passages:
        spans = sentences(passage.text)
        for piece in row.evidence:
            if (span := span_of(piece, passage.text)) is not None:
                found |= {before + place for place, (start, end) in enumerate(spans) if start < span[1] and span[0] < end}
        before += len(spans)
    return tuple(sorted(found))


def texts(rows: Sequence[Row], known: Mapping[str, Passage], sentences: Sentences, seed: int = 0) -> list[Text]:
    """All samples that `rows` give."""
    shuffled = random.Random(seed)
    pairs: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    found: list[Text] = []
    for row in rows:
        if row.kind in OWN:
            if not row.passages:
                found.append(
                    Text("", conversation_text(len(row.turns), bool(row.answer)), conversation_answer(row.turns, row.answer))
                )
            continue
        passages = [known[one] for one in row.passages]
        if page_of(passages, sentences) is None:
            continue
        places = places_of(row, passages, sentences)
        if row.evidence and not places:
            continue
        styles = tuple(style for style in row.style if style in STYLES)
        ask = Ask(places, styles, row.kind == "follow-up")
        before = " / ".join(row.turns[:-1]) if row.kind == "follow-up" else ""
        pairs[row.passages].append(Pair(ask, row.question, row.answer, before))
    for ids, own in pairs.items():
        page = page_of([known[one] for one in ids], sentences)
        assert page is not None
        shuffled.shuffle(own)
        for start in range(0, len(own), ASKS):
            part = own[start : start + ASKS]
            # Whoever asks lists what the page does not say last.
            part.sort(key=lambda pair: not pair.ask.places)
            found.append(Text(page_text(page), write_text([pair.ask for pair in part]), answer_text(part), float(len(part))))
    found += _readings(pairs, known, sentences, shuffled)
    found += _pages(known)
    shuffled.shuffle(found)
    return found


def _readings(
    pairs: Mapping[tuple[str, ...], list[Pair]], known: Mapping[str, Passage], sentences: Sentences, shuffled: random.Random
) -> list[Text]:
    """Each question with its page, and each answered one with pages of the same package that do not answer it."""
    single: dict[str, list[str]] = defaultdict(list)
    for ids in pairs:
        if len(ids) == 1:
            single[known[ids[0]].package].append(ids[0])
    found = []
    for ids, own in pairs.items():
        page = page_of([known[one] for one in ids], sentences)
        assert page is not None
        others = [one for one in single[known[ids[0]].package] if one not in ids]
        for pair in own:
            asked = read_text(pair.question, pair.before)
            label = LETTERS[pair.ask.places[0]] if pair.ask.places else NONE
            found.append(Text(page_text(page), asked, f" {label}", READING_WEIGHT))
            if not pair.ask.places:
                continue
            near = _nearest(pair.question, others, known) if len(others) > NEIGHBOURS else others
            for one in near[:NEIGHBOURS]:
                elsewhere = page_of([known[one]], sentences)
                assert elsewhere is not None
                if shuffled.random() < 0.5:
                    found.append(Text(page_text(elsewhere), asked, f" {NONE}", READING_WEIGHT))
    return found


def _nearest(question: str, ids: Sequence[str], known: Mapping[str, Passage]) -> list[str]:
    """`ids` by how many of the question's longer words their text has, most first."""
    words = {word for word in re.findall(r"\w{4,}", question.lower())}
    return sorted(ids, key=lambda one: -sum(word in known[one].whole.lower() for word in words))


def _pages(known: Mapping[str, Passage]) -> list[Text]:
    """The pages that were written by hand, by kind of website, topic and form."""
    found = []
    for one in known.values():
        if one.package != OWN_PAGES or one.dev:
            continue
        name, _, topic = one.title.partition(": ")
        found.append(Text("", new_page_text(name, topic or name, form_of(one.text)), new_page_answer(one.title, one.text)))
    return found


def form_of(text: str) -> str:
    """Whether a text is a table, a list or prose, by its lines."""
    lines = text.split("\n")
    rows = sum(line.count(": ") >= 2 and ";" in line for line in lines)
    if rows >= 3:
        return "table"
    return "list" if len(lines) >= 5 else "prose"

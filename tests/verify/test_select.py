"""Which sentences are quoted: few, verbatim, understandable, in reading order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.answer.select import PassageCandidate, select
from workers.answer.sentences import split_sentences

SIZE = 384
QUESTION = np.eye(SIZE, dtype=np.float32)[0]


def vector(cosine: float, axis: int) -> np.ndarray:
    """A normalised vector with the given cosine to QUESTION, its rest along `axis`."""
    made = np.zeros(SIZE, dtype=np.float32)
    made[0], made[axis] = cosine, np.sqrt(1 - cosine**2)
    return made


def passage(name: str, text: str, cosines: list[float], score: float = 1.0, title: str = "Page") -> PassageCandidate:
    spans = split_sentences(text)
    assert len(spans) == len(cosines)
    axis = sum(map(ord, name)) % 97 + 1
    vectors = np.stack([vector(cosine, axis + 3 * index) for index, cosine in enumerate(cosines)])
    return PassageCandidate(name, title, [], text, spans, vectors.astype(np.float16), score, max(cosines))


def texts(*candidates: PassageCandidate, question: str = "", **limits: int) -> list[str]:
    return [sentence.text for sentence in select(QUESTION, candidates, question=question, **limits).sentences]


def test_the_nearest_sentence_is_chosen_and_far_ones_are_not():
    found = texts(passage("a", "Bread is baked at six. The oven was built in 1920. We sell stamps.", [0.8, 0.1, 0.1]))
    assert found == ["Bread is baked at six."]


def test_a_sentence_that_refers_back_brings_the_one_before():
    found = texts(
        passage("a", "The tower clock is wound daily. It stops after two days. Tea is served.", [0.3, 0.8, 0.0]),
        limit_sentences=2,
    )
    assert found == ["The tower clock is wound daily.", "It stops after two days."]


def test_a_sentence_that_announces_brings_the_one_after():
    found = texts(passage("a", "Bring the following:\nA towel and soap.\nDogs stay outside.", [0.8, 0.2, 0.2]), limit_sentences=2)
    assert found == ["Bring the following:", "A towel and soap."]


def test_a_sentence_is_quoted_once_though_two_pages_have_it():
    one = passage("a", "The pool opens at seven every day.", [0.8])
    assert texts(one, passage("b", "The pool opens at seven every day.", [0.79])) == ["The pool opens at seven every day."]


def test_the_word_budget_holds_but_the_best_sentence_stays_whole():
    long = "The key " + "very " * 40 + "old one is here."
    assert texts(passage("a", f"{long} The lock is new today.", [0.8, 0.79]), word_budget=20) == [long]
    short = passage("a", "The key is old. The lock is new. The door is red.", [0.8, 0.79, 0.78])
    assert len(texts(short, word_budget=8)) == 2


def test_words_of_the_question_decide_between_equals():
    candidate = passage("a", "Trams run hourly on weekends. Ferries run hourly on weekends.", [0.5, 0.5])
    assert texts(candidate, question="ferries at night", limit_sentences=1) == ["Ferries run hourly on weekends."]


def test_nothing_comes_of_nothing():
    selection = select(QUESTION, [], question="anything")
    assert selection.sentences == []
    assert set(selection.features.values()) <= {0.0, 0.1}  # the question's own length aside
    assert selection.features["best_cosine"] == 0.0


WORDS = ("It", "This", "bread", "oven", "key:", "opens", "closes", "daily.", "now?", "the", "and")
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=25)


@given(st.lists(st.tuples(words, st.floats(0.1, 1)), max_size=5), st.integers(1, 4), st.integers(5, 90), st.randoms())
def test_sentences_are_verbatim_few_and_in_reading_order(pages, limit, budget, random):
    candidates = []
    for number, (said, score) in enumerate(pages):
        text = " ".join(said)
        cosines = [random.uniform(-0.5, 0.95) for _ in split_sentences(text)]
        candidates.append(passage(f"p{number}", text, cosines, score))
    chosen = select(QUESTION, candidates, question="when does the oven open", limit_sentences=limit, word_budget=budget)
    by_name = {candidate.passage_id: candidate for candidate in candidates}
    assert bool(chosen.sentences) == bool(candidates)
    assert len(chosen.sentences) <= limit
    assert len({(each.passage_id, each.index) for each in chosen.sentences}) == len(chosen.sentences)
    if len(chosen.sentences) > 1:
        assert sum(len(each.text.split()) for each in chosen.sentences) <= budget
    places = [(each.passage_id, each.index) for each in chosen.sentences]
    for name in {name for name, _ in places}:
        mine = [index for other, index in places if other == name]
        assert mine == sorted(mine)
    for each in chosen.sentences:
        assert by_name[each.passage_id].text[each.start : each.end] == each.text
    assert all(np.isfinite(value) for value in chosen.features.values())


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_vectors_may_be_stored_small(kind):
    candidate = passage("a", "Bread is baked at six.", [0.8])
    smaller = PassageCandidate(
        "a", "Page", [], candidate.text, candidate.spans, candidate.vectors.astype(kind), candidate.score, candidate.cosine
    )
    assert select(QUESTION, [smaller], question="").features["best_cosine"] == pytest.approx(0.8, abs=0.002)

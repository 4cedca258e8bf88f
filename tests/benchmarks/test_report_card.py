"""The measurement of selection: what counts as found, what it computes, and how rankers take part."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from benchmarks.report_card.measures import area, measured, refused
from benchmarks.report_card.outcomes import outcome
from benchmarks.report_card.rankers import Asked, Bm25, Hybrid, Occurrences, Ranker, Reranked, Summed, Vectors, Words
from benchmarks.report_card.selection import Unknown, rankers, report_rows
from benchmarks.report_card.sites import Question, Site, gold, questions, sentence_spans
from retnet_core.distill.handwritten.rows import Passage, Row

TICKETS = Passage("zoo:1", "zoo", "Zoo: tickets", "A ticket costs 12 €. Children under six are free. The shop is near.", True)
AGAIN = Passage("zoo:2", "zoo", "Zoo: prices", "A ticket costs 12 €. Children under six are free. The shop is near.", True)
HOURS = Passage(
    "zoo:3", "zoo", "Zoo: hours", "Gates open at nine. In winter the gates open at ten and close at four in the afternoon.", True
)
HOURS_TOO = Passage(
    "zoo:4",
    "zoo",
    "Zoo: winter",
    "Wear boots. In winter the gates open at ten and close at four in the afternoon. Tea is served.",
    True,
)
ZOO = Site("zoo", (TICKETS, AGAIN, HOURS, HOURS_TOO))


def _row(kind: str = "answerable", **more: object) -> Row:
    values = {
        "passages": ("zoo:1",), "turns": ("what do i pay to get in",), "evidence": ("A ticket costs 12 €.",),
        "answer": "A ticket costs 12 €.", "facts": ("12",), "style": (),
    }  # fmt: skip
    return Row(kind, **{**values, **more})  # type: ignore[arg-type]


class Fixed(Ranker):
    """Scores as given: of the passages, and for each passage of its sentences."""

    def __init__(self, scores: Sequence[float], sentences: Sequence[Sequence[float]], name: str = "fixed") -> None:
        self.name, self._scores, self._sentences = name, np.array(scores), [np.array(one) for one in sentences]

    def joins(self, question: Question) -> bool:
        return False

    def passage_scores(self, asked: Asked) -> np.ndarray:
        return self._scores

    def sentence_scores(self, asked: Asked, places: Sequence[int]) -> list[np.ndarray]:
        return [self._sentences[place] for place in places]


SENTENCES = ([3, 1, 0], [3, 1, 0], [2, 0], [0, 2, 1])


def _asked(row: Row) -> Question:
    (question,) = questions([row], {"zoo": ZOO})
    return question


def test_a_row_of_a_table_is_one_sentence_and_prose_is_split():
    text = "We teach.\nL3 Pressing: Date: 20 June; Tutor: Dr I. Fenn; Fee: £32. Cash.\nNote: bring a pen. Doors: at nine.\nPets: Allowed: no. None"
    assert [text[start:end] for start, end in sentence_spans(text)] == [
        "We teach.", "L3 Pressing: Date: 20 June; Tutor: Dr I. Fenn; Fee: £32. Cash.", "Note: bring a pen.", "Doors: at nine.",
        "Pets: Allowed: no. None",
    ]  # fmt: skip


def test_a_passage_that_says_the_same_is_found_as_well():
    assert gold(_asked(_row())) == [{0, 1}]  # its twin
    winter = _row(passages=("zoo:3",), evidence=("In winter the gates open at ten and close at four in the afternoon.",))
    assert gold(_asked(winter)) == [{2, 3}]  # another one that holds the evidence word for word
    assert gold(_asked(replace(winter, evidence=("Gates open at nine.",)))) == [{2}]


def test_the_rank_is_that_of_the_first_and_of_the_last_gold_passage():
    both = _row("two-passages", passages=("zoo:1", "zoo:3"), evidence=("A ticket costs 12 €.", "Gates open at nine."))
    found = outcome(Fixed([0, 4, 1, 2], SENTENCES), _asked(both))
    assert (found.first, found.last) == (1, 3)


def test_facts_are_looked_for_in_the_best_sentences_of_the_best_passages():
    row = _row(facts=("12", "nine"))
    found = outcome(Fixed([4, 3, 2, 1], SENTENCES), _asked(row))
    assert [text for _, text in found.sentences] == [
        "A ticket costs 12 €.", "Gates open at nine.",
        "In winter the gates open at ten and close at four in the afternoon.", "Children under six are free.",
    ]  # fmt: skip
    assert found.facts == {"two": True, "four": True} and found.words["two"] == 9
    assert outcome(Fixed([4, 3, 2, 1], SENTENCES), _asked(_row(facts=("under six",)))).facts == {"two": False, "four": True}
    assert outcome(Fixed([4, 3, 2, 1], SENTENCES), _asked(_row("near-miss", facts=()))).facts == {"two": None, "four": None}


def test_what_the_visitor_told_needs_no_evidence():
    told = _row("memory", turns=("i am 5", "do i pay 12 then"), facts=("i am 5", "free"))
    assert outcome(Fixed([4, 3, 2, 1], ([0, 3, 0], *SENTENCES[1:])), _asked(told)).facts["two"] is True
    assert outcome(Fixed([4, 3, 2, 1], SENTENCES), _asked(replace(told, kind="follow-up"))).facts["four"] is False


def test_a_memory_row_without_a_passage_asks_no_site():
    assert questions([_row("memory", passages=())], {"zoo": ZOO}) == []


def test_earlier_messages_lead_a_follow_up_as_in_the_product():
    row = _row("follow-up", turns=("how much is a ticket for the zoo", "and for kids?"))
    assert _asked(row).before == "how much is a ticket for the zoo"


scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=20)


@given(scores, scores)
def test_the_area_is_the_one_of_the_reference(yes: list[float], no: list[float]):
    truth = roc_auc_score([1] * len(yes) + [0] * len(no), yes + no)
    assert area(np.array(yes), np.array(no)) == pytest.approx(truth)


def test_near_misses_are_refused_at_the_threshold_that_refuses_a_tenth():
    yes = np.arange(101.0)  # a tenth lies below 10
    assert refused(yes, np.array([0.0, 9.0, 10.0, 50.0])) == pytest.approx(0.5)


def test_measures_and_their_difference_to_the_first_ranker():
    rows = [_row(), _row(passages=("zoo:3",), facts=("nine",)), _row("near-miss", facts=(), evidence=())]
    asked = [_asked(row) for row in rows]
    good = [outcome(Fixed([4, 3, 2, 1], SENTENCES, "good"), one) for one in asked]
    bad = [outcome(Fixed([1, 1, 3, 4], SENTENCES, "bad"), one) for one in asked]
    first, second = ({one.name: one for one in measured(of, base)} for of, base in ((good, None), (bad, good)))
    assert first["gold passage among the best 1"].value == 50 and first["gold passage among the best 1"].count == 2
    assert second["gold passage among the best 1"].value == 0 and second["gold passage among the best 1"].difference == -50
    assert first["all facts, two sentences"].value == 100
    assert first["kind answerable: all facts, two sentences"].count == 2
    assert first["AUC, answerable against near-miss"].value == 0.5
    assert 0 < first["gold passage among the best 1"].error < 50
    assert first["all facts, two sentences"].error == 0
    rows_of = {row.name: row.as_json() for row in report_rows({"good": list(first.values()), "bad": list(second.values())})}
    row = rows_of["bad: gold passage among the best 1"]
    assert (row["peer"], row["peer_value"], row["goal"], row["met"]) == ("good", 50.0, 65.0, False)


def test_a_measure_without_a_row_is_left_out():
    names = {one.name for one in measured([outcome(Fixed([4, 3, 2, 1], SENTENCES), _asked(_row()))], None)}
    assert not any("two-passages" in name or "near-miss" in name for name in names)


# Rankers.


def _letters(texts: Sequence[str]) -> np.ndarray:
    counts = np.array([[text.lower().count(letter) + 1e-3 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
    return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def test_vectors_of_a_site_are_made_once_and_kept(tmp_path):
    made: list[int] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        made.append(len(texts))
        return _letters(texts)

    question = _asked(_row())
    first = Vectors("letters", encode, cache=tmp_path)
    first.prepare([question])
    second = Vectors("letters", encode, cache=tmp_path)
    second.prepare([question])
    assert made == [1, 4 + 11]
    asked = Asked(question, False)
    assert np.array_equal(first.passage_scores(asked), second.passage_scores(asked))
    whole = _letters(["Zoo: hours\n" + HOURS.text])[0] @ _letters([question.text])[0]
    assert first.passage_scores(asked)[2] == pytest.approx(whole)
    sentence = _letters(["Zoo: hours: Gates open at nine."])[0] @ _letters([question.text])[0]
    assert first.sentence_scores(asked, [2])[0][0] == pytest.approx(sentence)


def test_a_joined_question_stands_between_the_two():
    question = _asked(_row("follow-up", turns=("bbb", "aaa")))
    ranker = Vectors("letters", _letters)
    ranker.prepare([question])
    alone, joined = (ranker.vector(Asked(question, way)) for way in (False, True))
    assert alone[0] > 0.99 and joined[0] == pytest.approx(joined[1]) and np.linalg.norm(joined) == pytest.approx(1)


def test_the_products_selection_is_verbatim_and_within_its_limits():
    question = _asked(_row(turns=("ticket costs",)))
    ranker = Vectors("letters", _letters)
    ranker.prepare([question])
    asked = Asked(question, False)
    scores = ranker.passage_scores(asked)
    picked = ranker.selected(asked, [int(place) for place in np.argsort(-scores)], scores)
    assert 1 <= len(picked) <= 4 and all(text in ZOO.passages[place].text for place, text in picked)


def test_bm25_prefers_the_rare_word_and_the_short_text():
    scores = Bm25([["gate", "open"], ["gate", "gate", "open"], ["gate", "winter"], ["gate", "winter", *["tea"] * 9]]).scores(
        ["gate", "winter"]
    )
    assert scores.argmax() == 2 and scores[3] > scores[0] and Bm25([["a"]]).scores(["b"]).tolist() == [0.0]


def test_words_are_counted_as_postgresql_ranks_them_when_any_may_match():
    question = _asked(_row(turns=("tickets gates",)))
    counts = Occurrences()(Asked(question, False))
    # "tickets" once in the first title (1.0) and once in its text (0.4); "gates" twice in the third text
    assert counts.tolist() == pytest.approx([1.4, 0.4, 0.8, 0.4])


def test_the_fusion_adds_both_ranks():
    question = _asked(_row(turns=("tickets",)))
    vectors = Vectors("letters", _letters)
    vectors.prepare([question])
    asked = Asked(question, False)
    fused = Hybrid("both", vectors, lambda _: np.array([0.0, 3.0, 0.0, 2.0])).passage_scores(asked)
    places = np.argsort(np.argsort(-vectors.cosines(asked)))
    expected = 1 / (61 + places) + np.array([0, 1 / 61, 0, 1 / 62])
    assert fused == pytest.approx(expected, abs=1e-8)


def test_summed_scores_count_the_best_sentence_the_words_and_for_a_sentence_its_passage():
    question = _asked(_row(turns=("ticket",)))
    vectors = Vectors("letters", _letters)
    vectors.prepare([question])
    asked = Asked(question, False)
    summed = Summed("summed", vectors, lambda _: np.array([0.0, 4.0, 2.0, 0.0]))
    best = [float(scores.max()) for scores in vectors.sentence_scores(asked, range(4))]
    expected = vectors.cosines(asked) + 0.5 * np.array(best) + np.array([0, 0.1, 0.05, 0])
    assert summed.passage_scores(asked) == pytest.approx(expected)
    alone = vectors.sentence_scores(asked, [2])[0]
    assert summed.sentence_scores(asked, [2])[0] == pytest.approx(alone + 0.5 * expected[2])


def test_a_model_that_reads_pairs_orders_the_best_passages_and_their_sentences():
    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        assert all(question == "what do i pay to get in" for question, _ in pairs)
        return np.array([float(text.count("open")) for _, text in pairs])

    ranker = Reranked("reads", Fixed([4, 3, 2, 1], SENTENCES), score, depth=3)
    asked = Asked(_asked(_row()), False)
    assert np.argsort(-ranker.passage_scores(asked), kind="stable").tolist() == [2, 0, 1, 3]  # the fourth was not read
    assert [scores.tolist() for scores in ranker.sentence_scores(asked, [2, 0])] == [[1, 1], [0, 0, 0]]
    assert ranker.answerability(asked, [2, 0]) == 2
    assert ranker.selected(asked, [2, 0, 1, 3], ranker.passage_scores(asked)) is None


def test_words_join_messages_as_the_encoder_does():
    question = _asked(_row("follow-up", turns=("bbb", "and it?")))
    vectors = Vectors("letters", _letters)
    vectors.prepare([question])
    assert Words(vectors).joins(question) is vectors.joins(question)


@pytest.mark.parametrize("name", ["no.such.module:x", "json:nothing", "nothing", "json:dumps", "json:JSONDecoder"])
def test_a_ranker_that_is_not_there_is_named(name: str):
    with pytest.raises(Unknown, match=name):
        rankers([name], None)


def test_the_command_measures_the_small_sites(tmp_path):
    out, details = tmp_path / "rows.json", tmp_path / "details.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report_card", "selection", "--quick", "--half", "choose", "--ranker", "minilm", "--json", str(out),
         "--details", str(details), "--cache", str(tmp_path / "vectors")], capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(out.read_text())}
    assert rows["MiniLM: gold passage among the best 5"]["goal"] == 90
    assert 75 < rows["MiniLM: gold passage among the best 5"]["value"] < 95
    told = [json.loads(line) for line in details.read_text().splitlines()]
    assert {one["half"] for one in told} == {"choose"} and all(one["package"].startswith("dev-") for one in told)


def test_the_command_says_in_a_line_what_is_not_there():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report_card", "selection", "--package", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.strip() == "There is no such question: see --half and --package."

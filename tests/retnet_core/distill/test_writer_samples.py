"""Hand-written rows as samples for the writer: which sentences, as letters, their evidence is in."""

from __future__ import annotations

import random

import pytest

from retnet_core.distill.handwritten.rows import OWN_PAGES, Passage, Row
from retnet_core.distill.writer.kinds import FORMS, random_request
from retnet_core.distill.writer.samples import ASKS, Text, form_of, page_of, places_of, texts
from workers.answer.sentences import split_sentences

LOANS = Passage(
    "guide:1",
    "guide",
    "Library - Loans",
    "Books may be kept for 28 days. Films that were lent on a Saturday or Sunday\ngo back after a week. No more.",
    False,
)
CARDS = Passage("guide:2", "guide", "Library - Cards", "A card is free. A lost one costs 3 euros.", False)
LONG = Passage("guide:3", "guide", "Library - Rules", " ".join(f"Rule {number} holds for all." for number in range(27)), False)
HOURS = Passage("guide:4", "guide", "Library - Hours", "We open at nine and close at six.", False)
MADE = Passage(
    f"{OWN_PAGES}:1",
    OWN_PAGES,
    "Elm Bakery: Prices",
    "\n".join(f"Loaf {n}: Price: {n} euros; Weight: {n} kg" for n in range(4)),
    False,
)
HIDDEN = Passage(f"{OWN_PAGES}:2", OWN_PAGES, "Oak Hotel: Rooms", "All rooms have a bath.", True)
KNOWN = {one.id: one for one in (LOANS, CARDS, LONG, HOURS, MADE, HIDDEN)}


def row(
    kind: str = "answerable",
    passages: str = "guide:1",
    turns: tuple[str, ...] = ("how long",),
    evidence: tuple[str, ...] = (),
    style: tuple[str, ...] = ("terse",),
) -> Row:
    """Answered with "28 days." if there is evidence."""
    answer, facts = ("28 days.", ("28",)) if evidence else ("", ())
    return Row(kind, tuple(passages.split()), turns, evidence, answer, facts, style)


def found(*rows: Row) -> list[Text]:
    """Samples of these rows alone, without those of written pages."""
    return [one for one in texts(rows, KNOWN, split_sentences) if not one.asked.startswith("<|im_start|>user\nPage:")]


def asked(one: Text) -> str:
    return one.asked.partition("<|im_end|>")[0]


@pytest.mark.parametrize(
    ("passages", "evidence", "places"),
    [
        ("guide:1", ("Books may be kept for 28 days.",), (0,)),
        ("guide:1", ("kept for 28 days",), (0,)),
        ("guide:1", ("lent on a Saturday or Sunday go back",), (1,)),  # over a line break
        ("guide:1", ("28 days. Films that",), (0, 1)),
        ("guide:1", ("No more.", "Books may be"), (0, 2)),
        ("guide:1 guide:2", ("A lost one costs 3 euros.", "Films that"), (1, 4)),
        ("guide:1", ("Library - Loans",), ()),  # a title
        ("guide:1", ("Library - Loans", "No more."), (2,)),
        ("guide:1", ("It stands nowhere.",), ()),
    ],
)
def test_evidence_is_found_in_the_sentences_it_touches_counted_through_all_passages(passages, evidence, places):
    one = row(passages=passages, evidence=evidence)
    assert places_of(one, [KNOWN[name] for name in one.passages], split_sentences) == places


def test_a_row_becomes_a_sample_of_writing_and_one_of_reading_on_the_same_page():
    samples = found(row(evidence=("Books may be",)), row("near-miss", turns=("do you sell stamps",), style=("yesno", "odd")))
    (writing,) = [one for one in samples if asked(one).startswith("Write:")]
    assert asked(writing) == "Write: A terse; none yesno"
    assert writing.target == "A: how long\n= 28 days.\nnone: do you sell stamps<|im_end|>"
    assert writing.weight == 2.0
    readings = {asked(one): one for one in samples if asked(one).startswith("Visitor:")}
    assert {question: one.target for question, one in readings.items()} == {
        "Visitor: how long": " A",
        "Visitor: do you sell stamps": " none",
    }
    assert all(one.page == writing.page and one.weight == 0.5 for one in readings.values())
    assert writing.page.splitlines()[1:] == [
        "Library - Loans", "A: Books may be kept for 28 days.", "B: Films that were lent on a Saturday or Sunday go back after a week.",
        "C: No more.",
    ]  # fmt: skip


def test_two_passages_stand_on_one_page_with_letters_that_go_on():
    (writing, reading) = sorted(
        found(row("two-passages", "guide:1 guide:2", evidence=("Books may be", "A lost one"))),
        key=lambda one: one.asked,
        reverse=True,
    )
    assert asked(writing).startswith("Write: A, E terse") and writing.target.startswith("A, E: how long\n")
    assert reading.target == " A" and "Library - Cards\nD: A card is free.\nE: A lost one" in reading.page


def test_a_follow_up_is_written_after_the_message_before_it():
    samples = found(row("follow-up", turns=("is it free", "and how long?"), evidence=("Books may be",)))
    assert {asked(one) for one in samples} == {"Write: A follow-up terse", "Visitor: is it free >> and how long?"}
    assert any(one.target.startswith("A: is it free >> and how long?\n") for one in samples)


def test_a_page_with_more_sentences_than_letters_and_evidence_in_a_title_alone_make_no_sample():
    assert page_of([LONG], split_sentences) is None and page_of([LOANS], split_sentences) is not None
    assert found(row(passages="guide:3", evidence=("Rule 1 holds",))) == []
    assert found(row(evidence=("Library - Loans",))) == []


def test_many_questions_of_a_page_are_asked_for_few_at_a_time_with_near_misses_last():
    rows = [row(turns=(f"question {number}",), evidence=("Books may be",) if number % 3 else ()) for number in range(12)]
    writings = [one for one in found(*rows) if asked(one).startswith("Write:")]
    counts = [asked(one).count(";") + 1 for one in writings]
    assert sum(counts) == 12 and max(counts) == ASKS
    for one in writings:
        labels = [part.split()[0] for part in asked(one).removeprefix("Write: ").split("; ")]
        assert labels == sorted(labels, key=lambda label: label == "none")


def test_a_question_is_also_read_on_neighbours_that_do_not_answer_it():
    rows = [row(turns=(f"how long for book {number}",), evidence=("Books may be",)) for number in range(20)] + [
        row(passages="guide:2", turns=("costs?",), evidence=("A card is free.",)),
        row("near-miss", "guide:4", turns=("free?",)),
    ]
    elsewhere = [one for one in found(*rows) if "for book" in one.asked and "Library - Loans" not in one.page]
    assert elsewhere and {one.target for one in elsewhere} == {" none"}
    assert {one.page.splitlines()[1] for one in elsewhere} == {"Library - Cards", "Library - Hours"}


def test_what_a_visitor_told_becomes_a_conversation_and_pages_by_hand_become_pages():
    told = Row("memory", (), ("I am Ann", "who am I?"), ("I am Ann",), "You are Ann.", ("Ann",), ("plain",))
    untold = Row("not-told", (), ("hello", "who am I?"), (), "", (), ("plain",))
    with_page = Row("memory", ("guide:1",), ("I am Ann", "who am I?"), ("I am Ann",), "You are Ann.", ("Ann",), ())
    made = {asked(one).partition("user\n")[2]: one.target for one in texts([told, untold, with_page], KNOWN, split_sentences)}
    assert made == {
        "Conversation: 2 messages; told": "- I am Ann\n? who am I?\n= You are Ann.<|im_end|>",
        "Conversation: 2 messages; not told": "- hello\n? who am I?\n= not told<|im_end|>",
        "Page: Elm Bakery; Prices; table": f"{MADE.title}\n{MADE.text}<|im_end|>",
    }


def test_samples_are_the_same_for_a_seed():
    rows = [row(turns=(f"question {number}",), evidence=("Books may be",)) for number in range(12)]
    assert texts(rows, KNOWN, split_sentences, 1) == texts(rows, KNOWN, split_sentences, 1)
    assert texts(rows, KNOWN, split_sentences, 1) != texts(rows, KNOWN, split_sentences, 2)


def test_the_form_of_a_text_is_told_by_its_lines():
    assert form_of("One sentence. Another one.") == "prose"
    assert form_of("\n".join("abcde")) == "list"
    assert form_of(MADE.text) == "table"


def test_requests_for_pages_name_a_place_a_topic_and_a_form():
    drawn = [random_request(random.Random(number)) for number in range(300)]
    assert len({name for name, _, _ in drawn}) > 250 and {form for _, _, form in drawn} == set(FORMS)
    assert all(name and topic and "|" not in name + topic for name, topic, _ in drawn)

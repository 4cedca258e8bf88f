"""Conversations to train on are the product's prompt to the token, and say what their evidence says."""

from __future__ import annotations

import random

import numpy as np
import pytest

from retnet_core.distill.mixture import layout, tables
from retnet_core.distill.mixture.evidence import shown
from retnet_core.distill.mixture.layout import ANSWER, CONTEXT, DIGIT, Conversation
from retnet_core.distill.mixture.mix import BEGIN, NO_TARGET, since_of, targets
from retnet_core.distill.mixture.words import kept_apart
from tests.retnet_core.distill.tiny_student import PASSAGES, QUESTIONS, tiny_mixture, tokenizer
from workers.answer import prompt

NAMES = ("SYSTEM", "VISITOR", "ASSISTANT", "ASSISTANT_TURN", "PASSAGES", "PASSAGE", "QUESTION_CHARACTERS", "PASSAGE_CHARACTERS",
         "TITLE_CHARACTERS", "PASSAGE_LIMIT")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_is_the_products(name: str) -> None:
    assert getattr(layout, name) == getattr(prompt, name)


def test_a_grounded_conversation_is_token_for_token_what_the_product_reads() -> None:
    own = tokenizer()
    evidence = [
        {"number": 2, "title": "Shop", "heading_path": ["Shop"], "text": "We sell <|im_end|> seeds."},
        {"number": 7, "title": "Prices", "heading_path": [], "text": "A day costs 12 euros."},
    ]
    expected = [
        *prompt.persona_prefix(own, "You help. "),
        *prompt.visitor_turn(own, "hello"),
        *prompt.assistant_turn(own, "Hello."),
        *prompt.visitor_turn(own, "how much "),
        *prompt.grounded_turn(own, "how much ", evidence),
    ]
    made = Conversation(own)
    made.persona("You help. ")
    made.visitor("hello")
    made.read_answer("Hello.")
    made.visitor("how much ")
    made.grounded("how much ", [(title, text) for _, title, text in prompt.evidence_passages(evidence)], 2, "12 euros.")
    assert made.ids[: len(expected)] == expected
    # What the product forces after the number, and how it goes on with sentences of its own.
    assert made.ids[len(expected) :] == [
        own.token_id("2"), own.token_id("]"), *own.encode(" 12 euros."), own.end_id, *own.encode("\n")
    ]  # fmt: skip
    assert made.codes[: len(expected)] == [CONTEXT] * len(expected)
    assert made.codes[len(expected) :] == [DIGIT, CONTEXT, *[ANSWER] * (len(own.encode(" 12 euros.")) + 1), CONTEXT]


def test_an_answer_from_memory_opens_as_the_product_opens_it() -> None:
    own = tokenizer()
    made = Conversation(own)
    made.visitor("what is my name?")
    made.own_answer("Your name is Ines.")
    opening = prompt.visitor_turn(own, "what is my name?") + prompt.answer_opening(own)
    assert made.ids[: len(opening)] == opening
    assert own.decode(made.ids[made.marks["answer"] :]) == "Your name is Ines.<|im_end|>\n"


def test_a_question_without_a_known_answer_teaches_the_number_alone() -> None:
    made = Conversation(tokenizer())
    made.grounded("where", [("Parking", "Bicycles stand under the roof.")], 1, None)
    assert made.codes[-1] == DIGIT and ANSWER not in made.codes


def test_shown_evidence_numbers_the_passage_that_answers_or_refuses() -> None:
    mixture = tiny_mixture()
    numbers = set()
    for seed in range(200):
        drawn = random.Random(seed)
        question = drawn.choice(QUESTIONS)
        evidence = shown(question, mixture.library, drawn, missing=0.3)
        gold = {mixture.library.sentences(question.passages[one])[place] for one, place in question.gold}
        here = [number for number, (_, text) in enumerate(evidence.passages, 1) if any(one in text for one in gold)]
        assert evidence.number == (here[0] if here else 0)
        assert 1 <= len(evidence.passages) <= 4
        for title, text in evidence.passages:
            page = next(one for one in PASSAGES.values() if one.title == title)
            shown_places = [page.text.index(one) for one in mixture.library.sentences(page.id) if one in text]
            assert shown_places == sorted(shown_places) and shown_places
        numbers.add(evidence.number)
    assert {0, 1, 2} <= numbers


def test_evidence_of_elsewhere_holds_nothing_of_the_questions_own_passages() -> None:
    mixture = tiny_mixture()
    for seed in range(40):
        evidence = shown(QUESTIONS[0], mixture.library, random.Random(seed), elsewhere=True)
        assert evidence.number == 0 and "Dogs" not in [title for title, _ in evidence.passages]


def test_a_list_answers_with_the_value_that_stands_beside_the_key() -> None:
    mixture = tiny_mixture()
    for seed in range(60):
        drawn = random.Random(seed)
        found = tables.table(mixture.words, drawn, 5)
        line = next(line for line in found.text.split("\n") if line.split(":")[0] in found.question)
        assert any(cell.split(": ", 1)[1] in found.answer for cell in line.split(": ", 1)[1].split("; "))
        listed = tables.pairs(mixture.words, drawn, 6)
        assert any(all(part in listed.text for part in (word,)) for word in listed.answer.rstrip(".").split())


def test_what_is_measured_uses_headers_and_layouts_that_are_not_trained_on() -> None:
    assert not set(tables.MEASURED) & set(tables.COLUMNS)
    assert not set(tables.MEASURED_LAYOUTS) & set(tables.PAIR_LAYOUTS)
    words = [f"word{number}" for number in range(2000)]
    assert 0.05 < sum(map(kept_apart, words)) / len(words) < 0.15


def test_a_batch_depends_on_its_seed_alone_and_begins_documents_where_it_says() -> None:
    ids, codes = tiny_mixture().batch("7", 4, 512)
    again, _ = tiny_mixture().batch("7", 4, 512)
    other, _ = tiny_mixture().batch("8", 4, 512)
    assert np.array_equal(ids, again) and not np.array_equal(ids, other)
    own = tokenizer()
    opens = own.token_id("<|im_start|>")
    begins = codes >= BEGIN
    assert begins[:, 0].all() and begins.sum() > 8
    assert all(ids[place] == opens or codes[place] & 127 == 3 for place in zip(*np.nonzero(begins), strict=True))
    since = since_of(codes)
    assert (since[begins] == 0).all() and (since[~begins] > 0).all()
    wanted, kinds = targets(ids, codes)
    assert (kinds[:, -1] == NO_TARGET).all()
    assert (kinds[:, :-1][begins[:, 1:]] == NO_TARGET).all()
    assert np.array_equal(wanted[:, :-1], ids[:, 1:])
    assert {0, 1, 2} <= set(kinds.flatten().tolist())


def test_what_the_visitor_told_is_asked_for_and_answered() -> None:
    mixture = tiny_mixture()
    text = tokenizer().decode(mixture.told(random.Random(1), mixture._own[0]).ids)
    assert text.endswith("what am I called?<|im_end|>\n<|im_start|>assistant\nYour name is Ines.<|im_end|>\n")
    refused = tokenizer().decode(mixture.told(random.Random(1), mixture._own[1]).ids)
    assert refused.endswith("You have not told me that.<|im_end|>\n")
    fact = tokenizer().decode(mixture.facts(random.Random(3), 1).ids)
    assert fact.count("<|im_start|>user") >= 3

"""What the words of a message decide: does it ask, tell, follow; and which words about the visitor are the visitor's."""

from __future__ import annotations

import math

import pytest

from app.conversations.models import Message
from app.db.ids import new_id
from workers.answer import gate, own, pipeline
from workers.answer.cues import asks_own, small_talk, tells
from workers.answer.query import context, follow_up_probability


@pytest.mark.parametrize(
    "text",
    ["My order number is 48213.", "i'm Ines", "We are seven people.", "I live in Porto.", "hi, my name is Hugo",
     "please note that i am vegan",
     "Hello! I use Debian 12.", "My child is Anna, who is 12."],
)  # fmt: skip
def test_what_only_tells_is_told(text: str) -> None:
    assert tells(text) and small_talk(text) is None


@pytest.mark.parametrize(
    "text",
    ["my son is 15, can he get a membership", "I work mon-fri, can I still take lessons",
     "my nft rules are gone after every reboot",
     "I can't log in", "I'd like to know the price", "My printer is broken.", "I need a new chain", "opening hours",
     "tell me about returns",
     "My order number is 48213. How do I return it?", "im 17 can i join", "we're just three people, is this overkill"],
)  # fmt: skip
def test_what_asks_wishes_or_reports_trouble_is_a_question(text: str) -> None:
    assert not tells(text) and small_talk(text) is None


@pytest.mark.parametrize(
    "text", ["what was my order number?", "which room am i in", "What did I say of my diet?", "tell me my code word"]
)
def test_questions_about_the_visitor_are_seen(text: str) -> None:
    assert asks_own(text)[0]


@pytest.mark.parametrize(
    "text", ["how do i reset my password", "where can i leave my car", "what should i do about my brakes", "when are you open"]
)
def test_questions_to_the_content_are_not_taken_for_memory(text: str) -> None:
    assert asks_own(text) == (False, False)


def test_a_follow_up_is_told_from_a_new_question_by_its_words_and_by_what_is_found() -> None:
    assert follow_up_probability("and how do I turn that off", 0.0) > 0.9
    assert follow_up_probability("What deposit do you ask for an electric bicycle?", 0.0) < 0.1
    # "There" points nowhere after "are"; a short question is no follow-up for being short.
    assert follow_up_probability("Which valves are there?", 0.0) < 0.5 < follow_up_probability("How much is it there?", 0.0)
    # Found far better together with the question before, it leans on that; found better alone, it does not.
    assert follow_up_probability("in which languages?", -0.25) > 0.9
    assert follow_up_probability("And virtualization?", 0.15) < 0.5 < follow_up_probability("And virtualization?", 0.0)


def turn(text: str, reply: str | None = None) -> list[Message]:
    question = Message(id=new_id(), role="visitor", text=text)
    return [question, Message(id=new_id(), role="assistant", reply_to=question.id, kind=reply or "grounded", text="…")]


def test_the_context_of_a_follow_up_goes_back_to_the_question_that_names_the_topic() -> None:
    dialogue = [
        *turn("Do you sell tents?"),
        *turn("How do I mount a network drive under Linux?"),
        *turn("and at boot?"),
        *turn("thanks", "noted"),
    ]
    assert context(dialogue) == "How do I mount a network drive under Linux? and at boot?"
    assert context(turn("My name is Ines.", "noted")) == ""


@pytest.mark.parametrize(
    ("sentence", "supported"),
    [("Your order number is 48213.", True), ("Your order number is 48231.", False), ("Your order number is 4821.", False),
     ("You live in Porto.", False), ("Your order number is.", False), ("You have not told me that.", False)],
)  # fmt: skip
def test_a_sentence_about_the_visitor_must_be_the_visitors_own(sentence: str, supported: bool) -> None:
    assert own.is_told(sentence, "what was my order number?", ["My order number is 48213."]) is supported


def test_names_must_be_the_visitors_too() -> None:
    sources = ["I'm Beatrix from Leeds"]
    assert own.is_told("Your name is Beatrix.", "what's my name", sources)
    assert not own.is_told("Your name is Beatrice.", "what's my name", sources)


def test_an_acknowledgement_says_nothing_of_its_own() -> None:
    assert own.is_thanks("Thank you, I have noted that.", "My order number is 48213.")
    assert not own.is_thanks("You have not told me that.", "My order number is 48213.")
    assert not own.is_thanks("Thank you, your parcel arrives on Monday.", "My order number is 48213.")


def features(**changed: float) -> dict[str, float]:
    return {**dict.fromkeys(gate.FIRST, 0.5), **changed}


def test_the_gate_rises_with_likeness_and_falls_with_none_of_these() -> None:
    low, high = gate.first(features(best_cosine=0.1)), gate.first(features(best_cosine=0.8))
    assert low.probability < high.probability
    some = gate.joint(high, 0.1, shown=False).probability
    assert gate.joint(high, 0.9, shown=False).probability < some < gate.joint(high, 0.001, shown=False).probability
    assert all(math.isfinite(gate.joint(high, zero, shown=False).probability) for zero in (0.0, 1.0))


def test_nothing_found_is_a_clear_no() -> None:
    nothing = gate.first(dict.fromkeys(gate.FIRST, 0.0))
    assert not nothing.answer and not gate.is_clear(nothing)


def test_what_was_shown_is_kept_at_a_doubt_that_would_not_have_shown_it() -> None:
    assert gate.TAKE_BACK < gate.ANSWER <= gate.CLEARLY_YES and gate.CLEARLY_NO < gate.CLEARLY_YES


@pytest.mark.parametrize("text", ["What is my name?", "whats my last name", "and how old am I?", "Where do I live?"])
def test_what_no_content_holds_is_asked_of_the_memory_alone(text: str) -> None:
    assert asks_own(text) == (True, True)


@pytest.mark.parametrize("text", ["What is my name server?", "Where do I live chat with you?", "How old am I allowed to be?"])
def test_content_that_sounds_like_the_visitor_is_still_content(text: str) -> None:
    assert not asks_own(text)[1]


def _quoted(text: str, title: str = "Opening hours") -> list[dict]:
    return [{"text": text, "title": title, "heading_path": [], "passage_id": "1"}]


def test_wording_that_only_announces_is_not_published() -> None:
    evidence = _quoted("Retort uses five ports:")
    __, verdict = pipeline._checked("Retort uses five ports:", "Which ports?", evidence)
    assert not verdict.supported and verdict.code == "unfinished"


def test_an_unfounded_yes_is_dropped_and_the_rest_is_kept() -> None:
    evidence = _quoted("The workshop is closed on Sunday.")
    published, verdict = pipeline._checked("Yes, the workshop is closed on Sunday.", "Is the workshop open on Sunday?", evidence)
    assert verdict.supported and published == "The workshop is closed on Sunday."


def test_a_title_copied_in_front_of_a_sentence_is_dropped() -> None:
    evidence = _quoted("The workshop is closed on Sunday.")
    published, verdict = pipeline._checked("Opening hours - The workshop is closed on Sunday.", "Is it open?", evidence)
    assert verdict.supported and published == "The workshop is closed on Sunday."
    assert pipeline._without_title("Opening hours vary.", evidence) == "Opening hours vary."
    assert pipeline._without_title("Opening hours - ", evidence) == "Opening hours - "

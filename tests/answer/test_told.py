"""What visitors said of themselves: found among everything that they wrote, never denied, and never made up from the site."""

from __future__ import annotations

import pytest

from tests.answer.conftest import Chat
from workers.answer.claim import DIALOGUE_TURNS
from workers.answer.own import leaves_out_number
from workers.answer.told import nearest, statements_of
from workers.encoder import Encoder

# (what the visitor wrote, what they ask, a word of the statement that answers; None where nothing was told that does)
STATEMENTS = [
    (["My order number is 44721 and my name is Ottoline."], "What is my name?", "Ottoline"),
    (["My order number is 44721 and my name is Ottoline."], "what was my order number?", "44721"),
    (["My address is Singel 12."], "Where do I live?", "Singel"),
    (["I ride a Kestrel Robin."], "Which bicycle do I ride?", "Robin"),
    (["I'm Ottoline from Leiden"], "And who am I?", "Ottoline"),
    (["order 88213 is the one I'm calling about"], "what was my order number?", "88213"),
    (["I am vegan"], "What did I say of my diet?", "vegan"),
    (["We are seven people."], "how many people are we?", "seven"),
    (["I am 34 years old, I live in Ghent and I use Debian 12."], "how old am I again", "34"),
    (["I am 34 years old, I live in Ghent and I use Debian 12."], "which city do I live in?", "Ghent"),
    (["I am 34 years old, I live in Ghent and I use Debian 12."], "which operating system do I use?", "Debian"),
    (["My son is 15, can he hire a bicycle?"], "what did I say about my son?", "15"),
    (["My name is Ines.", "Sorry, my name is Ana."], "whats my name", "Ana"),
    (["My son's name is Tom."], "What is my son's name?", "Tom"),
    (["I drive a red van."], "what car do I have?", "van"),
    (["I bought the K3 last week."], "which bike did I buy?", "K3"),
    (["The code word is heron."], "tell me my code word", "heron"),
    (["I ordered two helmets on 3 May."], "how many helmets did I order?", "two"),
    (["I'm Hedda, I work as a welder and my locker is 31."], "which locker is mine?", "31"),
    (["I live in Porto."], "What did I say my shoe size was?", None),
    (["I ride a Kestrel Robin."], "And who am I?", None),
    (["My name is Ines."], "When do I get my deposit back?", None),
    (["My name is Ines."], "How old am I?", None),
    (["I use Debian 12."], "Which ports do I need?", None),
    (["I have an electric bicycle."], "What deposit do I pay?", None),
    (["My son's name is Tom."], "What is my name?", None),
    (["My phone number is 0612345678."], "what is my email?", None),
]


@pytest.mark.parametrize(("wrote", "asked", "expected"), STATEMENTS)
def test_the_statement_that_a_question_is_after_is_found(
    encoder: Encoder, wrote: list[str], asked: str, expected: str | None
) -> None:
    statements = statements_of(wrote)
    vectors = encoder.encode([asked, *statements])
    found = nearest(asked, statements, vectors[1:] @ vectors[0]).statements
    if expected is None:
        assert found == ()
    else:
        assert len(found) == 1 and expected in found[0]
        assert any(found[0] in message for message in wrote)


# Whole conversations on the real model; the last message asks. The words must stand in the answer, those of the last column not.
CONVERSATIONS = [
    (["My order number is 44721 and my name is Ottoline.", "What is my name?"], ["Ottoline"], ["44721"]),
    (["My order number is 44721 and my name is Ottoline.", "What was my order number?"], ["44721"], []),
    (["My address is Singel 12.", "Where do I live?"], ["Singel", "12"], []),
    (["I ride a Kestrel Robin.", "Which bicycle do I ride?"], ["Kestrel Robin"], ["K3"]),
    (["I am Maud, I work at the ferry terminal and I ride a Brompton.", "How much is a child seat?", "Where do I work?"],
     ["ferry terminal"], []),
    (["We live in Harlingen.", "When is the workshop open?", "and which town do we live in?"], ["Harlingen"], []),
    (["My customer number is 9081.", "My invoice number is 5520.", "What is my invoice number?"], ["5520"], ["9081"]),
    (["I have a tandem.", "thanks", "what kind of bicycle do I have?"], ["tandem"], []),
    (["My chain is 600 km old. When must I oil it?", "What is my name?"], ["not told me"], ["chain"]),
    (["Call me Fenna.", "And who am I?"], ["Fenna"], []),
    (["I am 17, can I hire an electric bicycle?", "how old am I?"], ["17"], []),
    (["My name is Piet.", "No, my name is Pier.", "What is my name?"], ["Pier"], ["Piet"]),
    (["I live in Porto.", "What did I say my shoe size was?"], ["not told me"], ["Porto"]),
    (["My sister's name is Jet.", "What is my name?"], ["not told me"], ["Jet"]),
    (["How do I switch the headlight on?", "What was my order number again?"], ["not told me"], ["headlight"]),
    (["I'm Hedda, I work as a welder and my locker is 31.", "Which locker is mine?"], ["31"], []),
    (["My name is Sytze.", "do you know my name?"], ["Sytze"], []),
    (["I need the bicycle on Thursday.", "on which day did I say I need the bicycle?"], ["Thursday"], []),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "said", "unsaid"), CONVERSATIONS)
async def test_what_was_told_is_given_back_and_what_was_not_is_not_made_up(
    chat: Chat, messages: list[str], said: list[str], unsaid: list[str]
) -> None:
    for message in messages[:-1]:
        await chat.ask(message)
    answer = await chat.ask(messages[-1])
    assert (answer.kind, answer.citations, answer.evidence) == ("memory", [], [])
    assert all(word in answer.text for word in said), answer.text
    assert not any(word in answer.text for word in unsaid), answer.text


async def test_a_question_to_the_content_stays_one_after_something_was_told(chat: Chat) -> None:
    await chat.ask("I have an electric bicycle and my name is Ines.")
    answer = await chat.ask("What deposit do I pay for an electric bicycle?")
    assert answer.kind in ("grounded", "evidence")
    assert any("deposit of 100 euros" in item["text"] for item in answer.evidence or [])


async def test_what_was_told_longer_ago_than_the_dialogue_that_shapes_a_search_is_found(chat: Chat) -> None:
    await chat.ask("My locker is number 77.")
    for _ in range(DIALOGUE_TURNS // 2 + 1):
        await chat.ask("thanks")
    answer = await chat.ask("what is my locker number?")
    assert answer.kind == "memory" and "77" in answer.text


def test_two_kinds_asked_for_at_once_are_both_found(encoder: Encoder) -> None:
    statements = statements_of(["My name is Maud and I live in Joure.", "My order number is 7."])
    question = "What is my name and where do I live?"
    vectors = encoder.encode([question, *statements])
    assert nearest(question, statements, vectors[1:] @ vectors[0]).statements == ("My name is Maud", "I live in Joure.")


def test_each_fact_of_a_message_is_a_statement_of_its_own() -> None:
    assert statements_of(["My order number is 44721 and my name is Ottoline. How do I return it?"]) == [
        "My order number is 44721",
        "my name is Ottoline.",
    ]
    assert statements_of(["hello", "Can I return my chain?"]) == []


def test_a_sentence_of_the_state_keeps_the_number_that_was_told() -> None:
    assert leaves_out_number("You live in Singel.", ["My address is Singel 12."])
    assert not leaves_out_number("You live at Singel 12.", ["My address is Singel 12."])
    assert not leaves_out_number("Your name is Ana.", ["My name is Ana."])

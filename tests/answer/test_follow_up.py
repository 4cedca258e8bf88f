"""Two turns: a follow-up is searched with the question before it, a question that stands alone is searched alone."""

from __future__ import annotations

import pytest

from app.conversations.models import Message
from app.db.ids import new_id
from app.db.session import Database
from tests.answer.conftest import PAGES, index_site
from tests.conftest import Tenant
from workers.answer import query, retrieve
from workers.answer.select import select
from workers.answer.services import Services
from workers.encoder import Encoder

# More of the shop's pages: enough topics for a change of topic to go astray.
MORE = (
    (
        "/tubes.html",
        "Tubes and tyres",
        ["Valves"],
        "valves",
        "Three valves are in use. The Dunlop valve is found on old town bicycles, the Presta valve on racing tyres, and the"
        " Schrader valve fits the pump of a car. With an adapter for two euros any pump inflates a Presta valve.",
    ),
    (
        "/tubes.html",
        "Tubes and tyres",
        ["Pressure"],
        "pressure",
        "The pressure that a tyre needs is printed on its side. Town tyres take 3 to 4 bar, racing tyres up to 8 bar. Check it"
        " once a month, because every tube loses some air.",
    ),
    (
        "/courses.html",
        "Courses",
        ["Repair course"],
        "repair-course",
        "The repair course takes place on the first Saturday of the month and costs 45 euros. It lasts four hours, and eight"
        " people can take part. Book it at the counter, tools are provided.",
    ),
    (
        "/bags.html",
        "Bags and baskets",
        ["Panniers"],
        "panniers",
        "Our panniers come in black, olive and red, and hold 20 litres each. They hang on any rack with tubes of 8 to 16"
        " millimetres. A rain cover is included, the shoulder strap is sold separately.",
    ),
    (
        "/insurance.html",
        "Insurance and locks",
        ["Insurance"],
        "insurance",
        "We arrange insurance against theft for bicycles from 500 euros. It costs six per cent of the price a year and is valid"
        " if the bicycle was locked to something fixed. You can cancel it at the end of each year.",
    ),
    (
        "/insurance.html",
        "Insurance and locks",
        ["Locks"],
        "locks",
        "Folding locks, chain locks and U-locks are in stock. A chain lock weighs about two kilograms. We engrave its number on"
        " the key, so that a lost key can be replaced.",
    ),
)

# (the question before, the message, its heading): each stands alone, however short it is.
ALONE = [
    ("How do I clean the brakes?", "Which valves are there?", "Valves"),
    ("How do I clean the brakes?", "Is there a deposit?", "Deposit"),
    ("Do you sell panniers?", "Which locks are there?", "Locks"),
    ("How do I switch the headlight on?", "Is there a repair course?", "Repair course"),
    ("What does an electric bicycle cost per day?", "Are there panniers?", "Panniers"),
    ("How do I return a part?", "How often should I oil the chain?", "Chain"),
    ("Do you sell panniers?", "What is the right pressure?", "Pressure"),
    ("Can I insure my bicycle?", "Any courses on repairs?", "Repair course"),
]
# (the question before, the message, words that an answer to it must hold): each needs the question before it.
LEANS = [
    ("How do I switch the headlight on?", "and how do I turn that off", "hold the same button for five seconds"),
    ("Can I insure my bicycle against theft?", "what does it cost?", "six per cent"),
    ("Do you have panniers?", "in which colours?", "black, olive and red"),
    ("Is there a repair course?", "how long does it last?", "four hours"),
    ("What deposit do you ask for an electric bicycle?", "and when do I get it back?", "within three days"),
    ("My disc brake squeaks, what can I do?", "what if they stay dirty?", "replace the pads"),
    ("Which locks do you sell?", "how heavy is a chain one?", "two kilograms"),
    ("What does an electric bicycle cost per day?", "and a child seat?", "free of charge"),
]


@pytest.fixture
async def bigger_shop(db: Database, encoder: Encoder, tenant: Tenant) -> Tenant:
    await index_site(db, encoder, tenant, (*PAGES, *MORE))
    return tenant


async def found(services: Services, shop: Tenant, before: str, message: str) -> tuple[query.Query, list[str], str]:
    """How the message was read, the headings found, best first, and the sentences that would be quoted."""
    dialogue = [Message(id=new_id(), role="visitor", status="done", text=before)]
    asked = await query.build(services.vectors, message, dialogue)
    asked, hits = await retrieve.retrieve(services.database, shop.workspace_id, shop.assistant_id, asked)
    selection = select(asked.vector, retrieve.candidates(hits), question=asked.text)
    return asked, [hit.heading_path[0] for hit in hits], " ".join(sentence.text for sentence in selection.sentences)


@pytest.mark.parametrize(("before", "message", "heading"), ALONE)
async def test_a_question_that_stands_alone_is_searched_alone(
    services: Services, bigger_shop: Tenant, before: str, message: str, heading: str
) -> None:
    asked, headings, _ = await found(services, bigger_shop, before, message)
    assert asked.text == message and asked.follow_up < 0.5
    assert headings[0] == heading


@pytest.mark.parametrize(("before", "message", "words"), LEANS)
async def test_a_follow_up_is_searched_with_the_question_before(
    services: Services, bigger_shop: Tenant, before: str, message: str, words: str
) -> None:
    asked, _, quoted = await found(services, bigger_shop, before, message)
    assert asked.text == f"{before} {message}" and asked.follow_up >= 0.5
    assert words in quoted


async def test_without_a_question_before_there_is_one_way_to_read_a_message(services: Services, bigger_shop: Tenant) -> None:
    asked = await query.build(services.vectors, "and how do I turn that off", [])
    assert asked.joined is None and query.decide(asked, 0.1, 0.9) is asked

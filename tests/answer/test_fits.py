"""Wording that is true and supported, and does not answer what was asked, is held back; what answers is not."""

from __future__ import annotations

import pytest

from workers.answer.fits import has_kind, kind_asked, misfit
from workers.encoder import Encoder

# (question, quotations, wording that answers, wording that rests on them and does not), written by hand, not tuned on.
CASES = [
    ("How long does delivery to Germany take?",
     ["Delivery to Germany takes four to six working days.", "Delivery costs 29 euros."],
     "It takes four to six working days.", "Delivery costs 29 euros."),
    ("How much is a child seat?",
     ["A child seat costs 5 euros a day.", "Child seats carry children up to 22 kilograms."],
     "A child seat costs 5 euros a day.", "Child seats carry children."),
    ("When does the museum close on Thursdays?",
     ["On Thursdays the museum stays open until 9 pm.", "The museum has a cloakroom and a lift."],
     "The museum closes at 9 pm on Thursdays.", "The museum has a cloakroom and a lift."),
    ("Where can I park a camper van?",
     ["Camper vans may stand on the field behind the church.", "Camper vans pay the same as cars."],
     "Camper vans may stand on the field behind the church.", "Camper vans pay the same as cars."),
    ("Who signs the lease?",
     ["The lease is signed by the tenant and the landlord.", "The lease has twelve pages."],
     "The tenant and the landlord sign the lease.", "The lease has twelve pages."),
    ("How many bags may I take on board?",
     ["Each passenger may take two bags on board.", "Bags are weighed at the counter."],
     "You may take two bags on board.", "Bags are weighed at the counter."),
    ("How often are the filters changed?",
     ["Filters are changed every three months.", "The filters come from Sweden."],
     "The filters are changed every three months.", "The filters come from Sweden."),
    ("Can I pay with cash?",
     ["We do not accept cash; please pay by card.", "The bar opens at noon."],
     "No, you must pay by card.", "The bar opens at noon."),
    ("What does the annual pass cost?",
     ["The annual pass costs 60 euros, or 45 for students.", "The annual pass is valid in all four baths."],
     "The annual pass costs 60 euros.", "The annual pass is valid in all baths."),
    ("How long is the warranty on a battery?",
     ["The battery carries a warranty of two years.", "Send the battery back in its box."],
     "The warranty on a battery is two years.", "Send the battery back in its box."),
    ("When will my refund arrive?",
     ["Refunds are made within ten days of the return.", "Refunds go to the card that you paid with."],
     "Your refund arrives within ten days of the return.", "Refunds go to the card."),
    ("Who may borrow books?",
     ["Anyone who lives in the county may borrow books.", "The library owns 40,000 books."],
     "Anyone who lives in the county may borrow books.", "The library owns 40,000 books."),
    ("Where are the log files kept?",
     ["The log files are kept in /var/log/harbour.", "Log files are compressed with gzip."],
     "They are kept in /var/log/harbour.", "Log files are compressed."),
    ("How many people fit into the large tent?",
     ["The large tent sleeps eight.", "The large tent is made of cotton."],
     "The large tent sleeps eight.", "The large tent is made of cotton."),
    ("How do I reset the thermostat?",
     ["Hold both arrows for five seconds to reset the thermostat.", "The battery lasts a year."],
     "Hold both arrows for five seconds.", "The battery lasts a year."),
    ("Is breakfast included?",
     ["Breakfast is included in every room rate.", "The gym is on the third floor."],
     "Breakfast is included in every room rate.", "The gym is on the third floor."),
    ("How long can I keep a borrowed film?",
     ["Films may be kept for one week.", "Music may not be copied."],
     "Films may be kept for one week.", "Music may not be copied."),
    ("What time does the last ferry leave?",
     ["The last ferry leaves at 22:15.", "Dogs travel free of charge."],
     "The last ferry leaves at 22:15.", "Dogs travel free of charge."),
    ("Which bicycle do I ride?",
     ["The K3 is our lightest bicycle.", "It is ridden on gravel and on tarmac."],
     "The K3 is the lightest bicycle.", "You ride a K3."),
    ("Why is my tap water cloudy?",
     ["Cloudy water is caused by tiny air bubbles that vanish within minutes.", "The water bill is sent in March."],
     "Tiny air bubbles make the water cloudy.", "The water bill is sent in March."),
]  # fmt: skip
FALSE_HOLDS = 1
CAUGHT = 17


def held(encoder: Encoder, question: str, quotations: list[str], sentence: str) -> str:
    vectors = encoder.encode([question, sentence, *quotations])
    own = question == "Which bicycle do I ride?"
    verdict = misfit(question, sentence, quotations, own=own, first=True, cosines=vectors[1:] @ vectors[0])
    return verdict.reason if verdict else ""


def test_what_answers_passes_and_what_speaks_of_something_else_is_held_back(encoder: Encoder) -> None:
    wrong = [(good, reason) for question, texts, good, _ in CASES if (reason := held(encoder, question, texts, good))]
    missed = [off for question, texts, _, off in CASES if not held(encoder, question, texts, off)]
    print(f"{len(CASES)} cases: {len(wrong)} false holds {wrong}, {len(CASES) - len(missed)} caught, missed {missed}")
    assert len(wrong) <= FALSE_HOLDS, wrong
    assert len(CASES) - len(missed) >= CAUGHT, missed


@pytest.mark.parametrize(
    ("question", "kind"),
    [("How long does it take?", "duration"), ("how much does it cost", "price"), ("and when are you open", "time"),
     ("how many", "count"), ("Where is it?", "place"), ("who may enter?", "person"), ("how often do I oil it", "frequency"),
     ("How do I oil it?", None), ("what happens when it rains?", None), ("How long, and what does it cost?", None)],
)  # fmt: skip
def test_the_kind_of_answer_is_seen_in_the_question(question: str, kind: str | None) -> None:
    assert kind_asked(question) == kind


def test_without_the_quantity_asked_for_only_what_it_depends_on_may_be_said() -> None:
    texts = ["How long it takes depends on the bicycle.", "A workspace and its owner are created."]
    assert not any(has_kind("duration", text) for text in texts)
    assert misfit("How long does it take?", "It depends on the bicycle.", texts, own=False, first=True) is None
    verdict = misfit("How long does it take?", "It creates a workspace and its owner.", texts, own=False, first=True)
    assert verdict is not None and verdict.code == "other-kind"
    # Who, where and when are not always told by a word of their kind.
    assert misfit("Where is it?", "It stands.", ["It stands."], own=False, first=True) is None


def test_a_sentence_after_the_answer_may_add_to_it() -> None:
    texts = ["Delivery takes four days.", "Delivery costs 29 euros."]
    assert misfit("How long does delivery take?", texts[1], texts, own=False, first=True) is not None
    assert misfit("How long does delivery take?", texts[1], texts, own=False, first=False) is None


def test_what_a_page_says_of_its_readers_may_be_said_to_them() -> None:
    pays = ["You pay by card when you bring the bicycle back."]
    assert misfit("How do I pay?", "You pay by card.", pays, own=False, first=True) is None
    sends = ["Send them to the workshop together with the delivery note."]
    assert misfit("What do I do with parts?", "You send them to the workshop.", sends, own=False, first=True) is None
    verdict = misfit("What do I ride?", "You ride a K3.", ["The K3 is ridden on gravel."], own=True, first=True)
    assert verdict is not None and verdict.code == "visitor"

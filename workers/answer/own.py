"""Answers without content: what the visitor told, from the state; a word of thanks for what they tell; a greeting.

The model's words about the visitor are checked against the visitor's own: every name and number must stand in what they wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from retnet_core import Overloaded
from workers.answer import tone
from workers.answer.claim import Answer
from workers.answer.generate import from_memory
from workers.answer.recall import Memory
from workers.answer.route import Route
from workers.answer.services import Services

ACKNOWLEDGEMENT_WORDS = 16

_TOKEN = re.compile(r"[^\W_](?:[\w.@:/+'’-]*[^\W_])?")
# Words that say nothing of their own in "Your order number is 4711." or "You told me that you live in Porto."
_SAYING_TABLE = """
    you your yours you're are is was were be have has had do does did the a an and or of in on at to as for with from by it its
    that this there told said say mentioned me i called will would there's who which what number name named wrote
"""
_SAYING = frozenset(_SAYING_TABLE.split())
_THANKING_TABLE = "thank thanks noted note remember mind good know glad nice great understood right okay ok"
_THANKING = frozenset(_THANKING_TABLE.split())
_POLITE_TABLE = """
    i have will that keep to let me if need anything else know can help how may us all in so much very for telling
"""
_POLITE = frozenset(_POLITE_TABLE.split())


def _tokens(text: str) -> list[str]:
    return [match.group().lower().removesuffix("'s").removesuffix("’s") for match in _TOKEN.finditer(text)]


def is_told(sentence: str, question: str, sources: Sequence[str]) -> bool:
    """Whether a sentence about the visitor says nothing but what they wrote, and something that the question did not say.

    Every word is the visitor's (of `sources` or the question) or merely holds the sentence together; a number counts only when
    it stands in `sources`, whole.
    """
    asked, told = set(_tokens(question)), {token for source in sources for token in _tokens(source)}
    news = False
    for token in _tokens(sentence):
        if token in told and token not in asked and token not in _SAYING:
            news = True
        elif any(character.isdigit() for character in token):
            if token not in told:
                return False
        elif token not in told and token not in asked and token not in _SAYING:
            return False
    return news


def is_thanks(sentence: str, told: str) -> bool:
    """Whether a sentence only acknowledges what was told: polite words and the visitor's own, no number of its own."""
    words = _tokens(sentence)
    allowed = _THANKING | _POLITE | _SAYING | set(_tokens(told))
    return (
        len(words) <= ACKNOWLEDGEMENT_WORDS
        and any(word in _THANKING for word in words)
        and all(word in allowed for word in words)
    )


async def from_state(services: Services, answer: Answer, memory: Memory, route: Route) -> str | None:
    """What the state answers to a question about the visitor; None unless what they wrote answers it too, and says the same."""
    if answer.assistant.mode == "evidence" or not route.certain:
        return None
    sentence = await from_memory(services, answer, memory.state)
    supported = is_told(sentence, answer.text, route.sources) and not leaves_out_number(sentence, route.sources)
    reason = "told by the visitor" if supported else "not what the visitor wrote"
    answer.trace["verifier"] = [{"sentence": sentence, "published": supported, "reason": reason}]
    return sentence if supported else None


def leaves_out_number(sentence: str, sources: Sequence[str]) -> bool:
    """Whether what was told is a single statement with a number in it, and `sentence` has none: "You live in Singel."."""
    return len(sources) == 1 and any(map(str.isdigit, sources[0])) and not any(map(str.isdigit, sentence))


def quoted(answer: Answer, sources: Sequence[str]) -> str:
    """The visitor's own words, or that they told nothing of the kind."""
    if not sources:
        return tone.not_told(answer.assistant)
    return tone.told(answer.assistant, "” “".join(source.strip() for source in sources))


async def acknowledgement(services: Services, answer: Answer, memory: Memory | None, route: Route) -> str:
    """The reply to a greeting or to something told: fixed words, or the model's own if they only say thanks."""
    if route.small_talk:
        return tone.small_talk(answer.assistant, route.small_talk)
    if memory is None or answer.assistant.mode == "evidence":
        return tone.noted(answer.assistant)
    try:
        sentence = await from_memory(services, answer, memory.state)
    except Overloaded:
        return tone.noted(answer.assistant)
    sane = is_thanks(sentence, answer.text)
    answer.trace["verifier"] = [{"sentence": sentence, "published": sane, "reason": "thanks" if sane else "not a mere thanks"}]
    return sentence if sane else tone.noted(answer.assistant)

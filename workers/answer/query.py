"""What is searched for: the visitor's question, and for a follow-up the question it follows as well.

"can it be older than the current one?" names nothing that a page could be found by; "which valves are there?" is as short and
needs nothing else. Words alone do not tell the two apart. So where there is a question before, the message is searched both
alone and together with it, and what is found decides with the words (`follow_up_probability`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.conversations.models import Message
from workers.answer.services import Vectors

# Logistic regression on one half of 36 hand-written follow-ups and 370 questions put after an unrelated question about the same
# content. On the other half: AUC .98, 16 of 18 follow-ups and 7 % of the changes of topic are searched together with the question
# before. 20 short questions that change the topic ("Which RAID levels are there?"), written apart: 4 are taken for follow-ups
# (18 by the words and the likeness to the question before alone); of 16 short follow-ups none is missed.
INTERCEPT = -1.96
CONNECTS = 3.63
POINTS_BACK_EARLY = 4.22
POINTS_BACK_LATE = 2.13
NAMES_ANOTHER = 1.81
PER_LONG_WORD = -1.09  # a content word beyond the third, of three at most
# Cosine of the best passage for the message alone, less that for the message with the question before it.
PER_GAP = -19.1
SHORT, LONGEST = 3, 6

# A chain of follow-ups ("how do I mount it" – "at boot?" – "and for v6?") is walked back to the question that names the topic.
CHAIN = 3
CONTEXT_CHARACTERS = 400

# "Is there a firewall?" points nowhere.
_EXISTS = re.compile(r"\b(?:is|are|was|were|be|isn't|aren't) there\b|\bthere(?:'s| is| are| was| were)\b", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?:he|she|him|her|his|it|its|they|them|their|those|these|this)\b", re.IGNORECASE)
# "That" where it can be no conjunction: at an end, before a preposition or a verb of few words, after "is", "for", "like" …
_THAT = re.compile(
    r"\bthat(?=\W*$|[,?!.]|\s+(?:one|ones|off|on|up|out|again|too|is|was|happens?|do|does|did|works?|to|in|for|with|at|by|from"
    r"|first|part|then|later|every|now|as|and|or|without)\b)"
    r"|\b(?:is|was|did|does|do|of|for|to|with|between|than|by|after|before|about|like|on) that\b|\bthat'?s\b",
    re.IGNORECASE,
)
_ANOTHER = re.compile(
    r"\b(?:that|this|the|other|old|new|which|another) (?:one|ones|other|same)\b(?!\s+of)|\bones\b|\bthe same\b|\bthen\W*$"
    r"|\bthere(?=\W*$|,)",
    re.IGNORECASE,
)
_CONNECTS = re.compile(
    r"^\W*(?:and|but|or|so|ok|okay|good|great|then|also|what about|how about|what if|no,|yes,)\b", re.IGNORECASE
)
# A pronoun after more content words than these has its noun in the message itself, more often than not.
_EARLY = 2
_WORD = re.compile(r"[\w'-]+")
_FUNCTION_TABLE = """
    a an the i you we my your our is are was were be been do does did can could would should will to of in on for with at by from
    as if me us what how which who when where why not no and or but so it that this they them there then have has had get got just
    any some
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_TABLE.split())


@dataclass(frozen=True, slots=True)
class Query:
    text: str  # searched as words, and what selection takes for the question
    vector: np.ndarray  # float32 [384], normalised
    question_vector: np.ndarray  # of the message alone
    follow_up: float = 0.0  # the probability that the message follows an earlier question; 0 without one
    # The other way to read the message, together with the question before it; None without one, and once it is decided.
    joined: Query | None = None


def content_words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _FUNCTION_WORDS]


def follow_up_probability(question: str, gap: float) -> float:
    """How likely a question that comes second in a conversation needs the one before.

    `gap`: the cosine of the best passage found for the question alone, less that of the best found for both together.
    """
    words = len(content_words(question))
    plain = _EXISTS.sub(" ", question)
    ahead = [len(content_words(plain[: match.start()])) for pattern in (_PRONOUN, _THAT) for match in pattern.finditer(plain)]
    score = (
        INTERCEPT
        + CONNECTS * bool(_CONNECTS.match(question))
        + POINTS_BACK_EARLY * any(count <= _EARLY for count in ahead)
        + POINTS_BACK_LATE * any(count > _EARLY for count in ahead)
        + NAMES_ANOTHER * bool(_ANOTHER.search(plain))
        + PER_LONG_WORD * (min(max(words, SHORT), LONGEST) - SHORT)
        + PER_GAP * gap
    )
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


def context(dialogue: Sequence[Message]) -> str:
    """The earlier questions that a follow-up may lean on, oldest first; "" when nothing was asked yet.

    What the visitor told of themselves, greetings and thanks are passed over: the answers to them say so.
    """
    told = {message.reply_to for message in dialogue if message.role == "assistant" and message.kind in ("noted", "memory")}
    earlier = [message.text for message in dialogue if message.role == "visitor" and message.id not in told]
    chain: list[str] = []
    for text in reversed(earlier):
        chain.insert(0, text)
        if len(chain) == CHAIN or not _leans(text):
            break
    return " ".join(chain)[-CONTEXT_CHARACTERS:]


def _leans(text: str) -> bool:
    """Whether an earlier message names no topic of its own, as far as its words tell: "and at boot?", "in which languages?"."""
    return len(content_words(text)) < 2 or follow_up_probability(text, 0.0) >= 0.5


async def build(vectors: Vectors, question: str, dialogue: Sequence[Message]) -> Query:
    """The query for a message that stands after `dialogue`, with both ways to read it if there are two."""
    before = context(dialogue)
    encoded = await vectors.encode([question, before] if before else [question])
    own = encoded[0]
    if not before:
        return Query(question, own, own)
    both = own + encoded[1]
    return Query(question, own, own, joined=Query(f"{before} {question}", both / np.linalg.norm(both), own))


def decide(asked: Query, alone: float, joined: float) -> Query:
    """The way to read a message, by its words and by the cosines of the best passage that was found for each way."""
    if asked.joined is None:
        return asked
    probability = follow_up_probability(asked.text, alone - joined)
    chosen = asked.joined if probability >= 0.5 else asked
    return replace(chosen, follow_up=probability, joined=None)

"""What is searched for: the visitor's question, and for a follow-up the question it follows as well.

"can it be older than the current one?" names nothing that a page could be found by. Whether a question follows another is
decided before anything is searched, from its words and its likeness to the question before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.conversations.models import Message
from workers.answer.services import Vectors

# Logistic regression on the hand-written development rows, 36 follow-ups against 338 questions put after an unrelated question
# about the same content; six-fold cross-validated: AUC .95, 89 % of the follow-ups and 12 % of the changes of topic are taken
# for follow-ups. The right passage is then among the first five for 75 % of the follow-ups (17 % by the question alone, 81 % if
# all were known) and 70 % of the others (72 % by the question alone).
INTERCEPT = 1.56
PER_CONTENT_WORD = -0.85
POINTS_BACK = 2.82
CONNECTS = 2.20
PER_COSINE = 2.79

# A chain of follow-ups ("how do I mount it" – "at boot?" – "and for v6?") is walked back to the question that names the topic.
CHAIN = 3
CONTEXT_CHARACTERS = 400
# The likeness of two unrelated questions about the same content, on average: used while a chain is walked without vectors.
USUAL_COSINE = 0.1

_POINTS_BACK = re.compile(
    r"\b(it|its|that|this|those|these|they|them|their|there|he|she|him|her|one|ones|same|other|then|so)\b", re.IGNORECASE
)
_CONNECTS = re.compile(
    r"^\W*(and|but|or|so|ok|okay|good|then|also|what about|how about|why|what if|which|what's|whats)\b", re.IGNORECASE
)
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
    follow_up: float  # the probability that the message follows an earlier question; 0 without one


def content_words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _FUNCTION_WORDS]


def follow_up_probability(question: str, cosine: float) -> float:
    """How likely a question that comes second in a conversation needs the one before; `cosine` is the likeness of the two."""
    score = (
        INTERCEPT
        + PER_CONTENT_WORD * len(content_words(question))
        + POINTS_BACK * bool(_POINTS_BACK.search(question))
        + CONNECTS * bool(_CONNECTS.match(question))
        + PER_COSINE * cosine
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
        if len(chain) == CHAIN or follow_up_probability(text, USUAL_COSINE) < 0.5:
            break
    return " ".join(chain)[-CONTEXT_CHARACTERS:]


async def build(vectors: Vectors, question: str, dialogue: Sequence[Message]) -> Query:
    """The query for a message that stands after `dialogue`."""
    before = context(dialogue)
    encoded = await vectors.encode([question, before] if before else [question])
    own = encoded[0]
    if not before:
        return Query(question, own, own, 0.0)
    probability = follow_up_probability(question, float(own @ encoded[1]))
    if probability < 0.5:
        return Query(question, own, own, probability)
    both = own + encoded[1]
    return Query(f"{before} {question}", both / np.linalg.norm(both), own, probability)

"""Which way a message goes: to the content (`grounded`), to the state (`memory`), or nowhere as nothing was asked (`noted`).

By words first, since a wrong turn costs an answer: only what plainly speaks of the visitor leaves the way to the content, and
a question about the visitor goes to the state only when they told what it is after (told), or when they say that they told it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.answer.cues import asks_own, small_talk, tells
from workers.answer.services import Vectors
from workers.answer.told import nearest, statements_of

# How many of the visitor's latest statements get a vector: 40 cost about 60 ms. Older ones are found by words and kind alone.
STATEMENTS = 40


@dataclass(frozen=True, slots=True)
class Route:
    """`way`: grounded, memory or noted; `reason` goes into the trace; `sources`: the visitor's statements a memory rests on."""

    way: str
    reason: str
    small_talk: str | None = None
    certain: bool = False  # memory: what was told answers by its words or kind, so the state's wording may be published
    own: bool = False  # asks about the visitor
    sources: tuple[str, ...] = ()


async def choose(vectors: Vectors, question: str, question_vector: np.ndarray, earlier: Sequence[str]) -> Route:
    """The way of a message. `earlier`: the visitor's own earlier messages, oldest first."""
    if kind := small_talk(question):
        return Route("noted", f"small talk: {kind}", small_talk=kind)
    if tells(question):
        return Route("noted", "tells something, asks nothing")
    own, says_told = asks_own(question)
    if not own:
        return Route("grounded", "asks")
    statements = statements_of([*earlier, question] if says_told else earlier)
    if not statements:
        return Route("memory", "says it was told, nothing was", own=True) if says_told else Route("grounded", "asks", own=True)
    alike = np.zeros(len(statements), dtype=np.float32)
    alike[-STATEMENTS:] = await vectors.encode(statements[-STATEMENTS:]) @ question_vector
    told = nearest(question, statements, alike)
    if told.certain:
        return Route("memory", "was told", certain=True, own=True, sources=told.statements)
    if says_told:
        reason = f"like what was told ({told.likeness:.2f})" if told.statements else f"was not told ({told.likeness:.2f})"
        return Route("memory", reason, own=True, sources=told.statements)
    # Like something told, but no word says that it answers: the content comes first, the statement instead of a refusal.
    return Route("grounded", f"nothing told answers ({told.likeness:.2f})", own=True, sources=told.statements)

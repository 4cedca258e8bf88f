"""Which way a message goes: to the content (`grounded`), to the state (`memory`), or nowhere as nothing was asked (`noted`).

By words first, since a wrong turn costs an answer: only what plainly speaks of the visitor leaves the way to the content, and
a question about the visitor goes to the state only when what they told earlier is like it, or when they say that they told it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.answer.cues import asks, asks_own, sentences_of, small_talk, tells
from workers.answer.services import Vectors

# Cosine of a question and the statement that answers it ("what was my order number?", "order 88213 is the one I'm calling
# about"): above .40 in 80 % of 34 pairs; of 600 first-person questions about content, 3 % are so like any of 34 statements.
ALIKE = 0.40
# Statements that far below the best one are not what the question is about.
BESIDE = 0.12
# How many of the visitor's latest sentences are compared: 40 cost about 60 ms, and what is older is asked for by words anyway.
STATEMENTS = 40


@dataclass(frozen=True, slots=True)
class Route:
    """`way`: grounded, memory or noted; `reason` goes into the trace; `sources`: the visitor's sentences a memory rests on."""

    way: str
    reason: str
    small_talk: str | None = None
    certain: bool = False  # memory: the visitor says that they told it, so no content is searched when the state has no answer
    likeness: float = 0.0  # of the best source
    sources: tuple[str, ...] = ()


async def choose(vectors: Vectors, question: str, question_vector: np.ndarray, earlier: Sequence[str]) -> Route:
    """The way of a message. `earlier`: the visitor's own earlier messages, oldest first."""
    if kind := small_talk(question):
        return Route("noted", f"small talk: {kind}", small_talk=kind)
    if tells(question):
        return Route("noted", "tells something, asks nothing")
    own, told = asks_own(question)
    if not own:
        return Route("grounded", "asks")
    statements = [part for text in earlier for part in sentences_of(text) if not asks(part) and small_talk(part) is None][
        -STATEMENTS:
    ]
    if not statements:
        return (
            Route("memory", "says it was told, nothing was", certain=True) if told else Route("grounded", "nothing told before")
        )
    alike = await vectors.encode(statements) @ question_vector
    best = float(alike.max())
    if best < ALIKE and not told:
        return Route("grounded", f"nothing told is like it ({best:.2f})", likeness=best)
    sources = tuple(statement for statement, score in zip(statements, alike, strict=True) if score >= best - BESIDE)
    return Route(
        "memory",
        "asks what was told" if told else f"like what was told ({best:.2f})",
        certain=told,
        likeness=best,
        sources=sources,
    )

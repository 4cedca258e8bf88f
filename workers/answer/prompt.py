"""The model's prompt format, to the token: it was tuned on this and on nothing else (retnet_core's model card).

A conversation: `<|im_start|>system\\n{persona}<|im_end|>\\n`, then turns. A grounded turn, read by the fork alone, has the
passages and the question once more, and the answer opens with the number of the passage it rests on; 0 says "none of these".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from retnet_core import Tokenizer

SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"
VISITOR = "<|im_start|>user\n{}<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
ASSISTANT_TURN = ASSISTANT + "{}<|im_end|>\n"
PASSAGES = "<|im_start|>passages\n{}<|im_end|>\n"
PASSAGE = "[{number}] {title}\n{text}"
# The stored token ids of a conversation were made with these strings: another hash means that its text is tokenised anew.
TEMPLATE = hashlib.sha256("\0".join((SYSTEM, VISITOR, ASSISTANT_TURN)).encode()).hexdigest()[:16]

# The question stands twice in a grounded turn; a pasted log need not.
QUESTION_CHARACTERS = 400
# What the fork reads of one passage: tuned on up to 230 tokens; selected evidence is far shorter.
PASSAGE_CHARACTERS = 900
TITLE_CHARACTERS = 120
# Passage numbers that the model was tuned on.
PASSAGE_LIMIT = 5


def persona_prefix(tokenizer: Tokenizer, persona: str) -> list[int]:
    return tokenizer.encode(SYSTEM.format(tokenizer.escape(persona.strip())))


def visitor_turn(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(VISITOR.format(tokenizer.escape(text.strip())))


def assistant_turn(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(ASSISTANT_TURN.format(tokenizer.escape(text.strip())))


def answer_opening(tokenizer: Tokenizer) -> list[int]:
    """What precedes an answer without passages, from the state alone."""
    return tokenizer.encode(ASSISTANT)


def evidence_passages(evidence: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    """(citation number, title, text) of each cited passage: its selected sentences in their order, under their headings."""
    passages: dict[int, tuple[str, list[str]]] = {}
    for item in evidence:
        heading = item["heading_path"][-1] if item["heading_path"] else ""
        title = item["title"] if not heading or heading == item["title"] else f"{item['title']} - {heading}"
        passages.setdefault(item["number"], (title[:TITLE_CHARACTERS], []))[1].append(item["text"])
    return [(number, title, " ".join(texts)[:PASSAGE_CHARACTERS]) for number, (title, texts) in sorted(passages.items())][
        :PASSAGE_LIMIT
    ]


def grounded_turn(tokenizer: Tokenizer, question: str, evidence: Sequence[Mapping[str, Any]]) -> list[int]:
    """What the fork reads after the visitor's turn: evidence, the question again, and the opening bracket of the number."""
    blocks = [
        PASSAGE.format(number=place, title=tokenizer.escape(title), text=tokenizer.escape(text))
        for place, (_, title, text) in enumerate(evidence_passages(evidence), start=1)
    ]
    return tokenizer.encode(
        PASSAGES.format("\n\n".join(blocks))
        + VISITOR.format(tokenizer.escape(question.strip()[:QUESTION_CHARACTERS]))
        + ASSISTANT
        + "["
    )

"""How far one way to compute the shipped model is from another: on the prose of this project's own documents, and on grounded prompts about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from retnet_core import Tokenizer

DOCS = Path(__file__).parent.parent / "docs"
PROSE = ("content.md", "operate.md", "run-it.md")
PASSAGE_LETTERS = 600
"""Letters of a section that become a passage: some 150 tokens."""


def prose(tokenizer: Tokenizer, tokens: int) -> list[int]:
    """The first tokens of the documents."""
    return tokenizer.encode("\n".join((DOCS / name).read_text() for name in PROSE))[:tokens]


def grounded(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Prompts in the format that the model was tuned on, up to the bracket that opens a citation: a section's title is asked for, and the
    section and its neighbour are the passages. Each of a different length."""
    sections: list[tuple[str, str]] = []
    for name in PROSE:
        for section in re.split(r"^##+ ", (DOCS / name).read_text(), flags=re.MULTILINE)[1:]:
            title, _, text = section.partition("\n")
            sections.append((title.strip(), text.strip()[:PASSAGE_LETTERS]))
    prompts = []
    for number in range(count):
        pair = [sections[(number + step) % len(sections)] for step in (0, 1)]
        turn = f"<|im_start|>user\nWhat should I know about this: {pair[number % 2][0]}?<|im_end|>\n"
        passages = "\n\n".join(f"[{place}] {title}\n{text}" for place, (title, text) in enumerate(pair, 1))
        persona = "<|im_start|>system\nYou answer the visitors of a website.<|im_end|>\n"
        prompts.append(
            tokenizer.encode(f"{persona}{turn}<|im_start|>passages\n{passages}<|im_end|>\n{turn}<|im_start|>assistant\n[")
        )
    return prompts


def divergence(reference: Tensor, logits: Tensor) -> float:
    """Mean over rows of KL(reference ‖ other) of the next-token distributions, in nats. Both `[rows, vocabulary]`."""
    expected, actual = (values.double().log_softmax(-1) for values in (reference, logits))
    return float((expected.exp() * (expected - actual)).sum(-1).mean())


def same_best(reference: Tensor, logits: Tensor) -> float:
    """The share of rows whose most probable token is the same."""
    return float((reference.argmax(-1) == logits.argmax(-1)).double().mean())


def agreeing(reference: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Of greedy answers: the share that is the same to the last token, and the share of tokens before the first that differs."""
    same = total = 0
    for expected, actual in zip(reference, other, strict=True):
        length = max(len(expected), len(actual))
        total += length
        differing = (place for place, (one, two) in enumerate(zip(expected, actual, strict=False)) if one != two)
        same += next(differing, min(len(expected), len(actual)))
    whole = sum(tuple(one) == tuple(two) for one, two in zip(reference, other, strict=True))
    return whole / max(len(reference), 1), same / max(total, 1)


def largest_difference(reference: Tensor, logits: Tensor) -> float:
    """The largest difference of two logits, relative to the largest of the reference."""
    return float((reference - logits).abs().max() / reference.abs().max().clamp_min(torch.finfo(reference.dtype).tiny))

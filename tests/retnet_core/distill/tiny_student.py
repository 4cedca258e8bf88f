"""A two-layer teacher and the passages of an invented site, for the tests of the generator's training."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch

from retnet_core import RetNetConfig
from retnet_core.distill.handwritten.rows import Passage, Row
from retnet_core.distill.mixture.mix import Mixture, Shares
from retnet_core.distill.mixture.questions import Library, Question
from retnet_core.distill.mixture.sources import MixtureConfig
from retnet_core.distill.mixture.words import Words
from retnet_core.distill.optimisers import OptimiserConfig
from retnet_core.distill.running import RunConfig
from retnet_core.distill.teacher import Base
from retnet_core.distill.tune import StageConfig
from retnet_core.gguf import Gguf, find_base_model
from retnet_core.tokenizer import Tokenizer
from workers.answer.sentences import split_sentences

CONFIG = RetNetConfig(layers=2, width=32, heads=2, head_dim=16, feed_forward=48)
KEY_HEADS = 1


@cache
def tokenizer() -> Tokenizer:
    with Gguf(find_base_model()) as file:
        return Tokenizer.from_gguf(file)


def tiny_base(seed: int = 0) -> Base:
    """Random weights of the teacher's shape."""
    drawn = torch.Generator().manual_seed(seed)
    config = CONFIG

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=drawn) * shape[-1] ** -0.5

    tensors = {"token_embd.weight": draw(config.vocabulary, config.width), "output_norm.weight": torch.ones(config.width)}
    for number in range(config.layers):
        own = f"blk.{number}."
        key = KEY_HEADS * config.head_dim
        tensors |= {
            f"{own}attn_norm.weight": torch.ones(config.width) + 0.1 * draw(config.width),
            f"{own}attn_q.weight": draw(config.inner, config.width),
            f"{own}attn_k.weight": draw(key, config.width),
            f"{own}attn_v.weight": draw(key, config.width),
            f"{own}attn_output.weight": draw(config.width, config.inner),
            f"{own}ffn_norm.weight": torch.ones(config.width),
            f"{own}ffn_gate.weight": draw(config.feed_forward, config.width),
            f"{own}ffn_up.weight": draw(config.feed_forward, config.width),
            f"{own}ffn_down.weight": draw(config.width, config.feed_forward),
        }
    return Base(config, KEY_HEADS, tensors, tokenizer())


_TEXTS = {
    "Opening hours": "We open at 9 in the morning. On Sundays we are closed. Ring the bell at the back door after 6.",
    "Prices": "A day ticket costs 12 euros. Children under 7 pay nothing. Groups of ten get one ticket free.",
    "Parking": "There are forty places behind the house. Bicycles stand under the roof by the gate.",
    "Dogs": "Dogs must be kept on a lead. They may not enter the greenhouse.",
    "Shop": "The shop sells seeds and young plants. Opened bags cannot be returned.",
}
PASSAGES = {
    f"site:{number}": Passage(f"site:{number}", "site", title, text, False) for number, (title, text) in enumerate(_TEXTS.items())
}
QUESTIONS = [
    Question("may my terrier come along", (), ("site:3",), ((0, 0),), "Yes, but keep it on a lead.", 1.0),
    Question("what do i pay for a day", (), ("site:1",), ((0, 0),), "A day ticket costs 12 euros.", 1.0),
    Question("and for my son, he is 5", ("what do i pay for a day",), ("site:1",), ((0, 1),), "Nothing: children under 7 pay nothing.", 1.0),
    Question("where do i leave my bike", (), ("site:2",), ((0, 1),), None, 1.0),
    Question("is there a car park and is it open on sundays", (), ("site:2", "site:0"), ((0, 0), (1, 1)), "Forty places; closed on Sundays.", 1.0),
    Question("do you rent out wheelchairs", (), ("site:1",), (), None, 1.0),
]  # fmt: skip
OWN = [
    Row("memory", (), ("My name is Ines.", "Do you sell seeds?", "what am I called?"), ("My name is Ines.",), "Your name is Ines.", ("Ines",), ()),
    Row("not-told", (), ("Hello there.", "what is my order number?"), (), "", (), ()),
]  # fmt: skip


def tiny_mixture(**shares: float) -> Mixture:
    library = Library(PASSAGES, split_sentences)
    words = Words([f"word{chr(97 + n % 26)}{n}" for n in range(200)], [f"Name{chr(97 + n % 26)}{n}" for n in range(200)])
    return Mixture(tokenizer(), library, QUESTIONS, OWN, words, Shares(**shares))


def tiny_stage(folder: Path, steps: int = 6, **options: Any) -> StageConfig:
    """A stage that is over in seconds."""
    run = RunConfig(
        folder,
        steps=steps,
        tokens=256,
        batches=2,
        lengths=[256],
        workers=0,
        log_every=1,
        measure_every=0,
        checkpoint_every=3,
        compiled=False,
    )
    mixture = MixtureConfig([], [], [], split_sentences)
    return StageConfig(
        run, mixture, **{"start": "teacher", "rank": 2, "optimiser": OptimiserConfig(rate=3e-3, warm_up=1), **options}
    )


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of all values, by name."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(tensors[name].detach().contiguous().numpy().tobytes())
    return found.hexdigest()

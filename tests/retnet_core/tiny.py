"""Small RetNets with random weights, of the same classes as the real one, and the prompt format that the shipped one was tuned on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from retnet_core import Model, Tokenizer
from retnet_core.checkpoint import pack_layer
from retnet_core.config import RetNetConfig
from retnet_core.native.library import TILE
from retnet_core.quantize import pack
from retnet_core.tokenizer import byte_alphabet

CONTROL = ("<|im_start|>", "<|im_end|>")
PERSONA = "You answer the visitors of a website."


def tiny_tokenizer() -> Tokenizer:
    """One token a byte, two merges, and the control tokens."""
    stand_ins = list(byte_alphabet())
    return Tokenizer([*stand_ins, "th", "the", *CONTROL], ["t h", "th e"], CONTROL)


def tiny_model(
    seed: int = 0,
    *,
    precision: str = "float32",
    kind: type[Model] = Model,
    layers: int = 2,
    gated: bool = True,
    size: int = 1,
    poison: int | None = None,
    **options: Any,
) -> Model:
    """A model of `layers` layers, width 32, 2 heads of 16, all `size` times as large, whose weights are drawn from `seed`.

    `poison`: an id whose embedding is NaN. The kernels need a size of 4, and a vocabulary that divides by 16, so there are a few ids without text.
    """
    tokenizer = tiny_tokenizer()
    vocabulary = len(tokenizer) if size == 1 else -(-len(tokenizer) // TILE) * TILE
    config = RetNetConfig(
        layers=layers, width=32 * size, heads=2, head_dim=16 * size, feed_forward=64 * size, vocabulary=vocabulary
    )
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    width, inner, heads = config.width, config.inner, config.heads
    packed = [
        pack_layer(
            {
                "retention_norm": 1 + draw(width, scale=0.1),
                "projection": draw(4 * inner, width, scale=0.2),
                "convolution": draw(config.convolved, config.conv_width, scale=0.5),
                "gate_weight": draw(heads, width, scale=0.3) if gated else torch.zeros(heads, width),
                "gate_bias": draw(heads, scale=0.1),
                "rate": torch.tensor([-1.0, -4.0]),
                "group_norm": 1 + draw(inner, scale=0.1),
                "output": draw(width, inner, scale=0.2),
                "feed_forward_norm": 1 + draw(width, scale=0.1),
                "gate": draw(config.feed_forward, width, scale=0.2),
                "up": draw(config.feed_forward, width, scale=0.2),
                "down": draw(width, config.feed_forward, scale=0.2),
            },
            config,
            precision,
        )
        for _ in range(config.layers)
    ]
    table = draw(config.vocabulary, width)
    head = pack(table, precision)
    if poison is not None:
        table = table.clone()
        table[poison] = torch.nan
    return kind(
        config,
        packed,
        lambda ids: table[ids],
        torch.ones(width),
        head,
        fingerprint=f"tiny-{seed}-{layers}",
        precision=precision,
        tokenizer=tokenizer,
        **options,
    )


class Braked(Model):
    """A model that makes a pass only when `allow` says so, so that a test sees the engine between two steps."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._permits = threading.Semaphore(0)
        self._asked = threading.Semaphore(0)
        self.passes = 0
        self.rows: list[int] = []
        """How many ids each pass took."""

    def allow(self, passes: int) -> None:
        for _ in range(passes):
            self._permits.release()

    def wait_until_asked(self) -> None:
        """Until the engine stands before its next pass."""
        assert self._asked.acquire(timeout=30)

    def forward(self, *args: Any, **options: Any) -> Tensor:
        self._asked.release()
        assert self._permits.acquire(timeout=60)
        self.passes += 1
        self.rows.append(len(args[0]))
        return super().forward(*args, **options)


def grounded_prompt(question: str, passages: Sequence[tuple[str, str]], persona: str = PERSONA) -> str:
    """The prompt of the model card, up to the bracket that the passage's digit follows."""
    blocks = "\n\n".join(f"[{number}] {title}\n{text}" for number, (title, text) in enumerate(passages, 1))
    turn = f"<|im_start|>user\n{question}<|im_end|>\n"
    system = f"<|im_start|>system\n{persona}<|im_end|>\n"
    return f"{system}{turn}<|im_start|>passages\n{blocks}<|im_end|>\n{turn}<|im_start|>assistant\n["


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal up to `tolerance` of the largest magnitude expected."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() if expected.numel() else torch.tensor(0.0)
    largest = expected.abs().max().clamp_min(1.0) if expected.numel() else torch.tensor(1.0)
    assert error <= tolerance * largest, f"off by {float(error / largest):.2e} of the largest value"

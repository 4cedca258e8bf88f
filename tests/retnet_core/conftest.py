"""The shipped model, loaded once a precision, and small models of the same classes with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import retnet_core  # noqa: F401  # isort: skip  (before torch, whose threads it puts to sleep while they wait)
import pytest
import torch
import torch.nn.functional as F

from retnet_core import Engine, Model, Tokenizer, load_model
from retnet_core.checkpoint import pack_layer
from retnet_core.config import RetNetConfig
from retnet_core.gguf import Gguf, find_base_model
from retnet_core.quantize import pack

PASSAGES = (
    ("Prices", "A loaf of rye bread costs 4.50 euros and a croissant costs 1.80 euros."),
    ("Opening hours", "The bakery is open from 7 am to 6 pm on weekdays. On Sunday it is open from 8 am to noon."),
    ("Delivery", "We deliver within the city on Tuesdays and Fridays for orders above 20 euros."),
)


def grounded(question: str) -> str:
    """The prompt that the checkpoint was tuned on, up to the citation."""
    passages = "\n\n".join(f"[{number}] {title}\n{text}" for number, (title, text) in enumerate(PASSAGES, 1))
    return (
        "<|im_start|>system\nYou answer the visitors of a bakery's website.<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>passages\n{passages}<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n["
    )


def byte_tokenizer() -> Tokenizer:
    """One token a byte, and the two control tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    tokens = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
    return Tokenizer([*tokens, "<|im_start|>", "<|im_end|>"], [], ["<|im_start|>", "<|im_end|>"])


def build_small(seed: int, precision: str) -> Model:
    """Three layers, three heads of 16, random weights of the size that training leaves."""
    tokenizer = byte_tokenizer()
    config = RetNetConfig(layers=3, width=48, heads=3, head_dim=16, feed_forward=96, vocabulary=len(tokenizer))
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    layers = []
    for _ in range(config.layers):
        tensors = {
            "retention_norm": torch.ones(config.width),
            "projection": random(4 * config.inner, config.width),
            "convolution": random(config.convolved, config.conv_width),
            "gate_weight": random(config.heads, config.width),
            "gate_bias": torch.zeros(config.heads),
            "rate": torch.linspace(-2.0, -6.0, config.heads),
            "group_norm": torch.ones(config.inner),
            "output": random(config.width, config.inner),
            "feed_forward_norm": torch.ones(config.width),
            "gate": random(config.feed_forward, config.width),
            "up": random(config.feed_forward, config.width),
            "down": random(config.width, config.feed_forward),
        }
        layers.append(pack_layer(tensors, config, precision))
    table = random(config.vocabulary, config.width) * 4
    return Model(
        config,
        layers,
        lambda ids: F.embedding(ids, table),
        torch.ones(config.width),
        pack(table, precision),
        fingerprint=f"small-{seed}",
        precision=precision,
        tokenizer=tokenizer,
    )


@pytest.fixture(scope="session")
def small() -> Model:
    return build_small(1, "float32")


@pytest.fixture(scope="session")
def foreign() -> Model:
    return build_small(2, "float32")


@pytest.fixture(scope="session")
def shipped_tokenizer() -> Tokenizer:
    """The shipped tokenizer, without the weights."""
    file = Gguf(find_base_model())
    try:
        return Tokenizer.from_gguf(file)
    finally:
        file.close()


@pytest.fixture(scope="session")
def shipped() -> Model:
    """The shipped checkpoint, exact arithmetic."""
    torch.set_num_threads(2)
    return load_model(precision="float32")


@pytest.fixture(scope="session")
def shipped_int8() -> Model:
    """The shipped checkpoint as most machines run it."""
    torch.set_num_threads(2)
    return load_model(precision="int8")


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Starts engines and closes them after the test."""
    engines: list[Engine] = []

    def started(model: Model, **sizes: int) -> Engine:
        engine = Engine(model, **sizes)
        engines.append(engine)
        engine.start()
        return engine

    yield started
    for engine in engines:
        engine.close()

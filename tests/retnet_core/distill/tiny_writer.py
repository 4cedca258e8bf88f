"""A writer as a GGUF of the architecture qwen2 whose next token depends on the last one alone, so that a test knows what it may write."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from retnet_core.tokenizer import byte_alphabet

LAYERS, WIDTH, HEADS, KEY_VALUE_HEADS = 2, 320, 8, 4
START, END = "<|im_start|>", "<|im_end|>"
# What follows a line break, each begun as often as the others.
QUESTION, ANSWER, NEAR_MISS = (
    "A: how long may I keep a book?\n",
    "= You may keep it for 28 days.\n",
    "none: do you sell stamps here?",
)
TITLE = "Elm Street Library: Loans\n"
PAGE = " ".join(f"We lend item {number} for {number} days." for number in range(2, 10))
TOLD, ASKED, MEMORY = "- my card is 4471, and I lost it\n", "? what was the number of my card?\n", "= Your card is 4471."
CHAIN = {
    "\n": (QUESTION, TITLE, TOLD),
    QUESTION: (ANSWER,),
    ANSWER: (NEAR_MISS,),
    TITLE: (PAGE,),
    TOLD: (ASKED,),
    ASKED: (MEMORY,),
    ":": (" A",) * 20 + (" n",) * 19,
}
_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_ORDINARY, _CONTROL = 1, 3
F32 = 0

Value = int | float | str | list[str] | list[int]


def gguf(metadata: Mapping[str, Value], tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]]) -> bytes:
    """The bytes of a GGUF, version 3; tensors are (shape with the slowest dimension first, type, bytes)."""

    def text(given: str) -> bytes:
        return struct.pack("<Q", len(given.encode())) + given.encode()

    def value(given: Value) -> bytes:
        if isinstance(given, str):
            return struct.pack("<I", _STRING) + text(given)
        if isinstance(given, int):
            return struct.pack("<II", _UINT32, given)
        if isinstance(given, float):
            return struct.pack("<If", _FLOAT32, given)
        if given and isinstance(given[0], int):
            return struct.pack(f"<IIQ{len(given)}i", _ARRAY, _INT32, len(given), *given)
        return struct.pack("<IIQ", _ARRAY, _STRING, len(given)) + b"".join(map(text, map(str, given)))

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(name) + value(given) for name, given in metadata.items())
    data = b""
    for name, (shape, kind, raw) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    return head + bytes(-len(head) % 32) + data


def vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges): the bytes, a space with a letter, and whole lines that no text is ever cut into."""
    stand_ins = {byte: character for character, byte in byte_alphabet().items()}

    def stored(text: str) -> str:
        return "".join(stand_ins[byte] for byte in text.encode())

    space, letters = stored(" "), [*"ABCDEFGHIJKLMNOPQRSTUVWXYZn"]
    lines = dict.fromkeys(one for options in CHAIN.values() for one in options if len(one) > 2)
    tokens = [*stand_ins.values(), *(space + one for one in letters), *map(stored, lines), START, END]
    return tokens, [f"{space} {one}" for one in letters]


def write_gguf(path: Path) -> Path:
    """The writer of `CHAIN`; after any other token it ends."""
    tokens, merges = vocabulary()
    places = {token: place for place, token in enumerate(tokens)}
    stand_ins = {byte: character for character, byte in byte_alphabet().items()}

    def place(text: str) -> int:
        return places[text] if text in (START, END) else places["".join(stand_ins[byte] for byte in text.encode())]

    follows = torch.zeros(WIDTH, WIDTH)
    follows[place(END)] = 1.0
    for last, options in CHAIN.items():
        follows[:, place(last)] = 0.0
        for one in options:
            follows[place(one), place(last)] += 1.0
    # Embeddings are unit vectors: the first layer's feed-forward takes the last token away and adds what may follow; the rest adds nothing.
    one_each, scale = torch.eye(WIDTH), WIDTH**-0.5
    tensors: dict[str, Tensor] = {
        "token_embd.weight": torch.eye(len(tokens), WIDTH),
        "output_norm.weight": torch.full((WIDTH,), 2.0),
    }
    for number in range(LAYERS):
        at, first = f"blk.{number}.", float(number == 0)
        generator = torch.Generator().manual_seed(number)
        for name, wide in (("q", WIDTH), ("k", WIDTH // 2), ("v", WIDTH // 2)):
            tensors[f"{at}attn_{name}.weight"] = torch.randn(wide, WIDTH, generator=generator) * scale
            tensors[f"{at}attn_{name}.bias"] = torch.randn(wide, generator=generator) * 0.1
        tensors |= {
            f"{at}attn_norm.weight": torch.ones(WIDTH),
            f"{at}attn_output.weight": torch.zeros(WIDTH, WIDTH),
            f"{at}ffn_norm.weight": torch.ones(WIDTH),
            # silu(20) is 20.
            f"{at}ffn_gate.weight": one_each * 20 * scale,
            f"{at}ffn_up.weight": one_each / 20 * scale,
            f"{at}ffn_down.weight": (follows - one_each) * first,
        }
    metadata: dict[str, Value] = {
        "general.architecture": "qwen2",
        "qwen2.block_count": LAYERS,
        "qwen2.embedding_length": WIDTH,
        "qwen2.attention.head_count": HEADS,
        "qwen2.attention.head_count_kv": KEY_VALUE_HEADS,
        "qwen2.feed_forward_length": WIDTH,
        "qwen2.rope.freq_base": 10000.0,
        "qwen2.attention.layer_norm_rms_epsilon": 1e-6,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL if one in (START, END) else _ORDINARY for one in tokens],
        "tokenizer.ggml.merges": merges,
    }
    stored = {name: (tuple(one.shape), F32, one.contiguous().numpy().tobytes()) for name, one in tensors.items()}
    path.write_bytes(gguf(metadata, stored))
    return path

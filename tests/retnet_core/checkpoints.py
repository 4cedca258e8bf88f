"""Small checkpoints as files: trained tensors under their stored names, and a GGUF in the place of the base model."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.delta import FINAL_NORM, STORED, layer_shapes

CONFIG = RetNetConfig(layers=2, width=32, heads=2, head_dim=16, feed_forward=64, vocabulary=40)
F32, F16, Q8_0 = 0, 1, 8
_UINT32, _STRING, _ARRAY = 4, 8, 9


def trained() -> dict[str, Tensor]:
    """The tensors of `CONFIG`, the projections as int8 with scales, one correction of rank 3."""
    generator = torch.Generator().manual_seed(0)
    shapes = layer_shapes(CONFIG)
    tensors: dict[str, Tensor] = {FINAL_NORM: torch.ones(CONFIG.width).half()}
    for number in range(CONFIG.layers):
        for name, stored in STORED.items():
            tensors[f"{number}.{stored}"] = (torch.randn(shapes[name], generator=generator) * 0.2).half()
        tensors[f"{number}.ll"] = torch.tensor([-1.0, -4.0])
        tensors[f"{number}.wi"] = torch.randint(-127, 128, shapes["projection"], generator=generator, dtype=torch.int8)
        tensors[f"{number}.wi.s"] = torch.full(shapes["projection"][:1], 0.002).half()
    tensors["1.gA"], tensors["1.gB"] = torch.ones(3, CONFIG.width), torch.ones(CONFIG.feed_forward, 3)
    return tensors


def save(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """The folder, with the tensors in one file."""
    folder.mkdir(exist_ok=True)
    save_file(dict(tensors), folder / "delta.safetensors")
    return folder


def base_metadata() -> dict[str, int | str | list[str]]:
    """What the base model of `CONFIG` says of itself."""
    return {
        "general.architecture": "llama",
        "llama.block_count": CONFIG.layers,
        "llama.embedding_length": CONFIG.width,
        "llama.feed_forward_length": CONFIG.feed_forward,
        "tokenizer.ggml.tokens": [f"t{number}" for number in range(CONFIG.vocabulary)],
        "tokenizer.ggml.merges": ["t 0"],
    }


def base_tensors() -> dict[str, tuple[tuple[int, ...], int]]:
    """Shapes, slowest dimension first, and types of the base model of `CONFIG`."""
    shapes = layer_shapes(CONFIG)
    tensors: dict[str, tuple[tuple[int, ...], int]] = {"token_embd.weight": ((CONFIG.vocabulary, CONFIG.width), Q8_0)}
    for number in range(CONFIG.layers):
        for name, stored in (("gate", "ffn_gate"), ("up", "ffn_up"), ("down", "ffn_down")):
            tensors[f"blk.{number}.{stored}.weight"] = (shapes[name], F16)
    return tensors


def gguf(metadata: Mapping[str, int | str | list[str]], tensors: Mapping[str, tuple[tuple[int, ...], int]]) -> bytes:
    """The bytes of a GGUF, version 3, whose tensors hold zeros."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value(given: int | str | list[str]) -> bytes:
        if isinstance(given, int):
            return struct.pack("<II", _UINT32, given)
        if isinstance(given, str):
            return struct.pack("<I", _STRING) + text(given)
        return struct.pack("<IIQ", _ARRAY, _STRING, len(given)) + b"".join(map(text, given))

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(name) + value(given) for name, given in metadata.items())
    data = b""
    for name, (shape, kind) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(data))
        count = torch.Size(shape).numel()
        data += bytes({F32: 4 * count, F16: 2 * count, Q8_0: count // 32 * 34}[kind])
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data

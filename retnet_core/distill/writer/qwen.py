"""Qwen2 (arXiv 2407.10671) from a GGUF: a Transformer with grouped queries, biases on q, k and v, and RMSNorm before each part.

Only what a writer needs: layers over rows of hidden states, with the attention left to the caller, who owns the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional

from retnet_core.gguf import Gguf, GgufError

# (number of the layer, q [rows, heads, head], k and v [rows, key_value_heads, head]) -> [rows, heads · head]
Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]

_CONTROL = 3
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True)
class QwenConfig:
    """Sizes of the model."""

    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int
    rotary_base: float
    epsilon: float

    @property
    def head(self) -> int:
        """The width of one head."""
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights, products that read the same input joined into one."""

    norm: Tensor
    queries_keys_values: Tensor
    bias: Tensor
    out: Tensor
    feed_forward_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Qwen:
    """The network on one device. `embeddings` are also the output's weights."""

    def __init__(self, config: QwenConfig, layers: list[Layer], embeddings: Tensor, norm: Tensor) -> None:
        self.config, self.layers, self.embeddings, self.norm = config, layers, embeddings, norm

    @property
    def device(self) -> torch.device:
        return self.embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.dtype

    @classmethod
    def load(cls, path: Path, device: torch.device | str, dtype: torch.dtype) -> tuple[Qwen, tokenizers.Tokenizer]:
        """The network and its tokenizer from a GGUF of the architecture qwen2. Raises `GgufError` for another, or a damaged file."""
        with Gguf(path) as file:
            if file.metadata.get("general.architecture") != "qwen2":
                raise GgufError(f"{path} holds {file.metadata.get('general.architecture')!r}; the writer must be a qwen2")
            config = _config(file)

            def read(name: str) -> Tensor:
                return file.tensor(name, device).to(dtype)

            layers = []
            for number in range(config.layers):
                at = f"blk.{number}."
                q, k, v = (read(f"{at}attn_{name}.weight") for name in "qkv")
                biases = [read(f"{at}attn_{name}.bias") for name in "qkv"]
                gate_up = torch.cat([read(f"{at}ffn_gate.weight"), read(f"{at}ffn_up.weight")])
                layers.append(
                    Layer(
                        read(f"{at}attn_norm.weight"),
                        torch.cat([q, k, v]),
                        torch.cat(biases),
                        read(f"{at}attn_output.weight"),
                        read(f"{at}ffn_norm.weight"),
                        gate_up,
                        read(f"{at}ffn_down.weight"),
                    )
                )
            # Where both stand in the file they are the same matrix, and the output's has more bits.
            embeddings = read("output.weight" if "output.weight" in file.entries else "token_embd.weight")
            return cls(config, layers, embeddings, read("output_norm.weight")), build_tokenizer(file)

    def embed(self, ids: Tensor) -> Tensor:
        """`ids` int64 [rows] → [rows, width]."""
        return functional.embedding(ids, self.embeddings)

    def hidden(self, rows: Tensor, attend: Attention, silu_product: Callable[[Tensor], Tensor]) -> Tensor:
        """All layers over `rows` [rows, width]; `silu_product` maps [rows, 2 · feed_forward] (gate, up) to silu(gate) · up."""
        config = self.config
        queries, keys = config.heads * config.head, config.key_value_heads * config.head
        for number, layer in enumerate(self.layers):
            joined = functional.linear(self._rms(rows, layer.norm), layer.queries_keys_values, layer.bias)
            q, k, v = joined.split([queries, keys, keys], dim=-1)
            attended = attend(number, *(part.unflatten(-1, (-1, config.head)) for part in (q, k, v)))
            rows = rows + functional.linear(attended, layer.out)
            inner = silu_product(functional.linear(self._rms(rows, layer.feed_forward_norm), layer.gate_up))
            rows = rows + functional.linear(inner, layer.down)
        return rows

    def logits(self, rows: Tensor, among: Tensor | None = None) -> Tensor:
        """[rows, vocabulary], or of the ids `among` [n] alone."""
        weights = self.embeddings if among is None else self.embeddings[among]
        return functional.linear(self._rms(rows, self.norm), weights)

    def angles(self, positions: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary embedding, fp32 [positions, head / 2]."""
        half = torch.arange(0, self.config.head, 2, device=self.device).float()
        frequencies = self.config.rotary_base ** (-half / self.config.head)
        angles = torch.arange(positions, device=self.device).float()[:, None] * frequencies
        return angles.cos(), angles.sin()

    def _rms(self, rows: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(rows, (self.config.width,), weight, self.config.epsilon)


def rotate(rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, first half against second. `rows` [n, heads, head], `cos` and `sin` fp32 [n, head / 2]."""
    first, second = rows.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(rows.dtype)


def build_tokenizer(file: Gguf) -> tokenizers.Tokenizer:
    """Qwen2's byte-level BPE from the GGUF's vocabulary and merges."""
    tokens: list[str] = file.metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = file.metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in file.metadata["tokenizer.ggml.merges"]]
    built = tokenizers.Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    words = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    built.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    built.decoder = decoders.ByteLevel()
    control = [
        AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL
    ]
    built.add_special_tokens(control)
    return built


def _config(file: Gguf) -> QwenConfig:
    meta = file.metadata
    return QwenConfig(
        layers=meta["qwen2.block_count"],
        width=meta["qwen2.embedding_length"],
        heads=meta["qwen2.attention.head_count"],
        key_value_heads=meta["qwen2.attention.head_count_kv"],
        feed_forward=meta["qwen2.feed_forward_length"],
        vocabulary=len(meta["tokenizer.ggml.tokens"]),
        rotary_base=meta["qwen2.rope.freq_base"],
        epsilon=meta["qwen2.attention.layer_norm_rms_epsilon"],
    )

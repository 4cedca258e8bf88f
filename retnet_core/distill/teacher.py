"""The frozen Transformer that the student learns from: SmolLM2-135M-Instruct out of the installed GGUF (or a tiny one in tests)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from retnet_core.checkpoint import check_base
from retnet_core.config import RetNetConfig
from retnet_core.gguf import Gguf, find_base_model
from retnet_core.tokenizer import Tokenizer

FIRST_KEY = 4
"""Attention to the first tokens is a place to rest, not a looking back (arXiv 2309.17453): left out of the mean look-back."""


@dataclass(frozen=True, slots=True)
class Base:
    """What teacher and student begin with: sizes, tensors in fp32 under the GGUF's names, tokenizer."""

    config: RetNetConfig
    key_heads: int
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer

    @classmethod
    def load(cls, path: Path | None = None) -> Base:
        """From a GGUF; None: the installed one. Raises `CheckpointError`, `GgufError` or `FileNotFoundError`, each saying what to do."""
        config = RetNetConfig()
        with Gguf(path or find_base_model()) as file:
            check_base(file, config)
            tensors = {name: file.tensor(name) for name in file.entries}
            return cls(config, int(file.metadata["llama.attention.head_count_kv"]), tensors, Tokenizer.from_gguf(file))


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """In fp32, returned in the type of `x`."""
    values = x.float()
    values = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + eps)
    return (values if weight is None else values * weight.float()).to(x.dtype)


def rotation(length: int, config: RetNetConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each pair's angle at each position: fp32 `[length, 1, head_dim / 2]`."""
    pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device=device) / config.head_dim
    angle = torch.arange(length, dtype=torch.float64, device=device)[:, None, None] * config.rotary_base**-pairs
    return angle.cos().float(), angle.sin().float()


def turn(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Interleaved pairs of `[batch, length, heads, head_dim]` turned (rotary embedding, arXiv 2104.09864)."""
    first, second = heads.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((first * cosine - second * sine, second * cosine + first * sine), -1)
    return turned.flatten(-2).to(heads.dtype)


def feed_forward(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


class _Layer(NamedTuple):
    """A tuple, so that a compiled layer takes tensors and nothing that would be compiled anew for every layer."""

    norm: Tensor
    projection: Tensor
    output: Tensor
    feed_forward_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


class Teacher:
    """Hidden states, attention outputs and look-backs of the base. Nothing here takes gradients."""

    def __init__(self, base: Base, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> None:
        self.config, self.key_heads = base.config, base.key_heads
        self.device, self.dtype = device, dtype

        def given(name: str) -> Tensor:
            return base.tensors[name].to(device, dtype)

        self.embedding, self.final_norm = given("token_embd.weight"), given("output_norm.weight")
        self._layers = []
        for number in range(base.config.layers):
            own = f"blk.{number}."
            projection = torch.cat([given(f"{own}attn_{part}.weight") for part in "qkv"])
            self._layers.append(
                _Layer(
                    given(f"{own}attn_norm.weight"),
                    projection,
                    given(f"{own}attn_output.weight"),
                    given(f"{own}ffn_norm.weight"),
                    *(given(f"{own}ffn_{part}.weight") for part in ("gate", "up", "down")),
                )
            )
        self._layer: Callable[..., tuple[Tensor, Tensor]] = (
            torch.compile(self._forward_layer, dynamic=False) if compiled else self._forward_layer
        )

    @torch.no_grad()
    def hidden(self, ids: Tensor, since: Tensor | None = None) -> Tensor:
        """The states after the final norm, `[batch, length, width]`, of int64 ids `[batch, length]`; `since`: see `Student.hidden`."""
        x, mask = F.embedding(ids, self.embedding), self._mask(since)
        turned = rotation(ids.shape[1], self.config, self.device)
        for layer in self._layers:
            x, _ = self._layer(x, *turned, mask, *layer)
        return rms_norm(x, self.final_norm, self.config.norm_eps)

    @torch.no_grad()
    def by_layer(self, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(what goes into the layer, what its attention adds), each `[batch, length, width]`, layer after layer."""
        x, found = F.embedding(ids, self.embedding), []
        turned = rotation(ids.shape[1], self.config, self.device)
        for layer in self._layers:
            before = x
            x, attended = self._layer(x, *turned, None, *layer)
            found.append((before, attended))
        return found

    @torch.no_grad()
    def look_back(self, ids: Tensor) -> Tensor:
        """The mean distance in tokens that each head looks back, over the later three quarters: fp32 `[layers, heads]` on the host."""
        x, length, found = F.embedding(ids, self.embedding), ids.shape[1], []
        turned = rotation(length, self.config, self.device)
        places = torch.arange(length, device=self.device)
        distance = (places[:, None] - places).float()
        seen = (distance >= 0) & (places >= FIRST_KEY)
        for layer in self._layers:
            q, k, _ = self._heads(x, *turned, layer.norm, layer.projection)
            scores = (q.float() @ k.float().transpose(-1, -2)) * self.config.head_dim**-0.5
            # The first rows see no key that counts.
            weights = scores.masked_fill(~seen, -1e30).softmax(-1)
            mean = (weights * distance.clamp_min(0)).sum(-1)[:, :, length // 4 :].mean((0, 2))
            found.append(mean.cpu())
            x, _ = self._layer(x, *turned, None, *layer)
        return torch.stack(found)

    def _mask(self, since: Tensor | None) -> Tensor | None:
        """Which keys a query sees where several documents share a row: bool `[batch, 1, length, length]`; None: all before it."""
        if since is None:
            return None
        places = torch.arange(since.shape[1], device=since.device)
        begun = places - since
        return ((places[None, :, None] >= places) & (begun[:, :, None] <= places)).unsqueeze(1)

    def _heads(self, x: Tensor, cosine: Tensor, sine: Tensor, norm: Tensor, projection: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v as `[batch, heads, length, head_dim]`, each key head given to those that share it."""
        config, shared = self.config, self.config.heads // self.key_heads
        projected = F.linear(rms_norm(x, norm, config.norm_eps), projection).unflatten(-1, (-1, config.head_dim))
        q, k, v = projected.split([config.heads, self.key_heads, self.key_heads], 2)
        q, k = turn(q, cosine, sine), turn(k, cosine, sine)
        k, v = k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def _forward_layer(
        self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor | None, norm: Tensor, projection: Tensor, output: Tensor,
        feed_forward_norm: Tensor, gate: Tensor, up: Tensor, down: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        q, k, v = self._heads(x, cosine, sine, norm, projection)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        attended = F.linear(heads.transpose(1, 2).flatten(2), output)
        x = x + attended
        normed = rms_norm(x, feed_forward_norm, self.config.norm_eps)
        return x + feed_forward(normed, gate, up, down), attended

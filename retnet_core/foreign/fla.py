"""RetNets of flash-linear-attention (fla-core 0.6.0; `fla.models.RetNetForCausalLM`): fixed decay, rotary pairs from the two halves of a head, one
head norm weight shared by all heads, and, where its tensors are there, short convolutions with SiLU.

In 0.6.0 the layer (`fla.layers.MultiScaleRetention`) has short convolutions, but the model does not hand `use_short_conv` on to it: what counts is
whether the checkpoint holds `q_conv1d`. Where several heads share keys and values (`num_kv_heads`), we hold those once for each head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.foreign import (
    STACKED,
    ForeignError,
    Parts,
    Tensors,
    configuration,
    demand,
    flag_of,
    joined,
    layer_shapes,
    number_of,
    projection_sizes,
    size_of,
)

_ALWAYS: dict[str, object] = {
    "feature_map": None,
    "hidden_act": "swish",
    "use_output_gate": True,
    "attn": None,
    "attnres_block_size": None,
}
_OURS: dict[str, object] = {
    "decay": "paper",
    "rotary_pairs": "halves",
    "rotary_spacing": "open",
    "rotary_base": 1e4,
    "normalisation": "none",
    "feed_forward_activation": "swish",
    "embedding_scale": 1.0,
}
_SHARED = ("k", "v")
_NAMES = {
    "retention_norm.weight": "attn_norm.weight",
    "retention.output.weight": "attn.o_proj.weight",
    "feed_forward_norm.weight": "mlp_norm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}
SETTINGS = (
    *_ALWAYS,
    "num_kv_heads",
    "hidden_size",
    "expand_k",
    "expand_v",
    "hidden_ratio",
    "intermediate_size",
    "num_hidden_layers",
    "num_heads",
    "norm_eps",
    "elementwise_affine",
    "fuse_norm",
    "tie_word_embeddings",
    "vocab_size",
)
"""What is read of fla's configuration; the rest says nothing about the function that the network computes."""
_FIRST_CONVOLUTION = "model.layers.0.attn.q_conv1d.weight"


def read(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[RetNetConfig, dict[str, Tensor]]:
    """`fields`: the `config.json` of `fla.models.RetNetConfig`, with all sizes; `tensors`: the `state_dict` of `RetNetForCausalLM`.

    Raises `ForeignError` for a setting or tensor that is not supported, missing, left over or of another shape.
    """
    config, parts = read_parts(fields, tensors)
    return config, joined(parts)


def read_parts(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[RetNetConfig, Parts]:
    """As `read`, without stacking."""
    taps = _taps(tensors)
    config = _config(fields, taps)
    shared = _Shared(config.heads, _key_value_heads(fields, config.heads))
    left = Tensors(tensors)
    matrix = (config.vocabulary, config.width)
    embedding = left.take("model.embeddings.weight", matrix)
    ours: Parts = {"embedding.weight": [embedding]}
    if config.tied:
        left.take_equal("lm_head.weight", embedding, "the embedding, though tie_word_embeddings is set")
    else:
        ours["head.weight"] = [left.take("lm_head.weight", matrix)]
    ours["final_norm.weight"] = [left.take("model.norm.weight", (config.width,))]
    shapes, sizes = layer_shapes(config), projection_sizes(config)
    for layer in range(config.layers):
        theirs, here = f"model.layers.{layer}", f"layers.{layer}"
        for name, foreign in _NAMES.items():
            ours[f"{here}.{name}"] = [left.take(f"{theirs}.{foreign}", shapes[name])]
        ours[f"{here}.retention.projection.weight"] = [
            row
            for part, size in sizes.items()
            for row in shared.spread(
                part, left.take(f"{theirs}.attn.{part}_proj.weight", (shared.rows(part, size), config.width))
            )
        ]
        if config.head_norm == "shared":
            unfused = f"{theirs}.attn.g_norm.weight"
            name = unfused if unfused in left else f"{theirs}.attn.g_norm_swish_gate.weight"
            ours[f"{here}.retention.head_norm"] = [left.take(name, (config.head_value_dim,))]
        if taps:
            ours[f"{here}.retention.convolution"] = [
                row
                for part in STACKED[:3]
                for row in shared.spread(
                    part, left.take(f"{theirs}.attn.{part}_conv1d.weight", (shared.rows(part, sizes[part]), 1, taps)).squeeze(1)
                )
            ]
    left.finish()
    return config, ours


def write(
    config: RetNetConfig, tensors: Mapping[str, Tensor], *, fuse_norm: bool = True, num_kv_heads: int | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The inverse of `read`. `fuse_norm`: fla's setting of that name, which decides what the head norm is called; `num_kv_heads`: how many heads'
    keys and values to store, if the others still repeat them; where they do not, each head's are stored.

    Raises `ForeignError` for a configuration that fla cannot express, and for tensors as `read` does.
    """
    shared = _Shared(config.heads, _key_value_heads({"num_kv_heads": num_kv_heads}, config.heads))
    if not shared.holds(config, tensors):
        num_kv_heads, shared = None, _Shared(config.heads, config.heads)
    fields = {**_fields(config), "fuse_norm": fuse_norm, "num_kv_heads": num_kv_heads}
    left = Tensors(tensors)
    matrix = (config.vocabulary, config.width)
    foreign = {"model.embeddings.weight": left.take("embedding.weight", matrix)}
    foreign["lm_head.weight"] = foreign["model.embeddings.weight"] if config.tied else left.take("head.weight", matrix)
    foreign["model.norm.weight"] = left.take("final_norm.weight", (config.width,))
    shapes, parts = layer_shapes(config), projection_sizes(config)
    for layer in range(config.layers):
        theirs, here = f"model.layers.{layer}", f"layers.{layer}"
        for name, there in _NAMES.items():
            foreign[f"{theirs}.{there}"] = left.take(f"{here}.{name}", shapes[name])
        stacked = left.take(f"{here}.retention.projection.weight", (sum(parts.values()), config.width))
        for part, rows in zip(parts, stacked.split(list(parts.values())), strict=True):
            foreign[f"{theirs}.attn.{part}_proj.weight"] = shared.gather(part, rows).contiguous()
        if config.head_norm == "shared":
            name = "g_norm_swish_gate" if fuse_norm else "g_norm"
            foreign[f"{theirs}.attn.{name}.weight"] = left.take(f"{here}.retention.head_norm", (config.head_value_dim,))
        if config.conv_width:
            taps = left.take(f"{here}.retention.convolution", (config.convolved, config.conv_width))
            for part, rows in zip(STACKED, taps.split([parts[part] for part in STACKED[:3]]), strict=False):
                foreign[f"{theirs}.attn.{part}_conv1d.weight"] = shared.gather(part, rows).unsqueeze(1).contiguous()
    left.finish()
    return fields, foreign


@dataclass(frozen=True, slots=True)
class _Shared:
    """Keys and values that groups of heads share: head h of `stored` serves heads h · size to h · size + size − 1."""

    heads: int
    stored: int

    def rows(self, part: str, size: int) -> int:
        """How many of a projection's rows are stored."""
        return size * self.stored // self.heads if part in _SHARED else size

    def spread(self, part: str, rows: Tensor) -> list[Tensor]:
        """Stored rows as parts, one for every head that they serve."""
        if part not in _SHARED or self.stored == self.heads:
            return [rows]
        return [head for head in rows.chunk(self.stored) for _ in range(self.heads // self.stored)]

    def gather(self, part: str, rows: Tensor) -> Tensor:
        """The inverse of `spread`."""
        if part not in _SHARED or self.stored == self.heads:
            return rows
        return self._grouped(rows)[:, 0].flatten(0, 1)

    def holds(self, config: RetNetConfig, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the heads of each group have the same keys and values in every layer."""
        if self.stored == self.heads:
            return True
        sizes = list(projection_sizes(config).values())
        for name, tensor in tensors.items():
            if name.endswith(("retention.projection.weight", "retention.convolution")):
                for rows in tensor.split(sizes if tensor.shape[0] == sum(sizes) else sizes[:3])[1:3]:
                    grouped = self._grouped(rows)
                    if not torch.equal(grouped, grouped[:, :1].expand_as(grouped)):
                        return False
        return True

    def _grouped(self, rows: Tensor) -> Tensor:
        """`[stored, heads of a group, rows of a head, …]`."""
        return rows.unflatten(0, (self.stored, self.heads // self.stored, -1))


def _key_value_heads(fields: Mapping[str, Any], heads: int) -> int:
    if fields.get("num_kv_heads") is None:
        return heads
    stored = size_of(fields, "num_kv_heads")
    if heads % stored:
        raise ForeignError(f"num_kv_heads = {stored} does not divide num_heads = {heads}")
    return stored


def _taps(tensors: Mapping[str, Tensor]) -> int:
    if _FIRST_CONVOLUTION not in tensors:
        return 0
    shape = tuple(tensors[_FIRST_CONVOLUTION].shape)
    if len(shape) != 3:
        raise ForeignError(f"{_FIRST_CONVOLUTION} has the shape {shape}; expected three dimensions")
    return shape[-1]


def _config(fields: Mapping[str, Any], taps: int) -> RetNetConfig:
    width, heads = size_of(fields, "hidden_size"), size_of(fields, "num_heads")
    demand(fields, _ALWAYS)
    keys, values = (round(width * number_of(fields, name)) for name in ("expand_k", "expand_v"))
    for name, size in (("hidden_size · expand_k", keys), ("hidden_size · expand_v", values)):
        if size % heads:
            raise ForeignError(f"{name} = {size} is not a multiple of num_heads = {heads}")
    return configuration(
        layers=size_of(fields, "num_hidden_layers"),
        width=width,
        heads=heads,
        head_dim=keys // heads,
        value_dim=values // heads,
        feed_forward=_feed_forward(fields, width),
        vocabulary=size_of(fields, "vocab_size"),
        norm_eps=number_of(fields, "norm_eps", 1e-6),
        conv_width=taps,
        conv_activation="silu" if taps else "none",
        head_norm="shared" if flag_of(fields, "elementwise_affine", True) else "none",
        tied=flag_of(fields, "tie_word_embeddings", False),
        **_OURS,
    )


def _feed_forward(fields: Mapping[str, Any], width: int) -> int:
    """Its width, spelt out or from fla's rule: two thirds of `hidden_ratio` widths, rounded up to a multiple of 256."""
    if fields.get("intermediate_size") is not None:
        return size_of(fields, "intermediate_size")
    ratio = 4.0 if fields.get("hidden_ratio") is None else number_of(fields, "hidden_ratio")
    return -(-int(width * ratio * 2 / 3) // 256) * 256


def _fields(config: RetNetConfig) -> dict[str, Any]:
    demand({name: getattr(config, name) for name in _OURS}, _OURS)
    if config.head_query_scale != config.head_dim**-0.5:
        raise ForeignError(f"query_scale = {config.query_scale} is not supported; fla's is 1/√head_dim")
    if config.head_norm == "channel":
        raise ForeignError("head_norm = 'channel' is not supported; fla's weight is shared by all heads, or absent")
    if config.conv_width and config.conv_activation != "silu":
        raise ForeignError("conv_activation = 'none' is not supported; fla's convolutions end in SiLU")
    return {
        **_ALWAYS,
        "model_type": "retnet",
        "hidden_size": config.width,
        "expand_k": config.inner / config.width,
        "expand_v": config.value_inner / config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_heads": config.heads,
        "vocab_size": config.vocabulary,
        "norm_eps": config.norm_eps,
        "use_short_conv": config.conv_width > 0,
        "conv_size": config.conv_width or 4,
        "elementwise_affine": config.head_norm == "shared",
        "tie_word_embeddings": config.tied,
    }

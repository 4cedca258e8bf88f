"""RetNets of torchscale 0.3.0 (`torchscale.architecture.retnet.RetNetDecoder`, which holds its embedding): fixed decay, no convolution, rotary pairs
side by side with angles from 1 to 1/10,000, the paper's normalisations, and head norms without weight.

torchscale puts `1/√key_dim` on k, we put it on q: the scores are the same. Its parallel form is the paper's, row sums included; its recurrent and
chunkwise forms normalise by other positive numbers, which differ from the parallel form by the head norm's eps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.foreign import (
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
    "decoder_normalize_before": True,
    "deepnorm": False,
    "layernorm_embedding": False,
    "moe_freq": 0,
    "multiway": False,
    "no_output_layer": False,
}
_OURS: dict[str, object] = {
    "decay": "paper",
    "conv_width": 0,
    "rotary_pairs": "interleaved",
    "rotary_spacing": "closed",
    "rotary_base": 1e4,
    "normalisation": "paper",
    "head_norm": "none",
}
_SIZES: dict[str, tuple[str | None, ...]] = {
    "embed_tokens.weight": ("vocab_size", "decoder_embed_dim"),
    "retnet_rel_pos.decay": ("decoder_retention_heads",),
    "layers.0.retention.v_proj.weight": ("decoder_value_embed_dim", None),
    "layers.0.ffn.fc1.weight": ("decoder_ffn_embed_dim", None),
}
"""Which setting each dimension of a tensor is."""
ASSUMED: dict[str, object] = {"activation_fn": "gelu", "layernorm_eps": 1e-6, "no_scale_embedding": True}
"""torchscale's defaults for what no tensor shows."""
SETTINGS = (
    *_ALWAYS,
    *ASSUMED,
    "decoder_embed_dim",
    "decoder_value_embed_dim",
    "decoder_retention_heads",
    "decoder_ffn_embed_dim",
    "decoder_layers",
    "share_decoder_input_output_embed",
    "vocab_size",
)
"""What is read of torchscale's configuration; the rest says nothing about the function that the network computes."""
_NAMES = {
    "retention_norm.weight": "retention_layer_norm.weight",
    "retention.output.weight": "retention.out_proj.weight",
    "feed_forward_norm.weight": "final_layer_norm.weight",
    # torchscale applies the activation to fc1 and calls the other factor the gate.
    "feed_forward.gate.weight": "ffn.fc1.weight",
    "feed_forward.up.weight": "ffn.gate.weight",
    "feed_forward.down.weight": "ffn.fc2.weight",
}


def read(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[RetNetConfig, dict[str, Tensor]]:
    """`fields`: the attributes of `torchscale.architecture.config.RetNetConfig`; `tensors`: the decoder's `state_dict`.

    Raises `ForeignError` for a setting or tensor that is not supported, missing, left over or of another shape.
    """
    config, parts = read_parts(fields, tensors)
    return config, joined(parts)


def read_parts(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[RetNetConfig, Parts]:
    """As `read`, without stacking."""
    config = _config(fields)
    left = Tensors(tensors)
    # Buffers; a checkpoint whose schedule was changed must not pass for the published one.
    left.take_computed("retnet_rel_pos.angle", _angle(config), "torchscale's angles of 1 to 1/10,000")
    left.take_computed("retnet_rel_pos.decay", _decay(config), "torchscale's decays of log(1 − 2^(−5−h))")
    matrix = (config.vocabulary, config.width)
    embedding = left.take("embed_tokens.weight", matrix)
    ours: Parts = {"embedding.weight": [embedding]}
    if config.tied:
        left.take_equal("output_projection.weight", embedding, "the embedding, though share_decoder_input_output_embed is set")
    else:
        ours["head.weight"] = [left.take("output_projection.weight", matrix)]
    ours["final_norm.weight"] = [left.take("layer_norm.weight", (config.width,))]
    shapes, sizes = layer_shapes(config), projection_sizes(config)
    for layer in range(config.layers):
        for name, foreign in _NAMES.items():
            ours[f"layers.{layer}.{name}"] = [left.take(f"layers.{layer}.{foreign}", shapes[name])]
        ours[f"layers.{layer}.retention.projection.weight"] = [
            left.take(f"layers.{layer}.retention.{part}_proj.weight", (size, config.width)) for part, size in sizes.items()
        ]
    left.finish()
    return config, ours


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that a decoder's tensors tell by themselves: its sizes, and whether its output projection is the embedding.

    torchscale stores no configuration with its weights. What no tensor shows (activation, eps, embedding scale) is not in it.
    """
    found: dict[str, Any] = {}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, settings in _SIZES.items():
        for setting, size in zip(settings, shapes.get(name, ()), strict=False):
            if setting:
                found[setting] = size
    layers = {int(number) for number in (name.split(".")[1] for name in shapes if name.startswith("layers.")) if number.isdigit()}
    if layers:
        found["decoder_layers"] = len(layers)
    if "embed_tokens.weight" in tensors:
        head = tensors.get("output_projection.weight")
        found["share_decoder_input_output_embed"] = head is None or (
            head.shape == tensors["embed_tokens.weight"].shape and torch.equal(head, tensors["embed_tokens.weight"])
        )
    return found


def write(config: RetNetConfig, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The inverse of `read`. Raises `ForeignError` for a configuration that torchscale cannot express, and for tensors as `read` does."""
    fields = _fields(config)
    left = Tensors(tensors)
    matrix = (config.vocabulary, config.width)
    embedding = left.take("embedding.weight", matrix)
    # Buffers take the weights' type, as they do when a decoder is turned into it whole.
    foreign = {
        "retnet_rel_pos.angle": _angle(config).to(embedding.dtype),
        "retnet_rel_pos.decay": _decay(config).to(embedding.dtype),
    }
    foreign["embed_tokens.weight"] = embedding
    foreign["output_projection.weight"] = foreign["embed_tokens.weight"] if config.tied else left.take("head.weight", matrix)
    foreign["layer_norm.weight"] = left.take("final_norm.weight", (config.width,))
    shapes, parts = layer_shapes(config), projection_sizes(config)
    for layer in range(config.layers):
        for name, theirs in _NAMES.items():
            foreign[f"layers.{layer}.{theirs}"] = left.take(f"layers.{layer}.{name}", shapes[name])
        stacked = left.take(f"layers.{layer}.retention.projection.weight", (sum(parts.values()), config.width))
        for part, rows in zip(parts, stacked.split(list(parts.values())), strict=True):
            foreign[f"layers.{layer}.retention.{part}_proj.weight"] = rows.contiguous()
    left.finish()
    return fields, foreign


def _config(fields: Mapping[str, Any]) -> RetNetConfig:
    demand(fields, _ALWAYS)
    width, values, heads = (size_of(fields, f"decoder_{name}") for name in ("embed_dim", "value_embed_dim", "retention_heads"))
    for name, size in (("decoder_embed_dim", width), ("decoder_value_embed_dim", values)):
        if size % heads:
            raise ForeignError(f"{name} = {size} is not a multiple of decoder_retention_heads = {heads}")
    return configuration(
        layers=size_of(fields, "decoder_layers"),
        width=width,
        heads=heads,
        head_dim=width // heads,
        value_dim=values // heads,
        feed_forward=size_of(fields, "decoder_ffn_embed_dim"),
        vocabulary=size_of(fields, "vocab_size"),
        norm_eps=number_of(fields, "layernorm_eps", 1e-6),
        feed_forward_activation=fields.get("activation_fn", ASSUMED["activation_fn"]),
        tied=flag_of(fields, "share_decoder_input_output_embed", False),
        embedding_scale=1.0 if flag_of(fields, "no_scale_embedding", True) else math.sqrt(width),
        **_OURS,
    )


def _fields(config: RetNetConfig) -> dict[str, Any]:
    demand({name: getattr(config, name) for name in _OURS}, _OURS)
    if config.head_query_scale != config.head_dim**-0.5:
        raise ForeignError(f"query_scale = {config.query_scale} is not supported; torchscale's is 1/√head_dim")
    if config.inner != config.width:
        raise ForeignError(f"heads · head_dim = {config.inner} is not supported; torchscale's is the width, {config.width}")
    if config.embedding_scale not in (1.0, math.sqrt(config.width)):
        raise ForeignError(f"embedding_scale = {config.embedding_scale} is not supported; torchscale's is 1 or √width")
    return {
        **_ALWAYS,
        "decoder_layers": config.layers,
        "decoder_embed_dim": config.width,
        "decoder_value_embed_dim": config.value_inner,
        "decoder_retention_heads": config.heads,
        "decoder_ffn_embed_dim": config.feed_forward,
        "vocab_size": config.vocabulary,
        "layernorm_eps": config.norm_eps,
        "activation_fn": config.feed_forward_activation,
        "share_decoder_input_output_embed": config.tied,
        "no_scale_embedding": config.embedding_scale == 1.0,
    }


def _angle(config: RetNetConfig) -> Tensor:
    """The buffer, computed as `RetNetRelPos` does, so that it is the same to the bit."""
    return (1.0 / (10000 ** torch.linspace(0, 1, config.head_dim // 2))).unsqueeze(-1).repeat(1, 2).flatten()


def _decay(config: RetNetConfig) -> Tensor:
    return torch.log(1 - 2 ** (-5 - torch.arange(config.heads, dtype=torch.float)))

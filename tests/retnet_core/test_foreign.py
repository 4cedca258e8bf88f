"""Checkpoints of torchscale and flash-linear-attention become ours and theirs again, to the bit, and what does not fit is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.foreign import ForeignError, fla, torchscale
from retnet_core.network import RetNet

Checkpoint = tuple[dict[str, Any], dict[str, Tensor]]


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def of_torchscale(**changed: Any) -> Checkpoint:
    """A `RetNetDecoder` of 2 layers, width 12, 3 heads with keys of 4 and values of 6."""
    fields = {
        "decoder_embed_dim": 12,
        "decoder_value_embed_dim": 18,
        "decoder_retention_heads": 3,
        "decoder_ffn_embed_dim": 20,
        "decoder_layers": 2,
        "decoder_normalize_before": True,
        "activation_fn": "gelu",
        "dropout": 0.0,
        "no_scale_embedding": True,
        "layernorm_embedding": False,
        "moe_freq": 0,
        "deepnorm": False,
        "multiway": False,
        "share_decoder_input_output_embed": False,
        "no_output_layer": False,
        "layernorm_eps": 1e-6,
        "vocab_size": 30,
        **changed,
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (30, 12),
        "output_projection.weight": (30, 12),
        "layer_norm.weight": (12,),
    }
    for layer in range(2):
        for part, size in (("q", 12), ("k", 12), ("v", 18), ("g", 18)):
            shapes[f"layers.{layer}.retention.{part}_proj.weight"] = (size, 12)
        shapes[f"layers.{layer}.retention.out_proj.weight"] = (12, 18)
        shapes[f"layers.{layer}.retention_layer_norm.weight"] = shapes[f"layers.{layer}.final_layer_norm.weight"] = (12,)
        shapes[f"layers.{layer}.ffn.fc1.weight"] = shapes[f"layers.{layer}.ffn.gate.weight"] = (20, 12)
        shapes[f"layers.{layer}.ffn.fc2.weight"] = (12, 20)
    tensors = drawn(shapes)
    # As `RetNetRelPos` fills them: 1/10000^0 and 1/10000^1, each for two channels, and log(1 − 2^(−5−h)).
    tensors["retnet_rel_pos.angle"] = 1.0 / 10000 ** torch.tensor([0.0, 0.0, 1.0, 1.0])
    tensors["retnet_rel_pos.decay"] = torch.log(torch.tensor([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128]))
    if fields["share_decoder_input_output_embed"]:
        tensors["output_projection.weight"] = tensors["embed_tokens.weight"]
    return fields, tensors


def of_fla(*, convolutions: bool = False, norm: str = "g_norm_swish_gate", **changed: Any) -> Checkpoint:
    """A `RetNetForCausalLM` of 2 layers, width 12, 3 heads with keys of 4 and values of 8."""
    fields = {
        "model_type": "retnet",
        "hidden_size": 12,
        "expand_k": 1.0,
        "expand_v": 2.0,
        "hidden_ratio": 2,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_heads": 3,
        "num_kv_heads": None,
        "feature_map": None,
        "hidden_act": "swish",
        "use_short_conv": convolutions,
        "conv_size": 4,
        "use_output_gate": True,
        "elementwise_affine": True,
        "norm_eps": 1e-6,
        "attn": None,
        "tie_word_embeddings": False,
        "fuse_norm": norm == "g_norm_swish_gate",
        "vocab_size": 30,
        "attnres_block_size": None,
        **changed,
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embeddings.weight": (30, 12),
        "lm_head.weight": (30, 12),
        "model.norm.weight": (12,),
    }
    for layer in range(2):
        start = f"model.layers.{layer}"
        for part, size in (("q", 12), ("k", 12), ("v", 24)):
            shapes[f"{start}.attn.{part}_proj.weight"] = (size, 12)
            if convolutions:
                shapes[f"{start}.attn.{part}_conv1d.weight"] = (size, 1, 4)
        shapes[f"{start}.attn.g_proj.weight"] = (24, 12)
        shapes[f"{start}.attn.o_proj.weight"] = (12, 24)
        if fields["elementwise_affine"]:
            shapes[f"{start}.attn.{norm}.weight"] = (8,)
        shapes[f"{start}.attn_norm.weight"] = shapes[f"{start}.mlp_norm.weight"] = (12,)
        shapes[f"{start}.mlp.gate_proj.weight"] = shapes[f"{start}.mlp.up_proj.weight"] = (20, 12)
        shapes[f"{start}.mlp.down_proj.weight"] = (12, 20)
    tensors = drawn(shapes)
    if fields["tie_word_embeddings"]:
        tensors["lm_head.weight"] = tensors["model.embeddings.weight"]
    return fields, tensors


def assert_comes_back(checkpoint: Checkpoint, back: Checkpoint) -> None:
    (fields, tensors), (written, returned) = checkpoint, back
    assert {name: fields[name] for name in written} == written
    assert tensors.keys() == returned.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], returned[name])] == []


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"share_decoder_input_output_embed": True, "activation_fn": "swish"},
        {"no_scale_embedding": False, "layernorm_eps": 1e-5},
    ],
)
def test_a_checkpoint_of_torchscale_runs_and_comes_back(changed: dict[str, Any]) -> None:
    fields, tensors = of_torchscale(**changed)
    config, ours = torchscale.read(fields, tensors)
    assert (config.head_dim, config.value_dim, config.decay, config.normalisation) == (4, 6, "paper", "paper")
    assert config.embedding_scale == (1.0 if fields["no_scale_embedding"] else math.sqrt(12))
    logits, _ = RetNet.from_state(config, ours)(torch.arange(9)[None])
    assert logits.shape == (1, 9, 30) and bool(logits.isfinite().all())
    assert_comes_back((fields, tensors), torchscale.write(config, ours))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"convolutions": True},
        {"norm": "g_norm"},
        {"elementwise_affine": False},
        {"tie_word_embeddings": True, "norm_eps": 1e-5},
    ],
)
def test_a_checkpoint_of_flash_linear_attention_runs_and_comes_back(options: dict[str, Any]) -> None:
    fields, tensors = of_fla(**options)
    config, ours = fla.read(fields, tensors)
    assert (config.head_dim, config.value_dim, config.rotary_pairs) == (4, 8, "halves")
    assert (config.conv_width, config.conv_activation) == ((4, "silu") if options.get("convolutions") else (0, "none"))
    logits, _ = RetNet.from_state(config, ours)(torch.arange(9)[None])
    assert logits.shape == (1, 9, 30) and bool(logits.isfinite().all())
    assert_comes_back((fields, tensors), fla.write(config, ours, fuse_norm=fields["fuse_norm"]))


def test_a_tied_head_may_be_left_out_of_the_file_but_not_differ() -> None:
    fields, tensors = of_fla(tie_word_embeddings=True)
    without = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    assert fla.read(fields, without)[1].keys() == fla.read(fields, tensors)[1].keys()
    with pytest.raises(ForeignError, match=r"lm_head\.weight differs from the embedding"):
        fla.read(fields, {**tensors, "lm_head.weight": tensors["lm_head.weight"] + 1})


def test_the_feed_forwards_width_follows_flas_rule_when_it_is_not_spelt_out() -> None:
    fields, tensors = of_fla(intermediate_size=None, hidden_ratio=2, hidden_size=12)
    wide = {"gate_proj": (256, 12), "up_proj": (256, 12), "down_proj": (12, 256)}
    for name in list(tensors):
        if ".mlp." in name:
            tensors[name] = torch.zeros(wide[name.split(".")[-2]])
    assert fla.read(fields, tensors)[0].feed_forward == 256


@pytest.mark.parametrize(
    ("made", "read", "fields", "words"),
    [
        (of_torchscale, torchscale.read, {"deepnorm": True}, "deepnorm = True is not supported; only False is"),
        (of_torchscale, torchscale.read, {"moe_freq": 2}, "moe_freq = 2 is not supported"),
        (
            of_torchscale,
            torchscale.read,
            {"decoder_retention_heads": 5},
            "decoder_embed_dim = 12 is not a multiple of decoder_retention_heads = 5",
        ),
        (of_torchscale, torchscale.read, {"activation_fn": "relu"}, "feed_forward_activation is one of swish, gelu, not 'relu'"),
        (of_torchscale, torchscale.read, {"decoder_layers": None}, "decoder_layers is None; expected a number"),
        (of_torchscale, torchscale.read, {"decoder_layers": 3}, r"the checkpoint lacks the tensor layers\.2\."),
        (of_torchscale, torchscale.read, {"decoder_layers": 1}, r"tensors that this RetNet does not know: layers\.1\."),
        (
            of_torchscale,
            torchscale.read,
            {"vocab_size": 31},
            r"embed_tokens\.weight has the shape \(30, 12\); expected \(31, 12\)",
        ),
        (of_fla, fla.read, {"num_kv_heads": 2}, "num_kv_heads = 2 does not divide num_heads = 3"),
        (of_fla, fla.read, {"num_kv_heads": 1}, r"k_proj\.weight has the shape \(12, 12\); expected \(4, 12\)"),
        (of_fla, fla.read, {"feature_map": "relu"}, "feature_map = 'relu' is not supported"),
        (of_fla, fla.read, {"hidden_size": 12.5}, "hidden_size is 12.5; expected a whole number"),
        (of_fla, fla.read, {"expand_v": 1.5}, r"o_proj\.weight has the shape \(12, 24\); expected \(12, 18\)"),
    ],
)
def test_what_this_retnet_lacks_is_named(
    made: Callable[..., Checkpoint], read: Callable[..., Any], fields: dict[str, Any], words: str
) -> None:
    given_, tensors = made()
    with pytest.raises(ForeignError, match=words):
        read({**given_, **fields}, tensors)


def test_a_torchscale_checkpoint_with_another_schedule_or_angle_is_refused() -> None:
    fields, tensors = of_torchscale()
    for name, words in (
        ("decay", r"decay differs from torchscale's decays"),
        ("angle", r"angle differs from torchscale's angles"),
    ):
        changed = {**tensors, f"retnet_rel_pos.{name}": tensors[f"retnet_rel_pos.{name}"] * 1.01}
        with pytest.raises(ForeignError, match=words):
            torchscale.read(fields, changed)


def test_what_the_other_package_lacks_is_named() -> None:
    shipped = RetNetConfig(layers=1, width=8, heads=2, head_dim=4, feed_forward=8, vocabulary=9)
    ours = RetNet(shipped).state_dict()
    with pytest.raises(ForeignError, match="decay = 'gated' is not supported; only 'paper' is"):
        torchscale.write(shipped, ours)
    with pytest.raises(ForeignError, match="decay = 'gated' is not supported; only 'paper' is"):
        fla.write(shipped, ours)
    config, weights = fla.read(*of_fla())
    with pytest.raises(ForeignError, match="rotary_pairs = 'halves' is not supported"):
        torchscale.write(config, weights)

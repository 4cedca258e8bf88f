"""The RetNet to train: every form, split and option gives one function, and with the engine's weights the engine's logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retnet_core import Model
from retnet_core.checkpoint import SHIPPED, CheckpointError, Delta, layer_tensors, pack_layer
from retnet_core.config import RetNetConfig
from retnet_core.gguf import Gguf, find_base_model
from retnet_core.network import Form, Memory, RetNet
from retnet_core.quantize import pack
from retnet_core.retention import RetentionError
from tests.retnet_core.tiny import grounded_prompt, tiny_model

SMALL = RetNetConfig(layers=2, width=12, heads=2, head_dim=4, feed_forward=16, vocabulary=19)
OPTIONS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "values wider than keys": {"value_dim": 6},
    "the paper's decays": {"decay": "paper"},
    "the release's decays": {"decay": "release"},
    "no convolution": {"conv_width": 0},
    "a convolution of 2": {"conv_width": 2},
    "a convolution with SiLU": {"conv_activation": "silu"},
    "rotary halves": {"rotary_pairs": "halves"},
    "rotary closed": {"rotary_spacing": "closed"},
    "another rotary base": {"rotary_base": 10.0},
    "a query scale": {"query_scale": 2.0},
    "the paper's normalisations": {"normalisation": "paper"},
    "a shared head norm": {"head_norm": "shared"},
    "a head norm without weight": {"head_norm": "none"},
    "GELU": {"feed_forward_activation": "gelu"},
    "an output embedding of its own": {"tied": False},
    "a scaled embedding": {"embedding_scale": 3.0},
}
TORCHSCALE = {
    "value_dim": 6,
    "decay": "paper",
    "conv_width": 0,
    "rotary_spacing": "closed",
    "rotary_base": 1e4,
    "norm_eps": 1e-6,
    "normalisation": "paper",
    "head_norm": "none",
    "feed_forward_activation": "gelu",
    "tied": False,
}
FLASH_LINEAR_ATTENTION = {
    "value_dim": 8,
    "decay": "paper",
    "conv_activation": "silu",
    "rotary_pairs": "halves",
    "rotary_base": 1e4,
    "norm_eps": 1e-6,
    "head_norm": "shared",
    "tied": False,
}
WHOLE = {**OPTIONS, "torchscale": TORCHSCALE, "flash-linear-attention": FLASH_LINEAR_ATTENTION}
READINGS: list[tuple[Form, int]] = [("parallel", 64), ("recurrent", 64), ("chunkwise", 1), ("chunkwise", 5), ("chunkwise", 64)]


def drawn(seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> RetNet:
    """A small network in which no weight is left at a value that hides it."""
    network = RetNet(replace(SMALL, **options)).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        resting = 1.0 if "norm" in name else 0.0
        values = resting + torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
        # Half-lives of 2 to 40 tokens.
        parameter.data = (torch.tensor([-1.0, -4.0], dtype=torch.float64) if name.endswith("rate") else values).to(dtype)
    return network


def ids_of(seed: int, batch: int, length: int) -> Tensor:
    return torch.randint(SMALL.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def differentiated(network: RetNet, ids: Tensor, cuts: tuple[int, ...], readings: list[tuple[Form, int]]) -> dict[str, Tensor]:
    """Logits, memory and the gradient of every weight when the pieces between the cuts are read one after the other."""
    network.zero_grad()
    memory, logits = None, []
    for (form, chunk), piece in zip(readings, ids.tensor_split(cuts, 1), strict=True):
        part, memory = network(piece, memory, form=form, chunk=chunk)
        logits.append(part)
    assert memory is not None
    whole = torch.cat(logits, 1)
    (F.cross_entropy(whole.flatten(0, 1), ids.roll(-1, 1).flatten()) + memory.retention.square().sum() / 50).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients.values())
    return {"logits": whole, "retention": memory.retention, "window": memory.window, "tokens": memory.tokens, **gradients}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert actual.keys() == expected.keys()
    off = [
        name
        for name, right in expected.items()
        if right.numel() and not (actual[name] - right).abs().max() <= tolerance * right.abs().max()
    ]
    assert off == []


@pytest.mark.parametrize("options", WHOLE.values(), ids=WHOLE)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 3), length=st.integers(3, 13), data=st.data())
def test_all_forms_and_splits_give_the_same_logits_memories_and_gradients(
    options: dict[str, Any], seed: int, batch: int, length: int, data: st.DataObject
) -> None:
    network, ids = drawn(seed % 7, **options), ids_of(seed, batch, length)
    expected = differentiated(network, ids, (), [("parallel", 64)])
    for reading in READINGS[1:]:
        assert_same(differentiated(network, ids, (), [reading]), expected)
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, length - 1), min_size=1, max_size=3))))
    readings = [data.draw(st.sampled_from(READINGS)) for _ in range(len(cuts) + 1)]
    assert_same(differentiated(network, ids, cuts, readings), expected)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "as shipped"])
def test_every_option_changes_the_function(name: str) -> None:
    """So that no test above passes because an option is not read."""
    ids = ids_of(1, 1, 11)
    shipped, changed = drawn(), drawn(**OPTIONS[name])
    left = {key: value for key, value in shipped.state_dict().items() if key in changed.state_dict()}
    same = {key: value for key, value in left.items() if value.shape == changed.state_dict()[key].shape}
    changed.load_state_dict(same, strict=False)
    assert not torch.allclose(shipped(ids)[0], changed(ids)[0], rtol=1e-6, atol=1e-6)


def test_rows_of_a_batch_do_not_see_each_other_and_go_on_from_their_own_place() -> None:
    network = drawn()
    first, second = ids_of(1, 1, 9), ids_of(2, 1, 4)
    memories = [network(ids)[1] for ids in (first, second)]
    both = Memory(
        *(
            torch.cat([getattr(memory, part) for memory in memories], dim)
            for part, dim in (("retention", 1), ("window", 1), ("tokens", 0))
        )
    )
    assert both.tokens.tolist() == [9, 4]
    after = ids_of(3, 2, 6)
    logits, _ = network(after, both)
    for row, memory in enumerate(memories):
        assert torch.allclose(logits[row], network(after[row : row + 1], memory)[0][0], atol=1e-12)


@pytest.mark.parametrize("form", ["parallel", "recurrent", "chunkwise"])
def test_bf16_autocast_trains_and_keeps_the_memory_in_fp32(form: Form) -> None:
    network = drawn(dtype=torch.float32)
    ids = ids_of(4, 2, 12)
    exact, memory = network(ids)
    with torch.autocast("cpu", torch.bfloat16):
        logits, rounded = network(ids, form=form)
        F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    assert rounded.retention.dtype == torch.float32
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters() if parameter.grad is not None)
    for actual, right in ((logits.float(), exact), (rounded.retention, memory.retention)):
        assert (actual - right).norm() < 0.05 * right.norm()


def test_a_network_learns() -> None:
    torch.manual_seed(0)
    network = RetNet(SMALL)
    ids = torch.arange(40).remainder(SMALL.vocabulary).repeat(2, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        logits, _ = network(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 2.5 and losses[-1] < 0.5


def weights_of(network: RetNet) -> dict[str, Any]:
    return {
        "layers": [network.layer_tensors(number) for number in range(network.config.layers)],
        "embedding": network.embedding.weight.data,
        "final_norm": network.final_norm.weight.data,
    }


def test_a_trained_network_packed_for_the_engine_gives_the_engines_logits_and_state() -> None:
    engine = tiny_model()
    config = engine.config
    torch.manual_seed(3)
    network = RetNet(config)
    for layer in network.layers:
        torch.nn.init.normal_(layer.retention.convolution, std=0.5)
        torch.nn.init.normal_(layer.retention.gate.weight, std=0.3)
        torch.nn.init.uniform_(layer.retention.head_norm, 0.5, 1.5)
    weights = weights_of(network)
    table = weights["embedding"]
    packed = [pack_layer(tensors, config, "float32") for tensors in weights["layers"]]
    model = Model(
        config,
        packed,
        lambda ids: table[ids],
        weights["final_norm"],
        pack(table, "float32"),
        fingerprint="trained",
        precision="float32",
    )
    ids = [int(number) for number in torch.randint(config.vocabulary, (150,))]
    logits, state = model.read(ids)
    for form, chunk in READINGS:
        given_, memory = network(torch.tensor([ids]), form=form, chunk=chunk)
        assert (given_[0] - logits).abs().max() < 1e-4
        assert (memory.retention[:, 0] - state.retention).abs().max() < 1e-4
        assert (memory.window[:, 0] - state.window).abs().max() < 1e-4
        assert memory.tokens.tolist() == [state.tokens]


def test_weights_come_back_as_they_went_in_and_what_does_not_fit_is_named() -> None:
    network = RetNet(SMALL)
    weights = weights_of(network)
    ids = ids_of(5, 2, 7)
    assert torch.equal(RetNet.from_tensors(SMALL, **weights)(ids)[0], network(ids)[0])
    first, second = weights["layers"]
    without = {name: tensor for name, tensor in first.items() if name != "rate"}
    for layers, words in (
        ([without, second], r"the weights lack layers\.0\.retention\.rate"),
        ([{**first, "bias": torch.zeros(1)}, second], r"the weights have an unexpected layers\.0\.bias"),
        ([first, second, second], r"the weights have an unexpected layers\.2\."),
        ([{**first, "rate": torch.zeros(3)}, second], r"layers\.0\.retention\.rate has the shape \(3,\) instead of \(2,\)"),
    ):
        with pytest.raises(CheckpointError, match=words):
            RetNet.from_tensors(SMALL, **{**weights, "layers": layers})
    with pytest.raises(CheckpointError, match=r"unexpected head\.weight"):
        RetNet.from_tensors(SMALL, **weights, head=weights["embedding"])


def test_what_does_not_fit_is_named_at_the_door() -> None:
    network = drawn()
    ids = ids_of(6, 2, 5)
    _, memory = network(ids)
    broken = memory.retention.detach().clone()
    broken[1, 0, 1, 2, 3] = torch.nan
    for words, given_, options in (
        (r"form is 'chunkwise', 'parallel' or 'recurrent', not 'chunk'", ids, {"form": "chunk"}),
        (r"chunk must be at least 1, not 0", ids, {"chunk": 0}),
        (r"ids have the shape \(5,\); expected \[batch, length\]", ids[0], {}),
        (r"ids have the shape \(2, 0\)", ids[:, :0], {}),
        (r"ids lie between -?\d+ and 19; expected 0 to 18", ids + (ids == ids.max()) * (19 - ids), {}),
        (r"retention has the shape \(2, 2, 2, 4, 4\); expected \(2, 1, 2, 4, 4\)", ids[:1], {"memory": memory}),
        (r"retention is not finite at \[1, 0, 1, 2, 3\]", ids, {"memory": replace(memory, retention=broken)}),
    ):
        with pytest.raises(RetentionError, match=words):
            network(given_, **options)


def test_options_at_their_default_leave_the_hash_of_stored_states_alone() -> None:
    shipped = (
        '{"conv_width":4,"feed_forward":1536,"gate_limit":5.0,"head_dim":64,"heads":9,"layers":30,"norm_eps":1e-05,'
        '"rotary_base":100000.0,"vocabulary":49152,"width":576}'
    )
    assert RetNetConfig().to_json() == shipped
    assert RetNetConfig(value_dim=64, query_scale=0.125, decay="gated").to_json() == shipped
    assert RetNetConfig().changed_options == {}
    for options in WHOLE.values():
        config = replace(SMALL, **options)
        assert RetNetConfig.from_json(config.to_json()) == config
    assert len({replace(SMALL, **options).to_json() for options in WHOLE.values()}) == len(WHOLE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head_dim": 5}, "head_dim must be even"),
        ({"conv_width": 1}, "conv_width must be at least 2, or 0"),
        ({"value_dim": 0}, "value_dim must be at least 1"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        ({"decay": "slow"}, "decay is one of gated, paper, release, not 'slow'"),
        ({"feed_forward_activation": "relu"}, "feed_forward_activation is one of swish, gelu, not 'relu'"),
    ],
)
def test_a_configuration_names_the_value_that_does_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RetNetConfig(**options)


def test_a_stored_configuration_with_a_name_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="a configuration has no dropout"):
        RetNetConfig.from_json('{"layers":2,"dropout":0.1}')
    with pytest.raises(ValueError, match="an object of names and values"):
        RetNetConfig.from_json("[]")


def test_the_shipped_weights_give_the_engines_logits(shipped: Model) -> None:
    base = Gguf(find_base_model())
    try:
        with Delta(SHIPPED) as delta:
            layers = [dict(layer_tensors(delta, base, number)) for number in range(shipped.config.layers)]
            network = RetNet.from_tensors(shipped.config, layers, base.tensor("token_embd.weight"), delta.tensor("n"))
    finally:
        base.close()
    ids = shipped.tokenizer.encode(
        grounded_prompt("When do you open?", [("Hours", "The bakery is open from 7 am to 6 pm on weekdays.")])
    )
    logits, state = shipped.read(ids)
    with torch.no_grad():
        for form, chunk in READINGS[:2] + READINGS[3:]:
            given_, memory = network(torch.tensor([ids]), form=form, chunk=chunk)
            assert (given_[0] - logits).abs().max() < 1e-4
            assert (memory.retention[:, 0] - state.retention).abs().max() < 1e-4 * state.retention.abs().max()
            assert (memory.window[:, 0] - state.window).abs().max() < 1e-4 * state.window.abs().max()

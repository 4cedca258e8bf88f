"""Networks made with torchscale and flash-linear-attention give our network their logits, in every form, and go back as they came.

The fixtures (`foreign/`) hold weights as those packages' users have them, ids, and what the packages' own code computed from them; how, says
`scripts/foreign_fixtures.py`, which made them. `logits`: the whole length at once; `pieces`: their recurrent form, with their states.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from retnet_core.foreign import joined
from retnet_core.foreign.files import Checkpoint, read_checkpoint, write_checkpoint
from retnet_core.network import Form, RetNet
from retnet_core.network_files import load_network

FIXTURES = Path(__file__).with_name("foreign")
MADE = json.loads((FIXTURES / "made.json").read_text())
NAMES = sorted(MADE["largest difference of pieces from logits"])
TOLERANCE = 1e-4
"""Of logits that reach 6 to 30, in fp32."""
READINGS: list[tuple[Form, int]] = [
    ("parallel", 64),
    ("recurrent", 64),
    *(("chunkwise", chunk) for chunk in (1, 3, 16, 33, 64, 69, 70)),
]


def source_of(name: str) -> Path:
    """A folder, or the file where there is nothing but weights."""
    checkpoint = FIXTURES / name / "checkpoint.pt"
    return checkpoint if checkpoint.is_file() else FIXTURES / name


def expected_of(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


def network_of(name: str, **changed: Any) -> RetNet:
    read = read_checkpoint(source_of(name))
    return RetNet.from_state(replace(read.config, **changed), joined(read.parts)).float().requires_grad_(False)


def stored_tensors(name: str) -> dict[str, Tensor]:
    """The fixture's tensors by their own names, read without our converter."""
    folder = FIXTURES / name
    if name.startswith("torchscale") and not (folder / "model.safetensors").exists():
        (file,) = folder.glob("*.pt")
        if name.endswith("fairseq"):
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(file, weights_only=True)["model"]
        return torch.load(file, weights_only=True)
    tensors: dict[str, Tensor] = {}
    for file in folder.glob("model*.safetensors"):
        tensors |= load_file(file)
    return tensors


def test_the_fixtures_hold_every_kind_of_network_that_people_have() -> None:
    configs = {name: read_checkpoint(source_of(name)).config for name in NAMES}
    assert {name.partition("-")[0] for name in NAMES} == {"torchscale", "fla"}
    assert {config.conv_width for config in configs.values()} == {0, 3, 4}
    assert {config.tied for config in configs.values()} == {True, False}
    assert {config.heads for config in configs.values()} == {1, 2, 3, 4, 6}
    assert {config.feed_forward_activation for config in configs.values()} == {"gelu", "swish"}
    assert {config.head_norm for config in configs.values()} == {"none", "shared"}
    assert {config.embedding_scale == 1 for config in configs.values()} == {True, False}
    assert MADE["made with"]["torchscale"] == "0.3.0" and MADE["made with"]["fla-core"] == "0.6.0"


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_the_packages_own_in_every_form(name: str) -> None:
    network, expected = network_of(name), expected_of(name)
    assert expected["logits"].abs().max() > 3
    for form, chunk in READINGS:
        logits, _ = network(expected["ids"], form=form, chunk=chunk)
        assert (logits - expected["logits"]).abs().max() < TOLERANCE, (form, chunk)


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_the_packages_own_when_states_are_carried_across_any_split(name: str) -> None:
    network, expected = network_of(name), expected_of(name)
    mixed: list[tuple[Form, int]] = [("chunkwise", 7), ("recurrent", 64), ("parallel", 64), ("chunkwise", 16), ("recurrent", 64)]
    # The second are the pieces that fla read, the last of one token each.
    for cuts in ((1, 2, 40, 69), (31, 51, 66, 67), (13, 26, 39, 52)):
        memory, pieces = None, []
        for (form, chunk), ids in zip(mixed, expected["ids"].tensor_split(cuts, 1), strict=True):
            logits, memory = network(ids, memory, form=form, chunk=chunk)
            pieces.append(logits)
        assert (torch.cat(pieces, 1) - expected["logits"]).abs().max() < TOLERANCE, cuts


@pytest.mark.parametrize("name", [name for name in NAMES if "long ids" in expected_of(name)])
def test_the_logits_of_a_longer_text_are_the_packages_own(name: str) -> None:
    """Of every 40th of 600 tokens, where slow heads still remember the first."""
    network, expected = network_of(name), expected_of(name)
    for form, chunk in (*READINGS[:2], ("chunkwise", 64), ("chunkwise", 77)):
        logits, _ = network(expected["long ids"], form=form, chunk=chunk)
        assert (logits[:, 39::40] - expected["long logits"]).abs().max() < TOLERANCE, (form, chunk)


@pytest.mark.parametrize("name", NAMES)
def test_the_packages_own_recurrent_form_is_as_near_as_it_is_to_its_parallel_one(name: str) -> None:
    """torchscale's recurrent form skips the row sums, which the head norm's eps lets through: most where eps is large and heads are small."""
    network, expected = network_of(name), expected_of(name)
    own = float((expected["pieces"] - expected["logits"]).abs().max())
    assert own == pytest.approx(MADE["largest difference of pieces from logits"][name], rel=0.1)
    logits, _ = network(expected["ids"], form="recurrent")
    assert (logits - expected["pieces"]).abs().max() < own + TOLERANCE


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("torchscale-heads", {"normalisation": "none"}),
        ("torchscale", {"norm_eps": 1e-3}),
        ("torchscale", {"rotary_spacing": "open"}),
        ("torchscale", {"rotary_pairs": "halves"}),
        ("torchscale", {"rotary_base": 1e5}),
        ("torchscale", {"query_scale": 1.0}),
        ("torchscale", {"decay": "release"}),
        ("torchscale", {"feed_forward_activation": "swish"}),
        ("torchscale-tied", {"embedding_scale": 1.0}),
        ("fla", {"norm_eps": 1e-3}),
        ("fla", {"rotary_spacing": "closed"}),
        ("fla", {"rotary_pairs": "interleaved"}),
        ("fla", {"rotary_base": 1e5}),
        ("fla", {"decay": "release"}),
        ("fla", {"feed_forward_activation": "gelu"}),
        ("fla-conv", {"conv_activation": "none"}),
    ],
)
def test_no_setting_could_be_another_without_being_noticed(name: str, changed: dict[str, Any]) -> None:
    network, expected = network_of(name, **changed), expected_of(name)
    assert (network(expected["ids"])[0] - expected["logits"]).abs().max() > TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_ours_on_disk_gives_the_same_network(name: str, tmp_path: Path) -> None:
    read = read_checkpoint(source_of(name))
    write_checkpoint(read, tmp_path / "ours", "retort")
    network = load_network(tmp_path / "ours")
    assert network.config == read.config
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16 if "bfloat16" in name else torch.float32}
    expected = expected_of(name)
    assert (network.float()(expected["ids"])[0] - expected["logits"]).abs().max() < TOLERANCE


def and_back(name: str, folder: Path, **options: Any) -> Checkpoint:
    kind = name.partition("-")[0]
    write_checkpoint(read_checkpoint(source_of(name)), folder / "ours", "retort")
    ours = read_checkpoint(folder / "ours")
    assert ours.origin is not None and ours.origin.kind == kind
    write_checkpoint(ours, folder / "theirs", kind, **options)
    return read_checkpoint(folder / "theirs")


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_into_ours_and_back_to_the_bit(name: str, tmp_path: Path) -> None:
    and_back(name, tmp_path)
    before, after = stored_tensors(name), load_file(tmp_path / "theirs" / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert after[key].dtype == tensor.dtype, key
        # Buffers that torchscale computes come from this machine's logarithm, whose last bit is its own.
        exact = torch.allclose(after[key], tensor, rtol=1e-6) if "retnet_rel_pos" in key else torch.equal(after[key], tensor)
        assert exact, key


@pytest.mark.parametrize("name", [name for name in NAMES if (FIXTURES / name / "config.json").exists()])
def test_a_configuration_comes_back_whole(name: str, tmp_path: Path) -> None:
    and_back(name, tmp_path)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (FIXTURES / name, tmp_path / "theirs"))
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize(("name", "stored"), [("fla-tied", 1), ("fla-conv-bfloat16", 2)])
def test_heads_that_shared_keys_and_values_are_stored_once_until_they_differ(name: str, stored: int, tmp_path: Path) -> None:
    write_checkpoint(read_checkpoint(source_of(name)), tmp_path / "ours", "retort")
    ours = read_checkpoint(tmp_path / "ours")
    write_checkpoint(ours, tmp_path / "same", "fla")
    assert json.loads((tmp_path / "same" / "config.json").read_text())["num_kv_heads"] == stored
    # As training would: one number of the last head's values.
    config, parts = ours.config, joined(ours.parts)
    changed = parts["layers.0.retention.projection.weight"].clone()
    changed[2 * config.inner + config.value_inner - 1, 0] += 1
    trained = replace(ours, parts={**ours.parts, "layers.0.retention.projection.weight": [changed]})
    write_checkpoint(trained, tmp_path / "trained", "fla")
    assert json.loads((tmp_path / "trained" / "config.json").read_text())["num_kv_heads"] is None
    back = joined(read_checkpoint(tmp_path / "trained").parts)
    assert all(torch.equal(back[key], tensor) for key, tensor in joined(trained.parts).items())


def test_torchscale_gets_a_file_for_torch_load_when_asked(tmp_path: Path) -> None:
    back = and_back("torchscale", tmp_path, pickle=True)
    tensors = torch.load(tmp_path / "theirs" / "model.pt", weights_only=True)
    before = stored_tensors("torchscale")
    assert all(torch.equal(tensors[key], before[key]) for key in before if "retnet_rel_pos" not in key)
    assert back.config == read_checkpoint(source_of("torchscale")).config
    assert (
        sum(file.stat().st_size for file in (tmp_path / "theirs").iterdir())
        < 1.5 * (FIXTURES / "torchscale" / "model.pt").stat().st_size
    )


def test_half_precision_goes_into_ours_and_back(tmp_path: Path) -> None:
    """As fairseq stores a model that was trained in fp16: its buffers are rounded too."""
    tensors = {key: tensor.half() for key, tensor in stored_tensors("torchscale").items()}
    (tmp_path / "half").mkdir()
    torch.save(tensors, tmp_path / "half" / "model.pt")
    read = read_checkpoint(tmp_path / "half")
    write_checkpoint(read, tmp_path / "ours", "retort")
    write_checkpoint(read_checkpoint(tmp_path / "ours"), tmp_path / "theirs", "torchscale")
    back = load_file(tmp_path / "theirs" / "model.safetensors")
    assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())

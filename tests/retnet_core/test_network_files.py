"""A network comes back from its folder as it was saved, and what is wrong with a folder is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from retnet_core.checkpoint import CheckpointError
from retnet_core.config import RetNetConfig
from retnet_core.network import RetNet
from retnet_core.network_files import CONFIG, WEIGHTS, load_network, save_network, write_tensors

SMALL = RetNetConfig(layers=2, width=12, heads=2, head_dim=4, feed_forward=16, vocabulary=19)
IDS = torch.arange(11)[None] % 19


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_network(RetNet(SMALL), tmp_path / "net")
    return tmp_path / "net"


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (SMALL, torch.float32),
        (SMALL, torch.bfloat16),
        (
            replace(SMALL, tied=False, value_dim=6, decay="paper", conv_width=0, normalisation="paper", head_norm="none"),
            torch.float64,
        ),
        (replace(SMALL, conv_activation="silu", head_norm="shared", embedding_scale=3.5, norm_eps=1e-6), torch.float32),
    ],
)
def test_a_network_comes_back_to_the_bit(config: RetNetConfig, dtype: torch.dtype, tmp_path: Path) -> None:
    network = RetNet(config).to(dtype)
    save_network(network, tmp_path / "a" / "b")
    back = load_network(tmp_path / "a" / "b")
    assert back.config == config
    assert torch.allclose(back(IDS)[0], network(IDS)[0], rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    stored = network.state_dict()
    assert back.state_dict().keys() == stored.keys()
    assert all(tensor.dtype == dtype and torch.equal(tensor, stored[name]) for name, tensor in back.state_dict().items())


def test_the_file_is_one_that_safetensors_reads(folder: Path) -> None:
    read = load_file(folder / WEIGHTS)
    stored = load_network(folder).state_dict()
    assert read.keys() == stored.keys() and all(torch.equal(read[name], stored[name]) for name in read)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_parts_become_one_tensor(tmp_path: Path) -> None:
    whole = torch.randn(7, 3)
    parts = {"rows": list(whole.split([2, 4, 1])), "turned": [whole.T], "one": [torch.tensor(5)], "none": [whole[:0]]}
    wrote: list[int] = []
    write_tensors(tmp_path / WEIGHTS, parts, {}, wrote.append)
    read = load_file(tmp_path / WEIGHTS)
    assert torch.equal(read["rows"], whole) and torch.equal(read["turned"], whole.T)
    assert read["one"].item() == 5 and read["none"].shape == (0, 3)
    assert sum(wrote) == 2 * 7 * 3 * 4 + 8


def test_a_loaded_network_can_be_trained_and_saved_over_its_own_file(folder: Path) -> None:
    network = load_network(folder)
    before = network(IDS)[0].detach()
    network(IDS)[0].square().mean().backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    assert torch.allclose(
        load_network(folder)(IDS)[0], before, atol=1e-5
    )  # The mapped file is not the one that training writes to.
    save_network(network, folder)
    logits = load_network(folder)(IDS)[0]
    assert torch.allclose(logits, network(IDS)[0], atol=1e-5) and not torch.allclose(logits, before, atol=1e-5)


def change(folder: Path, changed: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    changed(tensors)
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda tensors: tensors.pop("layers.1.retention.rate"), r"the weights lack layers\.1\.retention\.rate"),
        (
            lambda tensors: tensors.update({"final_norm.weight": torch.zeros(12, dtype=torch.int8)}),
            r"final_norm\.weight holds torch\.int8; expected numbers with a fraction",
        ),
        (lambda tensors: tensors.update(bias=torch.zeros(1)), "the weights have an unexpected bias"),
        (
            lambda tensors: tensors.update({"final_norm.weight": torch.zeros(13)}),
            r"final_norm\.weight has the shape \(13,\) instead of \(12,\)",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, changed: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    change(folder, changed)
    with pytest.raises(CheckpointError, match=words):
        load_network(folder)


def test_truncated_weights_are_refused_at_every_length(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (folder / WEIGHTS).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated, damaged or no safetensors file"):
            load_network(folder)


def test_a_weights_file_of_another_network_is_noticed_even_when_its_shapes_fit(folder: Path, tmp_path: Path) -> None:
    save_network(RetNet(replace(SMALL, norm_eps=1e-3)), tmp_path / "other")
    (tmp_path / "other" / WEIGHTS).replace(folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="belong to different networks"):
        load_network(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"there is no .*config\.json"),
        ("{", "cannot be read as JSON"),
        ("[]", "holds list instead of an object"),
        ('{"model_type": "retnet"}', "is no configuration of retnet_core"),
        ('{"format": "retnet_core", "version": 9}', "has the version 9; this release reads 1"),
        ('{"format": "retnet_core", "version": 1, "network": {"depth": 3}}', "a configuration has no depth"),
        ('{"format": "retnet_core", "version": 1, "network": {"layers": 0}}', "layers must be at least 1, not 0"),
        ('{"format": "retnet_core", "version": 1, "network": {"layers": "two"}}', r"config\.json: "),
        (
            f'{{"format": "retnet_core", "version": 1, "network": {SMALL.to_json()}, "origin": {{"kind": "fla"}}}}',
            "expected a kind",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(folder: Path, text: str | None, words: str) -> None:
    if text is None:
        (folder / CONFIG).unlink()
    else:
        (folder / CONFIG).write_text(text)
    with pytest.raises(CheckpointError, match=words):
        load_network(folder)


def test_a_network_without_weights_is_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"there is no .*model\.safetensors"):
        load_network(folder)


def test_a_write_that_fails_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_network(folder)(IDS)[0]
    broken = RetNet(SMALL)
    broken.register_parameter("odd", torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    with pytest.raises(CheckpointError, match=r"odd is of the type torch\.complex64"):
        save_network(broken, folder)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_network(RetNet(SMALL), folder)
    assert torch.allclose(load_network(folder)(IDS)[0], before, atol=1e-5)
    assert json.loads((folder / CONFIG).read_text())["version"] == 1
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]

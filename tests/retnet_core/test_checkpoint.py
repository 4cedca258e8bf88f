"""Weights that cannot be right are refused by name: which value it was, and what was expected."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retnet_core import CheckpointError, load_model
from retnet_core.checkpoint import SHIPPED, check_base, layer_tensors, pack_layer
from retnet_core.config import RetNetConfig
from retnet_core.delta import Delta, check_sums, hashes
from retnet_core.footprint import Footprint
from retnet_core.gguf import Gguf, GgufError
from retnet_core.model import Model
from retnet_core.state import bytes_of
from tests.retnet_core.checkpoints import CONFIG, F32, base_metadata, base_tensors, gguf, save, trained

Tensors = dict[str, Tensor]


def test_a_whole_checkpoint_is_read(tmp_path: Path) -> None:
    base = tmp_path / "base.gguf"
    base.write_bytes(gguf(base_metadata(), base_tensors()))
    with Gguf(base) as opened, Delta(save(tmp_path / "weights", trained())) as delta:
        delta.check(CONFIG)
        check_base(opened, CONFIG)
        tensors = dict(layer_tensors(delta, opened, 1))
    pack_layer(tensors, CONFIG, "float32", number=1)
    # The base's matrix is zero, and the correction is a product of ones over a rank of 3.
    assert torch.equal(tensors["gate"], torch.full((CONFIG.feed_forward, CONFIG.width), 3.0))
    assert torch.equal(tensors["projection"], trained()["1.wi"].float() * trained()["1.wi.s"].float()[:, None])


def test_one_file_will_do_as_well(tmp_path: Path) -> None:
    save(tmp_path, trained())
    with Delta(tmp_path / "delta.safetensors") as delta:
        delta.check(CONFIG)


def removed(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def put(name: str, tensor: Tensor) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (removed("1.wo"), r"lack 1\.wo: expected 21 tensors"),
        (removed("n"), "lack n: expected"),
        (removed("1.gB"), r"lack 1\.gB"),
        (put("2.wi", torch.zeros(128, 32)), r"have 2\.wi, which no layer knows"),
        (put("0.n1.s", torch.ones(32)), r"have 0\.n1\.s, which no layer knows"),
        (put("0.wo", torch.zeros(32, 33)), r"0\.wo in .* has the shape \(32, 33\); expected \(32, 32\)"),
        (put("n", torch.tensor(1.0)), r"n in .* has the shape \(\); expected \(32,\)"),
        (put("1.gA", torch.ones(3, 31)), r"1\.gA in .* has the shape \(3, 31\); expected \(3, 32\)"),
        (put("1.gA", torch.tensor(1.0)), r"1\.gA in .* expected \(0, 32\)"),
        (put("0.wo", torch.zeros(32, 32, dtype=torch.int32)), r"0\.wo in .* is of the type I32; expected one of F64"),
        (put("0.wo", torch.zeros(32, 32, dtype=torch.int8)), r"0\.wo in .* is I8; expected its scales as 0\.wo\.s"),
        (put("0.wi.s", torch.ones(127)), r"0\.wi\.s in .* has the shape \(127,\) and the type F32; expected \(128,\)"),
        (put("0.wi.s", torch.ones(128, dtype=torch.int8)), r"0\.wi\.s in .* the type I8; expected \(128,\) and a float"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: Callable[[Tensors], object], complaint: str) -> None:
    tensors = trained()
    change(tensors)
    with Delta(save(tmp_path, tensors)) as delta, pytest.raises(CheckpointError, match=complaint):
        delta.check(CONFIG)


def test_of_a_wholly_different_file_only_some_names_are_listed(tmp_path: Path) -> None:
    with Delta(save(tmp_path, {"model.embed": torch.zeros(2)})) as delta, pytest.raises(CheckpointError) as raised:
        delta.check(RetNetConfig())
    assert "and 266 more and have model.embed, which no layer knows" in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_tensor_that_two_files_have_is_named(tmp_path: Path) -> None:
    save(tmp_path, trained())
    shutil.copy(tmp_path / "delta.safetensors", tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors has the tensor .* which another file"), Delta(tmp_path):
        pass


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["0.wo", "0.wi.s", "1.ll"])
def test_a_weight_that_is_no_number_is_named_with_its_place(tmp_path: Path, name: str, value: float) -> None:
    tensors = trained()
    tensors[name].view(-1)[1] = value
    place = r"\[0, 1\]" if tensors[name].ndim == 2 else r"\[1\]"
    with Delta(save(tmp_path, tensors)) as delta, pytest.raises(CheckpointError, match=rf"{name} in .* is {value} at {place}"):
        delta.tensor(name.removesuffix(".s"))


@pytest.mark.parametrize(("rate", "decay"), [(9.0, "0"), (-40.0, "1")])
def test_a_decay_outside_0_and_1_is_named_with_its_head(tmp_path: Path, rate: float, decay: str) -> None:
    base = tmp_path / "base.gguf"
    base.write_bytes(gguf(base_metadata(), base_tensors()))
    with Gguf(base) as opened, Delta(save(tmp_path / "weights", trained() | {"1.ll": torch.tensor([-1.0, rate])})) as delta:
        tensors = dict(layer_tensors(delta, opened, 1))
    with pytest.raises(
        CheckpointError, match=rf"rate in layer 1 of head 1 is {rate:g}, which makes a decay of {decay}; expected"
    ):
        pack_layer(tensors, CONFIG, "float32", number=1)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "delta.ckpt"])
def test_pickles_are_never_read(tmp_path: Path, name: str) -> None:
    # What would happen if it were read: the folder vanishes.
    (tmp_path / name).write_bytes(b"cshutil\nrmtree\n(V" + str(tmp_path).encode() + b"\ntR.")
    for place in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError, match=r"pickle.*runs whatever code.*save the tensors as safetensors"):
            load_model(place, precision="float32")
    assert (tmp_path / name).exists()


def test_a_place_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"there is no {tmp_path}/nowhere"):
        load_model(tmp_path / "nowhere", precision="float32")
    with pytest.raises(CheckpointError, match=rf"no \*\.safetensors in {tmp_path}"):
        load_model(tmp_path, precision="float32")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_safetensors_never_pass_unnoticed_in_their_header(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut anywhere, or with any byte of the header's length or of its text changed: a `CheckpointError`, or the very same tensors."""
    folder = save(tmp_path_factory.mktemp("weights"), trained())
    file = folder / "delta.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    if data.draw(st.booleans()):
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        place = data.draw(st.integers(0, header - 1))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :])
    try:
        with Delta(folder) as delta:
            delta.check(CONFIG)
            for name, tensor in trained().items():
                if name.endswith(".s"):
                    continue
                scale = trained().get(f"{name}.s")
                expected = tensor.float() if scale is None else tensor.float() * scale.float()[:, None]
                assert delta.tensor(name).shape == expected.shape
    except CheckpointError as error:
        assert str(folder) in str(error)


def linked(folder: Path) -> Path:
    """The shipped weights, as links."""
    for path in SHIPPED.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_a_changed_byte_of_the_shipped_weights_is_found_by_its_checksum(tmp_path: Path) -> None:
    """safetensors has no checksums of its own: an int8 weight more or less would never be seen."""
    file = linked(tmp_path) / "delta-4.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.unlink()
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"delta-4\.safetensors is damaged or of another version: its SHA-256 .* copy it again"
    ):
        load_model(tmp_path, precision="float32")


def test_shipped_weights_that_are_cut_short_are_named(tmp_path: Path) -> None:
    file = linked(tmp_path) / "delta-2.safetensors"
    content = file.read_bytes()[:-10]
    file.unlink()
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"delta-2\.safetensors is damaged, cut short or no safetensors file .* copy it again"
    ):
        load_model(tmp_path, precision="float32")


def test_a_shipped_file_that_is_missing_is_told_by_its_tensors(tmp_path: Path) -> None:
    (linked(tmp_path) / "delta-4.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lack 0\.cw, 1\.cw, 10\.cw"):
        load_model(tmp_path, precision="float32")


def test_the_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    folder = save(tmp_path, trained())
    sums = subprocess.run(["sha256sum", "delta.safetensors"], cwd=folder, capture_output=True, text=True, check=True).stdout
    (folder / "SHA256SUMS").write_text(sums)
    check_sums(folder, hashes([folder / "delta.safetensors"]))
    (folder / "SHA256SUMS").write_text(sums.replace(sums[:4], "0000").replace("  ", " *"))
    with pytest.raises(CheckpointError, match=r"expects 0000"):
        check_sums(folder, hashes([folder / "delta.safetensors"]))


def test_a_base_model_of_another_kind_or_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    for metadata, tensors, complaint in (
        (
            base_metadata() | {"general.architecture": "qwen2"},
            base_tensors(),
            r"general\.architecture is 'qwen2', expected 'llama'",
        ),
        (base_metadata() | {"llama.block_count": 24}, base_tensors(), r"llama\.block_count is 24, expected 2"),
        (base_metadata() | {"tokenizer.ggml.tokens": ["a"]}, base_tensors(), "lacks a tokenizer of 40 tokens"),
        (
            base_metadata(),
            base_tensors() | {"blk.1.ffn_up.weight": ((64, 31), F32)},
            r"ffn_up\.weight of the shape \(64, 31\); expected \(64, 32\)",
        ),
    ):
        other.write_bytes(gguf(metadata, tensors))
        with Gguf(other) as base, pytest.raises(CheckpointError, match=complaint) as raised:
            check_base(base, CONFIG)
        assert "pip install" in str(raised.value)
    # The shipped weights say by checksum which one they were trained over.
    monkeypatch.setattr("retnet_core.checkpoint.find_base_model", lambda: other)
    with pytest.raises(CheckpointError, match=r"Q4_1\.gguf is damaged or of another version"):
        load_model(precision="float32")
    other.write_bytes(other.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"header.*pip install"):
        load_model(precision="float32")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_gguf_is_refused_or_read_but_never_crashes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = gguf(base_metadata(), base_tensors())
    header = whole.index(b"token_embd") + 600
    if data.draw(st.booleans()):
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, header))
        content = whole[:place] + data.draw(st.binary(min_size=1, max_size=8)) + whole[place + 8 :]
    path = tmp_path_factory.mktemp("base") / "base.gguf"
    path.write_bytes(content)
    try:
        with Gguf(path) as base:
            for name in base.entries:
                base.tensor(name)
            check_base(base, CONFIG)
    except (GgufError, CheckpointError) as error:
        assert str(path) in str(error) or "is not stored as" in str(error)


def test_an_unknown_device_or_one_that_is_not_here_is_named() -> None:
    with pytest.raises(ValueError, match="device is cpu, cuda or cuda:1, not 'toaster'"):
        load_model(precision="float32", device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA GPU"):
            load_model(device="cuda")


def test_the_footprint_counts_what_is_held(shipped: Model) -> None:
    footprint = Footprint.of(shipped)
    config = shipped.config
    matrices = config.layers * (5 * config.inner * config.width + 3 * config.width * config.feed_forward)
    assert footprint.weights["retention"] + footprint.weights["feed-forward"] == 4 * matrices
    assert footprint.weights["head"] == 4 * config.vocabulary * config.width and footprint.weights["embedding"] == 0
    assert footprint.conversation == bytes_of(config) == 5_045_760
    assert footprint.parked["bfloat16"] < 0.51 * footprint.parked["float32"]
    assert footprint.fields()["weights_mb"] == pytest.approx(footprint.weight_bytes / 1e6, abs=0.1)


def test_show_prints_what_the_model_takes(tmp_path: Path) -> None:
    def show(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "retnet_core.checkpoint", "show", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)

    done = show("--precision", "bfloat16", "--json")
    shown = json.loads(done.stdout)
    assert done.returncode == 0 and shown["precision"] == "bfloat16" and shown["conversation"] == 5_045_760
    assert 300e6 < sum(shown["weights"].values()) < shown["process"]["resident"]
    refused = show(str(tmp_path))
    assert (
        refused.returncode == 1 and refused.stderr == f"show: there are no *.safetensors in {tmp_path}\n" and not refused.stdout
    )

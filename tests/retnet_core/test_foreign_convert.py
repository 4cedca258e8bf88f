"""`python -m retnet_core.checkpoint convert` as people run it: what it writes, says, refuses and exits with."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from retnet_core import convert
from retnet_core.foreign import ForeignError
from retnet_core.foreign.files import read_checkpoint
from retnet_core.network import RetNet
from retnet_core.network_files import load_network, save_network

FIXTURES = Path(__file__).with_name("foreign")
ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command itself, in a process of its own."""
    command = [sys.executable, "-m", "retnet_core.checkpoint", "convert", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line of a refusal."""
    assert convert.main(["convert", *map(str, arguments)]) == convert.REFUSED
    out, told = capfd.readouterr()
    assert out == "" and told.startswith("convert: ") and told.count("\n") == 1
    return told.removeprefix("convert: ")


@pytest.fixture
def torchscale(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "torchscale", tmp_path / "torchscale"))


@pytest.fixture
def fla(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "fla", tmp_path / "fla"))


def test_there_and_back_as_a_command(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    done = run(FIXTURES / "fla-conv", ours, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    first, sizes, written, read_back, forms = done.stdout.splitlines()
    assert first == f"fla → retort: {ours}"
    assert sizes == (
        "  2 layers, width 32, 2 heads with keys of 16 and values of 32, feed-forward 32, vocabulary 40, convolutions over 4"
    )
    stored = load_file(FIXTURES / "fla-conv" / "model.safetensors")
    parameters = sum(tensor.numel() for tensor in stored.values())
    assert written.startswith(f"  {parameters:,} parameters in {len(stored)} tensors, {4 * parameters:,} bytes, ")
    assert read_back == "  weights read back: largest difference 0"
    assert forms.startswith("  logits, largest difference from the parallel form: chunkwise ")
    assert load_network(ours).config.conv_activation == "silu"

    back = run(ours, theirs, "--check")  # Without --to: what it was before.
    assert (back.returncode, back.stderr) == (0, "") and back.stdout.startswith("retort → fla: ")
    returned = load_file(theirs / "model.safetensors")
    assert returned.keys() == stored.keys() and all(torch.equal(returned[name], stored[name]) for name in stored)


def test_a_wrong_command_line_exits_with_2_and_a_refusal_with_1_in_one_line(tmp_path: Path) -> None:
    usage = run(FIXTURES / "fla")
    assert usage.returncode == convert.USAGE and "TARGET" in usage.stderr
    missing = run(tmp_path / "nothing", tmp_path / "ours")
    assert (missing.returncode, missing.stdout) == (convert.REFUSED, "")
    assert missing.stderr == f"convert: there is no {tmp_path / 'nothing'}\n"


def test_check_finds_a_weight_that_is_not_what_it_was(
    fla: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    written = convert.write_checkpoint

    def spoilt(checkpoint: object, folder: Path, *arguments: object, **options: object) -> None:
        written(checkpoint, folder, *arguments, **options)  # type: ignore[arg-type]
        tensors = load_file(folder / "model.safetensors")
        tensors["final_norm.weight"][3] += 0.25
        save_file(tensors, folder / "model.safetensors")

    monkeypatch.setattr(convert, "write_checkpoint", spoilt)
    assert convert.main(["convert", str(fla), str(tmp_path / "ours"), "--check"]) == convert.DIFFERENT
    assert "largest difference 0.25, in final_norm.weight" in capfd.readouterr().out


def test_weights_alone_tell_their_sizes_and_what_they_cannot_tell_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = FIXTURES / "torchscale-bare" / "checkpoint.pt"
    assert convert.main(["convert", str(weights), str(tmp_path / "ours"), "--set", "activation_fn=swish"]) == convert.DONE
    told = capfd.readouterr().out
    assert "layernorm_eps = 1e-06 is taken from torchscale's defaults; --set layernorm_eps=… if it was another" in told
    assert "no_scale_embedding = True is taken" in told and "activation_fn" not in told
    assert load_network(tmp_path / "ours").config.feed_forward_activation == "swish"


def test_a_training_runs_checkpoint_tells_its_settings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = FIXTURES / "torchscale-fairseq" / "checkpoint.pt"
    assert convert.main(["convert", str(source), str(tmp_path / "ours")]) == convert.DONE
    assert "defaults" not in capfd.readouterr().out
    assert convert.main(["convert", str(tmp_path / "ours"), str(tmp_path / "theirs")]) == convert.DONE
    assert all(name.startswith("decoder.") for name in load_file(tmp_path / "theirs" / "model.safetensors"))


def test_a_target_that_holds_something_is_kept_unless_forced(
    fla: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "ours"
    target.mkdir()
    (target / "config.json").write_text("mine")
    (target / "notes").write_text("mine too")
    assert f"{target} exists and is not empty; name another folder, or write over it with --force" in refused(capfd, fla, target)
    assert (target / "config.json").read_text() == "mine"
    assert convert.main(["convert", str(fla), str(target), "--force"]) == convert.DONE
    assert load_network(target).config.heads == 2 and (target / "notes").read_text() == "mine too"
    capfd.readouterr()
    assert "is not supported" in refused(capfd, FIXTURES / "torchscale", target, "--to", "fla", "--force")
    assert load_network(target).config.heads == 2
    assert "is where" in refused(capfd, fla, fla, "--force")
    assert "is a file" in refused(capfd, fla, target / "notes", "--force")
    assert sorted(path.name for path in fla.iterdir()) == ["config.json", "model.safetensors"]


def test_an_earlier_conversions_other_file_does_not_stay_beside_the_new_one(torchscale: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert convert.main(["convert", str(torchscale), str(ours)]) == convert.DONE
    for options, weights in (([], "model.safetensors"), (["--pt"], "model.pt"), ([], "model.safetensors")):
        assert convert.main(["convert", str(ours), str(theirs), "--force", "--check", *options]) == convert.DONE
        assert sorted(path.name for path in theirs.iterdir()) == ["config.json", weights]


@pytest.mark.parametrize("name", ["torchscale", "fla-conv"])
def test_a_network_that_was_never_theirs_becomes_theirs(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kind = name.partition("-")[0]
    network = RetNet(read_checkpoint(FIXTURES / name).config)
    save_network(network, tmp_path / "ours")
    assert "is retort's already; name what it is to be with --to torchscale or --to fla" in refused(
        capfd, tmp_path / "ours", tmp_path / "theirs"
    )
    assert convert.main(["convert", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--to", kind, "--check"]) == convert.DONE
    assert convert.main(["convert", str(tmp_path / "theirs"), str(tmp_path / "again")]) == convert.DONE
    again = load_network(tmp_path / "again").state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in network.state_dict().items())


def test_what_cannot_be_expressed_is_named_before_anything_is_written(
    fla: Path, torchscale: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    assert "rotary_pairs = 'halves' is not supported; only 'interleaved' is" in refused(capfd, fla, target, "--to", "torchscale")
    assert "rotary_pairs = 'interleaved' is not supported; only 'halves' is" in refused(capfd, torchscale, target, "--to", "fla")
    assert "is fla's already" in refused(capfd, fla, target, "--to", "fla")
    assert "--pt is for --to torchscale; this writes retort's" in refused(capfd, fla, target, "--pt")
    assert not target.exists()


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--set", "use_output_gate=False"], "use_output_gate = False is not supported; only True is"),
        (["--set", "num_kv_heads=1"], "attn.k_proj.weight has the shape (32, 32); expected (16, 32)"),
        (["--set", "feature_map=relu"], "feature_map = 'relu' is not supported; only None is"),
        (["--set", "vocab_size=41"], "model.embeddings.weight has the shape (40, 32); expected (41, 32)"),
        (["--set", "num_hidden_layers=3"], "the checkpoint lacks the tensor model.layers.2.attn_norm.weight"),
        (["--set", "num_hidden_layers=1"], "has tensors that this RetNet does not know: model.layers.1."),
        (["--set", "norm_eps=small"], "the configuration's norm_eps is 'small'; expected a number"),
        (["--set", "norm_eps=NaN"], "the configuration's norm_eps is nan; expected a number"),
        (["--set", "tie_word_embeddings=no"], "the configuration's tie_word_embeddings is 'no'; expected true or false"),
        (["--set", "hidden=32"], "no setting of fla that matters is called hidden; those are feature_map, "),
        (["--set", "hidden_size"], "--set hidden_size is not NAME=VALUE"),
        (["--from", "torchscale"], "lacks torchscale's embed_tokens.weight"),
        (["--from", "retort"], "is no configuration of retnet_core; name the package that made"),
        (["--config", "missing.json"], "there is no missing.json"),
    ],
)
def test_what_does_not_fit_a_network_of_fla_is_named(
    settings: list[str], words: str, fla: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capfd, fla, tmp_path / "ours", *settings)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layernorm_embedding": True}, "layernorm_embedding = True is not supported; only False is"),
        ({"decoder_normalize_before": False}, "decoder_normalize_before = False is not supported; only True is"),
        ({"deepnorm": True}, "deepnorm = True is not supported; only False is"),
        ({"moe_freq": 2}, "moe_freq = 2 is not supported; only 0 is"),
        ({"multiway": True}, "multiway = True is not supported; only False is"),
        ({"activation_fn": "relu"}, "feed_forward_activation is one of swish, gelu, not 'relu'"),
        ({"decoder_retention_heads": 2}, "retnet_rel_pos.angle has the shape (8,); expected (12,)"),
        ({"decoder_ffn_embed_dim": "40"}, "decoder_ffn_embed_dim is '40'; expected a number"),
    ],
)
def test_what_does_not_fit_a_network_of_torchscale_is_named(
    fields: dict[str, object], words: str, torchscale: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(torchscale, **fields)
    assert words in refused(capfd, torchscale, tmp_path / "ours")


def test_a_quantised_network_is_refused(fla: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(fla / "model.safetensors")
    save_file({**tensors, "model.norm.weight": torch.ones(32, dtype=torch.int8)}, fla / "model.safetensors")
    assert "model.norm.weight holds torch.int8; expected numbers with a fraction" in refused(capfd, fla, tmp_path / "ours")


def test_a_nan_is_carried_over_and_found_by_check(fla: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(fla / "model.safetensors")
    tensors["model.norm.weight"][5] = torch.nan
    save_file(tensors, fla / "model.safetensors")
    assert convert.main(["convert", str(fla), str(tmp_path / "ours"), "--check"]) == convert.DIFFERENT
    told = capfd.readouterr().out
    assert "weights read back: largest difference 0" in told and "chunkwise nan, recurrent nan" in told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["torchscale", "torchscale-fairseq", "fla-heads"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    place=st.integers(0, 9),
    header=st.booleans(),
)
def test_whatever_bytes_are_damaged_it_is_converted_or_refused_in_one_line(
    name: str, changes: list[tuple[float, int]], place: int, header: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, target = tmp_path / "damaged", tmp_path / "ours"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(FIXTURES / name, folder)
    files = sorted(folder.iterdir())
    file = files[place % len(files)]
    damaged = bytearray(file.read_bytes())
    for where, value in changes:
        damaged[int(where * (min(len(damaged), 2000) if header else len(damaged)))] = value
    file.write_bytes(damaged)
    source = folder / "checkpoint.pt" if name.endswith("fairseq") else folder
    status = convert.main(["convert", str(source), str(target)])
    told = capfd.readouterr().err
    assert (status, told.count("\n")) in ((convert.DONE, 0), (convert.REFUSED, 1))
    assert target.exists() == (status == convert.DONE)


def test_files_that_are_damaged_or_missing_are_named(fla: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target, weights = tmp_path / "ours", fla / "model.safetensors"
    whole = weights.read_bytes()
    for length in (0, 40, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:length])
        assert f"{weights} is truncated, damaged or no safetensors file" in refused(capfd, fla, target)
    weights.write_bytes(whole)
    (fla / "config.json").write_text("{")
    assert "config.json cannot be read as JSON" in refused(capfd, fla, target)
    (fla / "config.json").unlink()
    assert "needs its config.json, beside its weights or named with --config" in refused(capfd, fla, target)
    weights.unlink()
    assert f"{fla} has no weights" in refused(capfd, fla, target)
    for name in ("a.pt", "b.pt"):
        torch.save({}, fla / name)
    assert "several files of weights, a.pt, b.pt: name the one to convert" in refused(capfd, fla, target)
    assert "holds no tensors by name" in refused(capfd, fla / "a.pt", target)
    assert not target.exists()


def test_every_shard_must_be_there_and_hold_what_the_index_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(FIXTURES / "fla-heads", tmp_path / "shards"))
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    first, last = min(places.values()), max(places.values())
    assert first != last
    name = next(name for name, shard in places.items() if shard == first)
    index.write_text(json.dumps({"weight_map": {**places, name: last}}))
    assert f"{last} lacks the tensor {name}, which model.safetensors.index.json promises there" in refused(
        capfd, folder, tmp_path / "o"
    )
    index.write_text(json.dumps({"weight_map": {**places, name: "../outside.safetensors"}}))
    assert "has no weight_map of tensors to files beside it" in refused(capfd, folder, tmp_path / "o")
    index.write_text(json.dumps({"weight_map": places}))
    (folder / last).unlink()
    assert f"there is no {folder / last}" in refused(capfd, folder, tmp_path / "o")


class Bomb:
    """What a pickle could do to whoever loads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_file_that_would_run_code_is_refused_without_running_it(
    torchscale: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tensors = torch.load(torchscale / "model.pt", weights_only=True)
    torch.save({"model": tensors, "args": Bomb(tmp_path / "ran")}, torchscale / "model.pt")
    told = refused(capfd, torchscale, tmp_path / "ours")
    assert "was not loaded: it holds objects, not only tensors and plain values, and loading those could run code" in told
    assert "torch.save(model.state_dict(), …)" in told
    (torchscale / "model.pt").write_bytes(pickle.dumps({"model": Bomb(tmp_path / "ran")}))
    assert "model.pt was not loaded" in refused(capfd, torchscale, tmp_path / "ours")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "ours").exists()


def test_a_damaged_file_of_torch_is_named(torchscale: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = (torchscale / "model.pt").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (torchscale / "model.pt").write_bytes(whole[:length])
        assert "model.pt was not loaded: " in refused(capfd, torchscale, tmp_path / "ours")


def test_files_of_older_torch_and_of_wrapped_models_are_read(torchscale: Path, tmp_path: Path) -> None:
    tensors = torch.load(torchscale / "model.pt", weights_only=True)
    expected = read_checkpoint(torchscale)
    older, wrapped = (Path(shutil.copytree(torchscale, tmp_path / name)) / "model.pt" for name in ("older", "wrapped"))
    torch.save(tensors, older, _use_new_zipfile_serialization=False)
    parameters = {f"module.{name}": torch.nn.Parameter(tensor) for name, tensor in tensors.items()}
    torch.save({"state_dict": parameters, "epoch": 3}, wrapped)
    for read, prefix in ((read_checkpoint(older), ""), (read_checkpoint(wrapped), "module.")):
        assert read.config == expected.config and read.origin is not None and read.origin.prefix == prefix
        for name, rows in expected.parts.items():
            assert all(torch.equal(*pair) for pair in zip(rows, read.parts[name], strict=True)), name


def test_settings_of_ours_cannot_be_changed_on_the_way(fla: Path, tmp_path: Path) -> None:
    assert convert.main(["convert", str(fla), str(tmp_path / "ours")]) == convert.DONE
    with pytest.raises(ForeignError, match="norm_eps cannot be set"):
        read_checkpoint(tmp_path / "ours", settings={"norm_eps": 1.0})

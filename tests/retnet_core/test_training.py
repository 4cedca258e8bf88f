"""A run: what it computes does not depend on how it is divided, and it ends, stops and fails with everything saved."""

from __future__ import annotations

import math
import re
import shutil
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from retnet_core.network_files import load_network
from retnet_core.training import checkpoints
from retnet_core.training.__main__ import _parser, main
from retnet_core.training.checkpoints import ResumeError
from retnet_core.training.configuration import ConfigurationError, Data, Optimiser, Output, Training, TrainingConfig
from retnet_core.training.data import DataError
from retnet_core.training.loop import Diverged, Trainer
from retnet_core.training.optimiser import build_optimiser, decays, learning_rate
from retnet_core.training.processes import Processes
from tests.retnet_core.training_runs import CONFIG, learned, losses, small_config, trained, write_text

SHIPPED_EXAMPLE = Path(__file__).parents[2] / "benchmarks" / "training.toml"


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()])


def test_the_loss_falls(tmp_path: Path) -> None:
    trained(tmp_path, "training.steps=40")
    log = losses(tmp_path / "run")
    assert [step for step, _ in log] == list(range(1, 41))
    assert log[-1][1] < 0.65 * log[0][1]


@pytest.mark.parametrize("kind", ["retnet", "transformer"])
def test_accumulated_gradients_are_those_of_one_large_batch(tmp_path: Path, kind: str) -> None:
    # AdamW's first steps divide each gradient by its own size, which makes much of rounding where a gradient is next to nothing.
    changes = (f"model.kind={kind}", "optimiser.eps=1e-4")
    if kind == "transformer":
        write_text(tmp_path)
        text = CONFIG.format(folder=tmp_path).replace("conv_width = 2\n", "")
        runs = [
            TrainingConfig.parse(text, (*changes, f"training.micro_batch={size}", f"output.folder={tmp_path}/{size}"))
            for size in (4, 1)
        ]
    else:
        runs = [
            small_config(tmp_path, *changes, f"training.micro_batch={size}", f"output.folder={tmp_path}/{size}")
            for size in (4, 1)
        ]
    whole, parts = (Trainer(run, Processes.join("cpu")) for run in runs)
    assert parts.micro_batches == 4 and whole.micro_batches == 1
    whole.run()
    parts.run()
    for (_, one), (_, other) in zip(losses(tmp_path / "4"), losses(tmp_path / "1"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert (weights(whole) - weights(parts)).abs().max() < 1e-4


def test_both_forms_train_alike(tmp_path: Path) -> None:
    chunkwise = trained(tmp_path, f"output.folder={tmp_path}/chunkwise", "optimiser.eps=1e-4")
    parallel = trained(tmp_path, f"output.folder={tmp_path}/parallel", "training.form=parallel", "optimiser.eps=1e-4")
    for (_, one), (_, other) in zip(losses(tmp_path / "chunkwise"), losses(tmp_path / "parallel"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert (weights(chunkwise) - weights(parallel)).abs().max() < 1e-4


def test_bfloat16_and_logits_in_pieces_train_nearly_alike(tmp_path: Path) -> None:
    trained(tmp_path, f"output.folder={tmp_path}/exact")
    trained(tmp_path, f"output.folder={tmp_path}/pieces", "training.loss_pieces=5")
    bf16 = trained(tmp_path, f"output.folder={tmp_path}/bf16", "training.precision=bfloat16")
    exact = losses(tmp_path / "exact")
    for (_, one), (_, pieces), (_, rounded) in zip(exact, losses(tmp_path / "pieces"), losses(tmp_path / "bf16"), strict=True):
        assert pieces == pytest.approx(one, rel=1e-5)
        assert rounded == pytest.approx(one, rel=1e-2)
    assert losses(tmp_path / "bf16") != exact
    assert {weight.dtype for weight in bf16.network.parameters()} == {torch.float32}


def test_gradients_are_clipped(tmp_path: Path) -> None:
    free = trained(tmp_path, f"output.folder={tmp_path}/free", "optimiser.clip=0", "training.steps=1", "optimiser.eps=1.0")
    bound = trained(tmp_path, f"output.folder={tmp_path}/bound", "optimiser.clip=1e-3", "training.steps=1", "optimiser.eps=1.0")
    begun = Trainer(small_config(tmp_path, f"output.folder={tmp_path}/begun", "optimiser.weight_decay=0"), Processes.join("cpu"))
    # With an eps far above the gradients a step is in proportion to them, but for what decays.
    embedding = [trainer.network.embedding.weight.detach() for trainer in (free, bound, begun)]
    decayed = embedding[2] * (1 - 0.5e-2 * 0.1)
    assert (embedding[1] - decayed).norm() < 0.01 * (embedding[0] - decayed).norm()
    assert learned(tmp_path / "free")[0]["gradient_norm"] == learned(tmp_path / "bound")[0]["gradient_norm"] > 0.1


def test_only_matrices_decay(tmp_path: Path) -> None:
    trainer = Trainer(small_config(tmp_path), Processes.join("cpu"))
    optimiser = build_optimiser(trainer.network, Optimiser(weight_decay=0.3))
    strength = {id(weight): group["weight_decay"] for group in optimiser.param_groups for weight in group["params"]}
    by_name = {name: strength[id(weight)] for name, weight in trainer.network.named_parameters()}
    kept = {name.rpartition("layers.0.")[2] for name, decay in by_name.items() if decay == 0 and "layers.1" not in name}
    assert kept == {
        "retention_norm.weight", "retention.convolution", "retention.gate.bias", "retention.rate", "retention.head_norm",
        "feed_forward_norm.weight", "final_norm.weight",
    }  # fmt: skip
    assert by_name["embedding.weight"] == by_name["layers.1.retention.projection.weight"] == 0.3
    assert not decays("layers.0.retention.convolution", torch.zeros(6, 4))


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    config = Optimiser(rate=2.0, warm_up=4, final_share=0.25)
    rates = [learning_rate(step, 12, config) for step in range(1, 13)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[7] == pytest.approx(0.5 + 1.5 / 2)  # half of the way
    assert rates[-1] == 0.5
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert learning_rate(1, 1, Optimiser(rate=2.0, warm_up=0, final_share=0.5)) == 1.0


def test_a_run_out_of_time_goes_on_as_if_it_had_not_ended(tmp_path: Path) -> None:
    trained(tmp_path, f"output.folder={tmp_path}/whole", "output.log_every=4")
    cut = trained(tmp_path, "output.log_every=4", seconds=0)
    assert cut.progress.step == 1
    for _ in range(2):
        trained(tmp_path, "output.log_every=4", resume=True, seconds=0)
    ended = trained(tmp_path, "output.log_every=4", resume=True)
    assert ended.progress.step == 6
    assert learned(tmp_path / "run") == learned(tmp_path / "whole")


def test_a_micro_batch_may_change_on_the_way_and_the_token_file_may_move(tmp_path: Path) -> None:
    trained(tmp_path, seconds=0)
    for suffix in (".bin", ".json"):
        (tmp_path / f"text{suffix}").rename(tmp_path / f"moved{suffix}")
    config = small_config_of_moved(tmp_path, "training.micro_batch=2")
    Trainer(config, Processes.join("cpu"), resume=True).run()
    assert [step for step, _ in losses(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def small_config_of_moved(folder: Path, *changes: str) -> TrainingConfig:
    return TrainingConfig.read(folder / "run.toml", (f"data.tokens={folder}/moved.bin", *changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimiser.rate=0.5", r"optimiser\.rate was 0\.01 and is now 0\.5"),
        ("model.heads=1", r"model\.heads was 2 and is now 1"),
        ("training.steps=9", r"training\.steps was 6 and is now 9"),
        ("data.seed=1", r"data\.seed was 0 and is now 1"),
        ("training.form=parallel", r"training\.form was 'chunkwise' and is now 'parallel'"),
    ],
)
def test_a_changed_run_is_not_gone_on_with(tmp_path: Path, change: str, message: str) -> None:
    trained(tmp_path, seconds=0)
    with pytest.raises(ResumeError, match=message):
        Trainer(small_config(tmp_path, change), Processes.join("cpu"), resume=True)


def test_other_tokens_or_none_or_an_unnamed_wish_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="no checkpoint to go on from"):
        trained(tmp_path, resume=True)
    trained(tmp_path, seconds=0)
    with pytest.raises(ResumeError, match="go on with --resume"):
        trained(tmp_path)
    write_text(tmp_path, 5000)
    with pytest.raises(ResumeError, match="does not hold the tokens that the run began with"):
        trained(tmp_path, resume=True)


def test_the_last_checkpoints_are_kept_and_half_of_one_is_none(tmp_path: Path) -> None:
    trained(tmp_path, "training.steps=9")
    names = [path.name for path in checkpoints.checkpoints(tmp_path / "run")]
    assert names == ["step-00000008", "step-00000009"]
    (tmp_path / "run" / ".step-00000010").mkdir()
    assert [path.name for path in checkpoints.checkpoints(tmp_path / "run")] == names
    kinds = {path.suffix for path in (tmp_path / "run" / names[-1]).iterdir()}
    assert kinds == {".safetensors", ".json", ".toml"}


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "progress.json", "configuration.toml"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    trained(tmp_path)
    damaged = checkpoints.checkpoints(tmp_path / "run")[-1] / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(ResumeError, match=r"step-00000006.*(damaged|truncated)"):
        trained(tmp_path, resume=True)


def test_a_checkpoint_is_a_network_that_can_be_loaded(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    network = load_network(checkpoints.checkpoints(tmp_path / "run")[-1])
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(network(ids)[0], trainer.network(ids)[0])  # type: ignore[index]


def test_a_loss_that_is_not_finite_ends_the_run_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step \d+: the loss is .*lower optimiser\.rate \(now 1e\+30\)"):
        trained(tmp_path, "optimiser.rate=1e30", "optimiser.clip=0", "output.checkpoint_every=1")
    for path in checkpoints.checkpoints(tmp_path / "run"):
        progress = checkpoints.read_progress(
            path, small_config(tmp_path, "optimiser.rate=1e30", "optimiser.clip=0"), trained_on(tmp_path)
        )
        assert math.isfinite(progress.pending_loss)
    assert all(math.isfinite(loss) for _, loss in losses(tmp_path / "run"))


def trained_on(folder: Path) -> str:
    return str(tomllib.loads("x = " + (folder / "text.json").read_text().split('"sha256": ')[1].split("\n")[0])["x"])


def test_a_vocabulary_that_is_too_small_and_a_batch_that_cannot_be_shared_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has ids up to 256, model\.vocabulary is 200"):
        trained(tmp_path, "model.vocabulary=200")
    with pytest.raises(ConfigurationError, match=r"training\.batch is 4; expected a multiple of 8"):
        Trainer(small_config(tmp_path), Processes(0, 2, torch.device("cpu")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.step=3", r"training\.step is unknown; known are steps, batch"),
        ("model.hedas=3", r"model\.hedas is unknown"),
        ("trainer.steps=3", r"unknown table \[trainer\]; known are \[model\], \[data\]"),
        ("training.steps=few", r"training\.steps is 'few'; expected int"),
        ("training.steps=0", r"training\.steps is 0; expected at least 1"),
        ("training.form=recurrent", r"training\.form is 'recurrent'; expected chunkwise or parallel"),
        ("training.form=quadratic", r"training\.form is 'quadratic'; expected 'chunkwise', 'parallel'"),
        ("training.micro_batch=3", r"training\.batch is 4; expected a multiple of training\.micro_batch"),
        ("model.kind=lstm", r"model\.kind is 'lstm'; expected one of retnet, transformer"),
        ("model.head_dim=7", r"\[model\] head_dim must be even"),
        ("optimiser.beta1=1", r"optimiser\.beta1 is 1\.0; expected at least 0 and below 1"),
        ("steps=3", "write it as section.key=value"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small_config(tmp_path, change)


def test_a_configuration_is_written_as_it_is_read(tmp_path: Path) -> None:
    config = small_config(tmp_path, 'data.tokens="with \\"quotes\\" and \\\\.bin"', "model.value_dim=12", "training.compile=true")
    assert TrainingConfig.parse(config.to_toml()) == config


def test_the_shipped_example_has_every_knob() -> None:
    tables = tomllib.loads(SHIPPED_EXAMPLE.read_text())
    for section, made in {"data": Data, "optimiser": Optimiser, "training": Training, "output": Output}.items():
        assert list(tables[section]) == [one.name for one in fields(made)]
    assert TrainingConfig.read(SHIPPED_EXAMPLE).model.vocabulary == 49152


def test_the_examples_of_the_page_are_configurations() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", page, re.S)
    assert [TrainingConfig.parse(example).training.steps for example in examples] == [10000]
    for command in re.findall(r"^python -m retnet_core\.training (.*)$", page, re.M):
        assert _parser().parse_args(command.split()).command


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch compiles with a C++ compiler")
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # torch's compiler of its own doing
def test_compiled_layers_train_alike(tmp_path: Path) -> None:
    short = (
        "training.steps=2",
        "model.layers=1",
        "training.form=parallel",
        "output.evaluate_every=0",
        "output.checkpoint_every=0",
    )
    trained(tmp_path, f"output.folder={tmp_path}/plain", *short)
    trained(tmp_path, f"output.folder={tmp_path}/compiled", "training.compile=true", *short)
    for (_, one), (_, other) in zip(losses(tmp_path / "plain"), losses(tmp_path / "compiled"), strict=True):
        assert other == pytest.approx(one, rel=1e-5)


def test_an_error_on_the_command_line_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(tmp_path / "none.toml")]) == 1
    assert main(["tokens", str(tmp_path), str(tmp_path / "x.bin"), "--bytes"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("error: ") and said[0].endswith("is no file; docs/training.md shows one")
    assert said[1].startswith("error: no .txt, .md, .rst in ")

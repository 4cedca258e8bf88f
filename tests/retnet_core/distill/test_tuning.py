"""The generator's training in miniature: forms agree, documents do not see each other, runs go on, and weights come back as exported."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retnet_core import Model
from retnet_core.checkpoint import TiedLookup, layer_tensors, pack_layer
from retnet_core.config import RetNetConfig
from retnet_core.delta import FINAL_NORM, SUMS, Delta
from retnet_core.distill import DistillError
from retnet_core.distill.align import Alignment
from retnet_core.distill.export import export, move, student_of
from retnet_core.distill.losses import Losses
from retnet_core.distill.measures import Measures, area
from retnet_core.distill.optimisers import OptimiserConfig, orthogonal
from retnet_core.distill.retention_kernel import RESET, has_kernels, retention, retention_reference
from retnet_core.distill.running import Run, checkpoints
from retnet_core.distill.student import Student
from retnet_core.distill.teacher import Teacher
from retnet_core.distill.tune import ByCode, StageConfig, Tuning, stage
from retnet_core.quantize import pack
from retnet_core.retention import retention_recurrent
from retnet_core.training.processes import Processes
from tests.retnet_core.distill.tiny_student import CONFIG, digest, tiny_base, tiny_mixture, tiny_stage

CPU = Processes(0, 1, torch.device("cpu"))


def tiny_student(rank: int = 2, seed: int = 0) -> Student:
    student = Student.from_teacher(tiny_base(), torch.full((CONFIG.layers, CONFIG.heads), 20.0), rank, seed=seed)
    drawn = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if name != "ll":
                weight.add_(torch.randn(weight.shape, generator=drawn) * 0.05)
    return student


def as_model(base: Any, folder: Path, config: RetNetConfig = CONFIG) -> Model:
    """What the engine makes of exported weights, over the tiny base."""

    class AsGguf:
        path = folder

        def tensor(self, name: str) -> torch.Tensor:
            return base.tensors[name].clone()

    with Delta(folder) as delta:
        delta.check(config)
        layers = [pack_layer(dict(layer_tensors(delta, AsGguf(), n)), config, "float32", number=n) for n in range(config.layers)]  # type: ignore[arg-type]
        norm = delta.tensor(FINAL_NORM)
    table = base.tensors["token_embd.weight"]
    return Model(config, layers, TiedLookup(table), norm, pack(table, "float32"), fingerprint="tiny", precision="float32")


def test_retention_and_its_gradients_are_the_recurrent_forms_with_documents_reset() -> None:
    drawn = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 150, 2, 16, generator=drawn, dtype=torch.float64, requires_grad=True) for _ in range(3))
    decay = -torch.rand(2, 150, 2, generator=drawn, dtype=torch.float64)
    decay[:, 70] += RESET
    decay.requires_grad_()
    turned = [part.transpose(1, 2) for part in (q, k, v)]
    expected = retention_recurrent(*turned, decay.transpose(1, 2))[0].transpose(1, 2)
    actual = retention(q, k, v, decay)
    torch.testing.assert_close(actual, expected)
    weights = torch.randn(expected.shape, generator=drawn, dtype=torch.float64)
    for one, other in zip(
        *(torch.autograd.grad((out * weights).sum(), (q, k, v, decay)) for out in (actual, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)
    alone = retention(q[:, 70:], k[:, 70:], v[:, 70:], decay[:, 70:])
    torch.testing.assert_close(actual[:, 70:], alone)


@pytest.mark.skipif(not (torch.cuda.is_available() and has_kernels()), reason="needs a GPU and Triton")
def test_the_kernels_are_the_chunkwise_form() -> None:
    drawn = torch.Generator("cuda").manual_seed(1)
    inputs = [torch.randn(2, 300, 3, 64, device="cuda", generator=drawn) for _ in range(3)]
    decay = -torch.rand(2, 300, 3, device="cuda", generator=drawn) * 0.1
    decay[:, 130] += RESET
    found = []
    for form, kind in ((retention_reference, torch.float32), (retention, torch.bfloat16)):
        q, k, v = (part.to(kind).requires_grad_() for part in (one.detach().clone() for one in inputs))
        own = decay.clone().requires_grad_()
        out = form(q, k, v, own)
        found.append([out, *torch.autograd.grad(out.float().sin().sum(), (q, k, v, own))])
    for exact, rounded in zip(*found, strict=True):
        assert (exact.float() - rounded.float()).norm() < 3e-2 * exact.float().norm()


def test_documents_in_a_row_do_not_see_each_other_in_student_and_teacher() -> None:
    base, student = tiny_base(), tiny_student()
    teacher = Teacher(base, torch.device("cpu"), torch.float32)
    first, second = torch.arange(40), torch.arange(100, 190)
    row = torch.cat((first, second))[None]
    since = torch.cat((torch.arange(40), torch.arange(90)))[None]
    for hidden in (student.hidden, teacher.hidden):
        torch.testing.assert_close(hidden(row, since)[:, 40:], hidden(second[None]), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(hidden(row)[:, 41:], hidden(second[None])[:, 1:], atol=1e-2)


def test_heads_look_back_as_far_as_the_attention_does() -> None:
    teacher = Teacher(tiny_base(), torch.device("cpu"), torch.float32)
    found = teacher.look_back(torch.randint(0, 1000, (2, 128), generator=torch.Generator().manual_seed(0)))
    assert found.shape == (CONFIG.layers, CONFIG.heads)
    # Random attention looks back half of what it sees.
    assert ((found > 20) & (found < 64)).all()


def test_gradients_by_hand_are_autograds() -> None:
    drawn = torch.Generator().manual_seed(0)
    table, hidden = torch.randn(50, 8, generator=drawn), torch.randn(20, 8, generator=drawn, requires_grad=True)
    taught, wanted = torch.randn(20, 8, generator=drawn), torch.randint(0, 50, (20,), generator=drawn)
    answers, teacher = torch.rand(20, generator=drawn), torch.rand(20, generator=drawn)
    entropy, divergence, gradient = Losses(table, rows=7)(hidden.detach(), wanted, answers, taught, teacher)
    student = (hidden @ table.T).log_softmax(-1)
    sought = (taught @ table.T).log_softmax(-1)
    expected_entropy = torch.nn.functional.nll_loss(student, wanted, reduction="none")
    expected_divergence = torch.nn.functional.kl_div(student, sought, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(entropy, expected_entropy)
    torch.testing.assert_close(divergence, expected_divergence)
    (expected,) = torch.autograd.grad((expected_entropy * answers + expected_divergence * teacher).sum(), hidden)
    torch.testing.assert_close(gradient, expected)


def test_muons_step_has_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))).float())
    assert values.min() > 0.5 and values.max() < 1.5


def made(config: StageConfig, objective: Any = Tuning, **table: Any) -> Run:
    return stage(config, {"seed": 0, **table}, tiny_base(), tiny_mixture(), CPU, objective)


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", [Tuning, Alignment])
def test_a_stage_learns(tmp_path: Path, objective: Any) -> None:
    trained = ["wi", "cw", "wa", "ba", "ll", "gn", "wo"] if objective is Alignment else []
    run = made(tiny_stage(tmp_path, 12, trained=trained), objective)
    assert run.run() == "finished"
    lines = logged(tmp_path)
    name = "error" if objective is Alignment else "digit"
    assert lines[-1][name] < 0.95 * lines[0][name]
    assert lines[-1]["tokens"] == 12 * 2 * 256


def test_a_run_that_stopped_goes_on_as_the_same_run(tmp_path: Path) -> None:
    whole = made(tiny_stage(tmp_path / "whole"))
    whole.run()
    config = tiny_stage(tmp_path / "parts")
    assert made(config).run(0.0) == "out of time"
    assert checkpoints(config.run.folder)[-1].name == "step-00000001"
    second = made(config)
    kept, second.objective = second.objective, None  # type: ignore[assignment]

    def kill(batch: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return kept(batch)

    kill.names = kept.names  # type: ignore[attr-defined]
    second.objective = kill  # type: ignore[assignment]
    assert second.run() == "stopped"
    last = made(config)
    assert last.run() == "finished"
    assert digest(dict(last.student.named_parameters())) == digest(dict(whole.student.named_parameters()))
    with pytest.raises(DistillError, match="another seed"):
        made(config, seed=1)


def test_a_run_that_is_to_finish_by_the_clock_does(tmp_path: Path) -> None:
    run = made(tiny_stage(tmp_path, 100000))
    assert run.run(1.0, finish=True) == "finished"
    assert 0 < run.progress.step < 100000
    lines = logged(tmp_path)
    assert lines[-1]["rate"] < lines[0]["rate"] or len(lines) < 3


def test_rates_rise_stay_and_fall() -> None:
    config = OptimiserConfig(rate=1.0, warm_up=10, decay=0.5, final=0.1)
    assert [config.at(1, 0), config.at(10, 0.1), config.at(99, 0.75), config.at(99, 1.0)] == [0.1, 1.0, 0.5, 0.1]


def test_only_what_is_named_is_trained(tmp_path: Path) -> None:
    run = made(tiny_stage(tmp_path, 2, trained=["wi", "ll"], teacher=ByCode(context=1.0, prose=1.0)))
    before = {name: weight.detach().clone() for name, weight in run.student.named_parameters()}
    run.run()
    changed = {name for name, weight in run.student.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {"wi", "ll"}
    with pytest.raises(DistillError, match="nonsense is unknown"):
        made(tiny_stage(tmp_path / "other", trained=["nonsense"]))


def test_exported_weights_load_as_a_model_with_the_students_logits(tmp_path: Path) -> None:
    base, student = tiny_base(), tiny_student()
    written = export(student, tmp_path / "out", None)
    model, back = as_model(base, tmp_path / "out"), student_of(base, tmp_path / "out")
    ids = torch.arange(200, 260)
    engine, _ = model.read(ids.tolist())
    trained = back.hidden(ids[None])[0] @ base.tensors["token_embd.weight"].T
    torch.testing.assert_close(engine, trained.detach(), rtol=1e-4, atol=1e-4)
    exact = (student.hidden(ids[None])[0] @ base.tensors["token_embd.weight"].T).detach()
    # int8 per row costs little.
    assert (engine - exact).norm() < 0.05 * exact.norm()
    sums = (tmp_path / "out" / SUMS).read_text()
    assert [line.split("  ")[1] for line in sums.splitlines()] == [path.name for path in written]


def test_exporting_what_was_exported_changes_nothing(tmp_path: Path) -> None:
    base = tiny_base()
    export(tiny_student(), tmp_path / "one", None)
    export(student_of(base, tmp_path / "one"), tmp_path / "two", None)
    assert (tmp_path / "one" / SUMS).read_text() == (tmp_path / "two" / SUMS).read_text()


def test_weights_move_between_two_and_refuse_another_shape() -> None:
    start, end = tiny_student(seed=0), tiny_student(seed=1)
    middle = tiny_student(seed=1)
    move(middle, start, 0.25)
    torch.testing.assert_close(
        middle.get_parameter("wi"), start.get_parameter("wi") + 0.25 * (end.get_parameter("wi") - start.get_parameter("wi"))
    )
    with pytest.raises(DistillError, match="gA is not alike"):
        move(tiny_student(rank=3), start, 0.5)


@pytest.mark.timeout(600)  # 97 s on two cores
def test_measures_tell_a_student_that_knows_from_one_that_does_not() -> None:
    base, student = tiny_base(), tiny_student()
    teacher = Teacher(base, torch.device("cpu"), torch.float32)
    measures = Measures(student, teacher, tiny_mixture(), rows=6)
    found = measures()
    assert {
        "answer_loss",
        "digit",
        "auc_near_miss",
        "auc_elsewhere",
        "prose_above_teacher",
        "recall_4",
        "recall_32",
        "fact_0",
        "fact_18",
    } <= set(found)
    assert found["prose_loss"] > 0 and all(0 <= found[name] <= 1 for name in ("digit", "auc_near_miss", "recall_4", "fact_0"))
    assert measures() == found
    assert area([0.9, 0.8], [0.1, 0.2]) == 1.0 and area([0.5], [0.5]) == 0.5


def test_a_configuration_names_what_is_wrong() -> None:
    table: dict[str, Any] = {
        "run": {"folder": "runs/x", "steps": 5},
        "mixture": {"passages": [], "pairs": [], "written": [], "sentences": "workers.answer.sentences:split_sentences"},
    }
    config = StageConfig.make(table, "x.toml")
    assert config.run.length(1) == 2048 and replace(config.run, lengths=[512, 1024]).length(5) == 1024
    with pytest.raises(DistillError, match="run: stepz is unknown"):
        StageConfig.make(table | {"run": {"folder": "x", "steps": 1, "stepz": 2}}, "x.toml")
    with pytest.raises(DistillError, match=r"mixture\.shares: recall is 2"):
        StageConfig.make(table | {"mixture": table["mixture"] | {"shares": {"recall": 2.0}}}, "x.toml")


@pytest.mark.parametrize("name", ["align", "distill", "tune"])
def test_the_configurations_beside_the_commands_are_read(name: str) -> None:
    from retnet_core.distill.configuration import read_table

    path = Path(__file__).parents[3] / "retnet_core" / "distill" / f"{name}.toml"
    assert StageConfig.make(read_table(path), str(path)).run.steps > 0

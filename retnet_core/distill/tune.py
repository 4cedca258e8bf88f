"""`python -m retnet_core.distill tune`: the answer format from conversations, KL to the teacher on everything that is not an answer.

Cross-entropy on passages, which repeat, ruins the language model (docs/model.md); so what is read is held to the teacher, and only answers and
the numbers of passages are learnt as they stand.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retnet_core.distill import configuration
from retnet_core.distill.configuration import built, read_table
from retnet_core.distill.losses import Losses
from retnet_core.distill.measures import Measures
from retnet_core.distill.mixture.layout import CODES
from retnet_core.distill.mixture.mix import Mixture
from retnet_core.distill.mixture.sources import MixtureConfig
from retnet_core.distill.optimisers import OptimiserConfig
from retnet_core.distill.running import Batch, Run, RunConfig, checkpoints, load_weights
from retnet_core.distill.student import Student, begin
from retnet_core.distill.teacher import Base, Teacher
from retnet_core.training.processes import Processes

CONFIGURATION = Path(__file__).with_name("tune.toml")
LOOK_BACK_ROWS, LOOK_BACK_LENGTH = 4, 1024


@dataclass(frozen=True, slots=True)
class ByCode:
    """A weight for each thing that a token may be for."""

    context: float = 0.0
    answer: float = 0.0
    digit: float = 0.0
    prose: float = 0.0

    def on(self, device: torch.device) -> Tensor:
        """By code, and 0 for the end of a document."""
        return torch.tensor([*(getattr(self, one.name) for one in fields(self)), 0.0], device=device)


assert tuple(one.name for one in fields(ByCode)) == CODES


@dataclass(frozen=True, slots=True)
class StageConfig:
    """What align.toml, distill.toml and tune.toml say. `start`: a folder of weights, a folder of checkpoints, or "teacher" for a new student."""

    run: RunConfig
    mixture: MixtureConfig
    start: str = "retnet_core/weights"
    rank: int = 32
    trained: list[str] = field(default_factory=list)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    entropy: ByCode = field(default_factory=lambda: ByCode(answer=1.0, digit=3.0))
    teacher: ByCode = field(default_factory=lambda: ByCode(context=0.15, prose=0.3))
    measured_rows: int = 400

    @classmethod
    def make(cls, table: Mapping[str, Any], where: str) -> StageConfig:
        """Raises `DistillError` for an unknown key or a value that does not fit."""

        def part(kind: type[Any], name: str, **made: Callable[[Any], Any]) -> Callable[[Any], Any]:
            return lambda given: built(kind, given, f"{where}: {name}", **made)

        return built(
            cls, table, where,
            run=part(RunConfig, "run", folder=configuration.folder_or_file, lengths=_counts, compiled=_flag),
            mixture=lambda given: MixtureConfig.make(given, f"{where}: mixture"),
            trained=_texts, optimiser=part(OptimiserConfig, "optimiser"),
            entropy=part(ByCode, "entropy"), teacher=part(ByCode, "teacher"),
        )  # fmt: skip


class Tuning:
    """Weighted cross-entropy and KL of a batch, by code."""

    names = ("answer", "digit", "context_kl", "prose_kl", "answer_kl")

    def __init__(self, student: Student, teacher: Teacher, config: StageConfig, *, compiled: bool = False) -> None:
        self.student, self.teacher = student, teacher
        self.losses = Losses(student.get_buffer("embedding"), compiled=compiled)
        self._entropy, self._teacher = config.entropy.on(teacher.device), config.teacher.on(teacher.device)

    def __call__(self, batch: Batch) -> Tensor:
        """See `running.Objective`."""
        kinds = batch.kinds.flatten()
        entropy_weight, teacher_weight = self._entropy[kinds], self._teacher[kinds]
        hidden = self.student.hidden(batch.ids, batch.since).flatten(0, 1)
        taught = self.teacher.hidden(batch.ids, batch.since).flatten(0, 1).to(hidden.dtype)
        entropy, divergence, gradient = self.losses(
            hidden.detach(), batch.wanted.flatten(), entropy_weight, taught, teacher_weight
        )
        hidden.backward(gradient)
        sums = [(entropy_weight + teacher_weight).sum()]
        for code, values in ((1, entropy), (2, entropy), (0, divergence), (3, divergence), (1, divergence)):
            of_kind = kinds == code
            sums += [(values * of_kind).sum(), of_kind.sum()]
        return torch.stack(sums)


def add_arguments(parser: argparse.ArgumentParser, default: Path = CONFIGURATION) -> None:
    parser.add_argument("--config", type=Path, default=default, help=f"a TOML file like {default.name} beside this module")
    parser.add_argument("--seconds", type=float, help="save and leave after so many; the same command goes on")
    parser.add_argument("--finish", action="store_true", help="come to the end, rate and all, within --seconds")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--base", type=Path, help="the base model's GGUF, where its package is not installed")


def run(given: argparse.Namespace) -> None:
    run_stage(given, Tuning)


def run_stage(given: argparse.Namespace, objective: Callable[..., Any]) -> None:
    """Read the configuration and data, and run a stage. Raises `DistillError`."""
    table = read_table(given.config)
    config = StageConfig.make(table, str(given.config))
    processes = Processes.join(given.device)
    try:
        base = Base.load(given.base)
        mixture = config.mixture.mixture(base.tokenizer)
        ending = stage(config, table, base, mixture, processes, objective).run(given.seconds, finish=given.finish)
        if processes.first:
            print(f"{ending}: {config.run.folder}")
    finally:
        processes.leave()


def stage(
    config: StageConfig,
    table: Mapping[str, Any],
    base: Base,
    mixture: Mixture,
    processes: Processes,
    objective: Callable[..., Any],
) -> Run:
    """Everything of a run, put together."""
    device = processes.device
    on_gpu = device.type == "cuda"
    dtype, compiled = torch.bfloat16 if on_gpu else torch.float32, config.run.compiled and on_gpu
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    prose = [mixture.batch(f"look back/{row}", 1, LOOK_BACK_LENGTH)[0] for row in range(LOOK_BACK_ROWS)]
    ids = torch.cat([torch.from_numpy(row.astype("int64")) for row in prose])
    student = started(config, base, ids, device, dtype, compiled=compiled)
    student.train_only(config.trained)
    teacher = Teacher(base, device, dtype, compiled=compiled)
    made = objective(student, teacher, config, compiled=compiled)
    measures = None
    if processes.first and config.run.measure_every:
        measures = Measures(student, teacher, config.mixture.measuring(base.tokenizer), rows=config.measured_rows)
    return Run(student, made, mixture, config.run, config.optimiser, processes, table, measures)


def started(config: StageConfig, base: Base, ids: Tensor, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> Student:
    """The student that the run begins with. Raises `DistillError` or `CheckpointError` for a start that can't be read."""
    found = checkpoints(Path(config.start)) if config.start != "teacher" else []
    student = begin(base, "teacher" if found else config.start, config.rank, ids, device, dtype, compiled=compiled)
    if found:
        load_weights(student, found[-1])
    return student


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is no list of names")
    return value


def _counts(value: Any) -> list[int]:
    if not isinstance(value, list) or not value or not all(type(one) is int and one > 0 for one in value):
        raise ValueError(f"{value!r} is no list of lengths")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value

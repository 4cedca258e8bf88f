"""The loop of align, distill and tune: batches made by other processes, gradients averaged over all GPUs, a log, measures, checkpoints.

A step reads `batches` batches of `tokens` tokens however many GPUs share them, and each batch is a pure function of seed, step and number: a run
that was killed goes on as the same run.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from retnet_core.checkpoint import CheckpointError
from retnet_core.distill import DistillError
from retnet_core.distill.mixture.mix import Mixture, since_of, targets
from retnet_core.distill.optimisers import OptimiserConfig, Optimisers
from retnet_core.distill.student import Student
from retnet_core.network_files import read_tensors, write_tensors
from retnet_core.training.processes import Processes

WEIGHTS, OPTIMISER, PROGRESS = "student.safetensors", "optimiser.safetensors", "progress.json"
PREFETCH = 6
MAY_CHANGE = ("log_every", "measure_every", "checkpoint_every", "workers", "keep", "compiled")
"""Keys of `[run]` that a run may go on with another value of."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """`tokens` of a batch are `tokens // length` rows; `lengths` are reached one after the other in equal shares of the steps."""

    folder: Path
    steps: int
    tokens: int = 32768
    batches: int = 2
    lengths: list[int] = field(default_factory=lambda: [2048])
    seed: int = 0
    workers: int = 6
    log_every: int = 10
    measure_every: int = 200
    checkpoint_every: int = 200
    keep: int = 2
    compiled: bool = True

    def length(self, step: int) -> int:
        """Of the rows at step 1, 2, …"""
        return self.lengths[min((step - 1) * len(self.lengths) // self.steps, len(self.lengths) - 1)]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors `[rows, length]` on the device: ids, tokens of the same document before each, the id that follows, and its code."""

    ids: Tensor
    since: Tensor
    wanted: Tensor
    kinds: Tensor


class Objective(Protocol):
    """Adds the gradients of a batch. Returns the sum of the weights they are to be divided by and sums for the log, `[1 + 2 · names]`."""

    names: tuple[str, ...]

    def __call__(self, batch: Batch) -> Tensor: ...


class Batches(Dataset[tuple[np.ndarray, ...]]):
    """This process's batches, by number; made in the loader's processes."""

    def __init__(self, mixture: Mixture, config: RunConfig, processes: Processes) -> None:
        self.mixture, self.config = mixture, config
        self.rank, self.count = processes.rank, processes.count
        self.each = config.batches // processes.count

    def __len__(self) -> int:
        return self.config.steps * self.each

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        step, own = number // self.each + 1, number % self.each
        length = self.config.length(step)
        seed = f"{self.config.seed}/{step}/{own * self.count + self.rank}"
        ids, codes = self.mixture.batch(seed, max(1, self.config.tokens // length), length)
        wanted, kinds = targets(ids, codes)
        return ids, since_of(codes).astype(np.int16), wanted, kinds


@dataclass(slots=True)
class Progress:
    """How far a run is; `share`: how much of it is over, by steps or by the clock."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    share: float = 0.0


class Run:
    """One run of a stage. `measure` is called on the first process and says what it found.

    Raises `DistillError` for a folder that another run is in, and for batches that the processes cannot share.
    """

    def __init__(
        self, student: Student, objective: Objective, mixture: Mixture, config: RunConfig, optimiser: OptimiserConfig,
        processes: Processes, table: Mapping[str, Any], measure: Callable[[], dict[str, float]] | None = None,
    ) -> None:  # fmt: skip
        if config.batches % processes.count:
            raise DistillError(f"run.batches is {config.batches}; expected a multiple of {processes.count} processes")
        self.student, self.objective, self.config, self.processes = student, objective, config, processes
        self.measure, self.table = measure, _kept(table)
        self.optimisers = Optimisers(student, optimiser)
        self.progress = Progress()
        self._dataset = Batches(mixture, config, processes)
        self._sums = torch.zeros(1 + 2 * len(objective.names), device=processes.device)
        self._stopped = False
        self._resume()

    def run(self, seconds: float | None = None, *, finish: bool = False) -> str:
        """Train to the last step, SIGTERM, or for `seconds`; the run is saved in any case. With `finish` the rate comes down within the seconds,
        and the run is over after them. Returns how it ended."""
        begun, before, since_log = time.monotonic(), self.progress.seconds, time.monotonic()
        already, steps = self.progress.share, self.config.steps
        earlier = signal.signal(signal.SIGTERM, self._stop)
        try:
            for batches in self._batches():
                gone = time.monotonic() - begun
                by_clock = already + (1 - already) * gone / seconds if seconds and finish else 0.0
                self.progress.share = self._agreed(max(self.progress.step / steps, by_clock))
                if self.progress.share >= 1:
                    break
                norm = self._step(batches)
                self.progress.seconds = before + time.monotonic() - begun
                if self.progress.step % self.config.log_every == 0:
                    self._log_losses(norm, time.monotonic() - since_log)
                    since_log = time.monotonic()
                    late = seconds is not None and not finish and time.monotonic() - begun >= seconds
                    if self.processes.any(self._stopped or late):
                        self._save()
                        return "stopped" if self._stopped else "out of time"
                due = self.progress.step % self.config.measure_every == 0 if self.config.measure_every else False
                if self.config.checkpoint_every and self.progress.step % self.config.checkpoint_every == 0:
                    self._save()
                if due:
                    self._measure()
                    since_log = time.monotonic()
            self.progress.share = 1.0
            self._save()
            self._measure()
            return "finished"
        finally:
            signal.signal(signal.SIGTERM, earlier)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True

    def _agreed(self, share: float) -> float:
        """The same for all processes, whose clocks differ."""
        if self.processes.count == 1:
            return share
        return float(self.processes.mean(torch.tensor(share, dtype=torch.float64, device=self.processes.device)))

    def _batches(self) -> Iterator[list[Batch]]:
        """What this process reads at each step that is left."""
        each, device = self._dataset.each, self.processes.device
        left = range(self.progress.step * each, len(self._dataset))
        workers = self.config.workers
        loader: DataLoader[Any] = DataLoader(
            self._dataset, batch_size=None, sampler=left, num_workers=workers, pin_memory=device.type == "cuda",
            prefetch_factor=PREFETCH if workers else None, multiprocessing_context="fork" if workers else None,
        )  # fmt: skip
        waiting: list[Batch] = []
        for ids, since, wanted, kinds in loader:
            parts = (part.to(device, non_blocking=True).long() for part in (ids, since, wanted, kinds))
            waiting.append(Batch(*parts))
            if len(waiting) == each:
                yield waiting
                waiting = []

    def _step(self, batches: list[Batch]) -> Tensor:
        sums = torch.zeros_like(self._sums)
        for batch in batches:
            sums += self.objective(batch)
        if self.processes.count > 1:
            dist.all_reduce(sums)
        for weight in self.optimisers.named.values():
            if weight.grad is None:
                raise DistillError("a weight that is to be trained takes no part in this stage: leave it out of `trained`")
            if self.processes.count > 1:
                dist.all_reduce(weight.grad)
            weight.grad /= sums[0]
        self.progress.step += 1
        self.progress.tokens += sum(batch.ids.numel() for batch in batches) * self.processes.count
        self._sums += sums
        return self.optimisers.step(self.optimisers.config.at(self.progress.step, self.progress.share))

    def _log_losses(self, norm: Tensor, seconds: float) -> None:
        """The mean losses since the last line. Raises `DistillError` where something is not finite; nothing of it is saved."""
        values = self._sums.tolist()
        self._sums.zero_()
        if not all(map(np.isfinite, [*values, float(norm)])):
            raise DistillError(
                f"step {self.progress.step}: losses or gradients are not finite; lower optimiser.rate and go on from the checkpoint"
            )
        line: dict[str, Any] = {"step": self.progress.step, "tokens": self.progress.tokens}
        for place, name in enumerate(self.objective.names):
            total, count = values[1 + 2 * place : 3 + 2 * place]
            if count:
                line[name] = round(total / count, 4)
        tokens = self.config.log_every * self.config.batches * self.config.tokens
        rate = self.optimisers.config.at(self.progress.step, self.progress.share)
        self._log(line | {
            "norm": round(float(norm), 4), "rate": round(rate, 7), "share": round(self.progress.share, 4),
            "tokens_per_second": round(tokens / seconds), "seconds": round(self.progress.seconds, 1),
        })  # fmt: skip

    def _measure(self) -> None:
        if self.measure is not None and self.processes.first:
            with torch.no_grad():
                found = self.measure()
            self._log({"step": self.progress.step, "measures": {name: round(value, 4) for name, value in found.items()}})
        self.processes.wait()

    def _log(self, line: Mapping[str, Any]) -> None:
        if self.processes.first:
            text = json.dumps(line)
            with (self.config.folder / "log.jsonl").open("a") as file:
                file.write(text + "\n")
            print(text, flush=True)

    def _save(self) -> None:
        """A checkpoint, whole under its name or not at all."""
        if self.processes.first:
            final = self.config.folder / f"step-{self.progress.step:08d}"
            partial = final.with_name("." + final.name)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            weights = {name: [weight] for name, weight in self.student.named_parameters()}
            write_tensors(partial / WEIGHTS, weights, {})
            write_tensors(partial / OPTIMISER, {name: [value] for name, value in self.optimisers.state().items()}, {})
            (partial / PROGRESS).write_text(json.dumps({"progress": asdict(self.progress), "configuration": self.table}))
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            for old in checkpoints(self.config.folder)[: -self.config.keep]:
                shutil.rmtree(old)
        self.processes.wait()

    def _resume(self) -> None:
        self.config.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoints(self.config.folder)
        if not found:
            return
        try:
            stored = json.loads((found[-1] / PROGRESS).read_text())
            self.progress = Progress(**stored["progress"])
            tensors = read_tensors(found[-1] / OPTIMISER)[0]
        except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
            raise DistillError(f"{found[-1]} is damaged ({error}): remove it to go on from the one before") from None
        for name in sorted(stored["configuration"].keys() | self.table.keys()):
            if stored["configuration"].get(name) != self.table.get(name):
                raise DistillError(
                    f"{self.config.folder} holds a run with another {name}: set it back, or name another run.folder"
                )
        load_weights(self.student, found[-1])
        self.optimisers.restore(tensors)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*"))


def load_weights(student: Student, checkpoint: Path) -> None:
    """Put a checkpoint's weights in the place of the student's. Raises `DistillError` for a damaged file or one of another shape."""
    try:
        tensors = read_tensors(checkpoint / WEIGHTS)[0]
        student.load_state_dict(tensors | dict(student.named_buffers()))
    except (CheckpointError, RuntimeError) as error:
        raise DistillError(f"{checkpoint} does not fit: {' '.join(str(error).split())}") from None


def _kept(table: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same when a run goes on, flat: names with dots."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            inner = {key: one for key, one in value.items() if name != "run" or key not in MAY_CHANGE}
            found |= {f"{name}.{key}": one for key, one in _kept(inner).items()}
        else:
            found[name] = value
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]

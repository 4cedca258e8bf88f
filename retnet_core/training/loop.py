"""The training loop: windows in, gradients, one step of AdamW; a log, evaluations and checkpoints on the way."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from retnet_core.training import checkpoints
from retnet_core.training.checkpoints import Progress, ResumeError
from retnet_core.training.configuration import ConfigurationError, TrainingConfig
from retnet_core.training.data import DataError, TokenFile, Windows
from retnet_core.training.evaluation import held_out_losses
from retnet_core.training.objective import Objective, allow_tensor_cores, build
from retnet_core.training.optimiser import build_optimiser, learning_rate
from retnet_core.training.processes import Processes

Ending = Literal["finished", "out of time", "stopped"]


class Diverged(ArithmeticError):
    """A loss or gradient is NaN or infinite. The weights of the last checkpoint are untouched by it."""


class Trainer:
    """One run: from nothing, or from the last checkpoint of its folder (`resume`).

    Raises `DataError` for tokens that do not fit, `ConfigurationError` for a batch that the processes cannot share, and `ResumeError` for
    `resume` without a checkpoint, no `resume` with one, or a checkpoint of another run.
    """

    def __init__(self, config: TrainingConfig, processes: Processes, *, resume: bool = False) -> None:
        self.config, self.processes = config, processes
        self.folder = config.output.folder
        self.file = TokenFile(config.data.tokens)
        if self.file.description.size > config.model.vocabulary:
            raise DataError(
                f"{config.data.tokens} has ids up to {self.file.description.size - 1}, model.vocabulary is {config.model.vocabulary}"
            )
        self.windows = Windows(self.file, context=config.data.context, held_out=config.data.held_out, seed=config.data.seed)
        share = config.training.micro_batch * processes.count
        if config.training.batch % share:
            raise ConfigurationError(
                f"training.batch is {config.training.batch}; expected a multiple of {share} (training.micro_batch times {processes.count} processes)"
            )
        self.micro_batches = config.training.batch // share
        allow_tensor_cores(config.training, processes.device)
        self.network = build(config.model, config.training.seed).to(processes.device)
        self.objective = Objective(self.network, config.training)
        self.optimiser = build_optimiser(self.network, config.optimiser)
        self.progress = Progress(0, 0, 0.0, 0.0, 0, 0.0, self.file.description.sha256)
        self._stopped = False
        self._begin(resume)
        # After the weights are those to begin with: it sends the first process's to all.
        self.shared = DistributedDataParallel(self.objective) if processes.count > 1 else None

    def _begin(self, resume: bool) -> None:
        found = checkpoints.checkpoints(self.folder)
        if resume and not found:
            raise ResumeError(f"{self.folder} has no checkpoint to go on from; leave --resume out to begin")
        if found and not resume:
            raise ResumeError(
                f"{self.folder} has a checkpoint ({found[-1].name}); go on with --resume, or name another output.folder"
            )
        if found:
            self.progress = checkpoints.read_progress(found[-1], self.config, self.file.description.sha256)
            checkpoints.load(found[-1], self.network, self.optimiser)
        if self.processes.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "configuration.toml").write_text(self.config.to_toml())
            self._cut_log()

    def run(self, seconds: float | None = None) -> Ending:
        """Train to the last step, or until `seconds` have passed or SIGTERM asks to stop; either way the run is saved. Raises `Diverged`."""
        begun = time.monotonic()
        with self._stopping():
            while self.progress.step < self.config.training.steps:
                self._step()
                timed_out = seconds is not None and time.monotonic() - begun >= seconds
                # All processes end at the same step.
                if self.processes.any(timed_out or self._stopped):
                    self._save()
                    return "stopped" if self.processes.any(self._stopped) else "out of time"
        self._save()
        return "finished"

    def _step(self) -> None:
        """One step of the optimiser, and what is due after it."""
        began, step = time.perf_counter(), self.progress.step + 1
        rate = learning_rate(step, self.config.training.steps, self.config.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss, norm = self._gradients(step)
        # Read back before the step is taken: what is not finite never reaches the weights.
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"step {step}: the loss is {loss} and the norm of the gradients {norm}; lower optimiser.rate (now {self.config.optimiser.rate}) "
                "or raise optimiser.warm_up, and begin in another folder; the last checkpoint is as it was"
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.processes.device.type == "cuda":
            torch.cuda.synchronize()
        before, tokens = self.progress, self.config.training.batch * self.config.data.context
        self.progress = replace(
            before,
            step=step,
            tokens=before.tokens + tokens,
            pending_loss=before.pending_loss + loss,
            pending_norm=before.pending_norm + norm,
            pending_steps=before.pending_steps + 1,
            seconds=before.seconds + time.perf_counter() - began,
        )
        output = self.config.output
        if step % output.log_every == 0 or step == self.config.training.steps:
            self._log_steps(rate, tokens / (time.perf_counter() - began))
        if output.evaluate_every and step % output.evaluate_every == 0:
            self._evaluate()
        if output.checkpoint_every and step % output.checkpoint_every == 0 and step < self.config.training.steps:
            self._save()

    def _gradients(self, step: int) -> tuple[float, float]:
        """Add up the gradients of the step's windows, and clip them. Returns the mean loss and the norm before clipping."""
        loss = torch.zeros((), device=self.processes.device)
        for number in range(self.micro_batches):
            with self._together(number == self.micro_batches - 1):
                windows = self._windows(step, number)
                part = (self.objective if self.shared is None else self.shared)(windows) / self.micro_batches
                part.backward()
            loss += part.detach()
        bound = self.config.optimiser.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), bound)
        return float(self.processes.mean(loss)), float(norm)

    def _together(self, last: bool) -> contextlib.AbstractContextManager[object]:
        """Processes exchange their gradients once a step, with the last micro-batch."""
        return contextlib.nullcontext() if self.shared is None or last else self.shared.no_sync()

    def _windows(self, step: int, number: int) -> Tensor:
        """This process's part of a step's windows: the step as a whole reads the same ones however it is divided."""
        training = self.config.training
        first = (step - 1) * training.batch + (number * self.processes.count + self.processes.rank) * training.micro_batch
        rows = self.windows.rows(first, training.micro_batch)
        if self.processes.device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self.processes.device, non_blocking=True)

    def _evaluate(self) -> None:
        # Every process could take a part; but an evaluation on the way is short, and so the others only wait.
        if self.processes.first:
            losses = held_out_losses(self.objective, self.windows, self.config, self.config.output.evaluate_windows)
            self._log({"step": self.progress.step, "tokens": self.progress.tokens, "held_out_loss": float(losses.mean())})
        self.processes.wait()

    def _save(self) -> None:
        if self.processes.first:
            output = self.config.output
            checkpoints.save(self.folder, self.network, self.optimiser, self.progress, self.config, output.keep)
        self.processes.wait()

    def _log_steps(self, rate: float, speed: float) -> None:
        """The means since the last line; speed is the last step's, evaluations and checkpoints apart."""
        progress = self.progress
        on_gpu = self.processes.device.type == "cuda"
        self._log(
            {
                "step": progress.step,
                "tokens": progress.tokens,
                "loss": progress.pending_loss / progress.pending_steps,
                "rate": rate,
                "gradient_norm": progress.pending_norm / progress.pending_steps,
                "tokens_per_second": round(speed, 1),
                "seconds": round(progress.seconds, 3),
                "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else _peak_resident(),
            }
        )
        self.progress = replace(progress, pending_loss=0.0, pending_norm=0.0, pending_steps=0)

    def _log(self, line: dict[str, float]) -> None:
        if self.processes.first:
            text = json.dumps(line)
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(text + "\n")
            print(text, flush=True)

    def _cut_log(self) -> None:
        """Take away what a run that was killed has logged after its last checkpoint: it is about to be logged again."""
        lines = [line for line in read_log(self.folder) if line["step"] <= self.progress.step]
        (self.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """SIGTERM ends the run after the step that it comes in."""

        def stop(number: int, frame: object) -> None:
            self._stopped = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def read_log(folder: Path) -> list[dict[str, float]]:
    """The whole lines of a run's log; a killed run may leave half of one at the end."""
    path = folder / "log.jsonl"
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _peak_resident() -> int:
    import resource
    import sys

    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

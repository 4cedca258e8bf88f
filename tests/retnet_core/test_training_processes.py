"""Runs in processes of their own: killed, asked to stop, or several at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retnet_core.training.checkpoints import checkpoints
from retnet_core.training.loop import read_log
from tests.retnet_core.training_runs import learned, losses, small_config

ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TRAIN = ("-m", "retnet_core.training", "train", "--device", "cpu")


def arguments(folder: Path, run: str, *changes: str) -> list[str]:
    """Of a training in `folder/run`."""
    small_config(folder)
    sets = [part for change in (f"output.folder={folder}/{run}", *changes) for part in ("--set", change)]
    return [*TRAIN, "--config", str(folder / "run.toml"), *sets]


def begun(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **ALONE}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(command: list[str]) -> str:
    """What it printed. It has to succeed."""
    process = begun(command)
    said, _ = process.communicate(timeout=150)
    assert process.returncode == 0, said
    return said


def in_two(*command: str) -> list[str]:
    """The command in two processes that torchrun starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}", *command]


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in read_log(folder)):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended, or came to nothing"
        time.sleep(0.01)


LONG = ("training.steps=400", "output.evaluate_every=50", "output.checkpoint_every=20")


def test_a_run_that_was_killed_goes_on_with_the_same_losses_to_the_last_bit(tmp_path: Path) -> None:
    ended(arguments(tmp_path, "whole", *LONG))
    killed = begun(arguments(tmp_path, "killed", *LONG))
    wait_for_step(tmp_path / "killed", 65, killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert losses(tmp_path / "killed")[-1][0] < 400
    said = ended([*arguments(tmp_path, "killed", *LONG), "--resume"])
    assert "finished at step 400 of 400" in said
    assert '"step": 1,' not in said
    assert learned(tmp_path / "killed") == learned(tmp_path / "whole")


def test_a_run_that_is_asked_to_stop_saves_first_and_goes_on(tmp_path: Path) -> None:
    command = arguments(tmp_path, "run", *LONG, "output.checkpoint_every=0")
    stopped = begun(command)
    wait_for_step(tmp_path / "run", 30, stopped)
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 0, said
    (saved,) = checkpoints(tmp_path / "run")
    step = losses(tmp_path / "run")[-1][0]
    assert saved.name == f"step-{step:08}"
    assert said.splitlines()[-1].startswith(f"stopped at step {step} of 400, saved in")
    ended([*command, "--resume"])
    assert [line for line, _ in losses(tmp_path / "run")] == list(range(1, 401))


@pytest.mark.parametrize("micro_batch", [2, 1])
def test_two_processes_train_as_one_does(tmp_path: Path, micro_batch: int) -> None:
    changes = ("training.steps=8", "optimiser.eps=1e-4", "output.checkpoint_every=0")
    ended(arguments(tmp_path, "one", *changes))
    said = ended(in_two(*arguments(tmp_path, "two", *changes, f"training.micro_batch={micro_batch}")))
    assert said.count('"step": 8, "tokens": 768, "loss"') == 1, "one process alone writes"
    for (step, one), (other_step, two) in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert step == other_step
        assert two == pytest.approx(one, rel=1e-5)
    assert len(checkpoints(tmp_path / "two")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for the names of a process's threads")
def test_no_thread_outlives_the_group(tmp_path: Path) -> None:
    """One that does may abort a process while it ends."""
    (tmp_path / "leaving.py").write_text(LEAVING)
    said = ended(in_two(str(tmp_path / "leaving.py")))
    assert said.count("joined: True, left: False") == 2, said


LEAVING = """
import gc
from pathlib import Path
from retnet_core.training.processes import Processes

def group_threads():
    return any("gloo" in name.read_text() for name in Path("/proc/self/task").glob("*/comm"))

processes = Processes.join("cpu")
import torch._dynamo  # as every optimiser of torch does
processes.wait()
joined = group_threads()
processes.leave()
gc.collect()
print(f"joined: {joined}, left: {group_threads()}", flush=True)
"""

"""Small runs on small files of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from retnet_core.training.configuration import TrainingConfig
from retnet_core.training.data import write_tokens
from retnet_core.training.loop import Trainer, read_log
from retnet_core.training.processes import Processes

CONFIG = """
[model]
layers = 2
width = 16
heads = 2
head_dim = 8
feed_forward = 24
vocabulary = 257
conv_width = 2

[data]
tokens = "{folder}/text.bin"
context = 24
held_out = 240

[optimiser]
rate = 1e-2
warm_up = 2

[training]
steps = 6
batch = 4
micro_batch = 4
precision = "float32"
chunk = 8

[output]
folder = "{folder}/run"
log_every = 1
evaluate_every = 3
checkpoint_every = 2
keep = 2
"""


def write_text(folder: Path, characters: int = 4000) -> Path:
    """A token file of words that a small model can learn something about."""
    drawn = np.random.default_rng(0)
    words = ("state", "decay", "chunk", "token", "layer", "query")
    text = " ".join(drawn.choice(words, characters // 6))
    (folder / "text.txt").write_text(text)
    write_tokens([folder / "text.txt"], folder / "text.bin", bytewise=True)
    return folder / "text.bin"


def small_config(folder: Path, *changes: str) -> TrainingConfig:
    """The run above in this folder, whose token file is made if need be."""
    if not (folder / "text.bin").exists():
        write_text(folder)
    path = folder / "run.toml"
    path.write_text(CONFIG.format(folder=folder))
    return TrainingConfig.read(path, changes)


def trained(folder: Path, *changes: str, resume: bool = False, seconds: float | None = None) -> Trainer:
    """The trainer after its run."""
    trainer = Trainer(small_config(folder, *changes), Processes.join("cpu"), resume=resume)
    trainer.run(seconds)
    return trainer


def losses(folder: Path) -> list[tuple[float, float]]:
    """(step, loss) of every line of training."""
    return [(line["step"], line["loss"]) for line in read_log(folder) if "loss" in line]


def learned(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on the machine."""
    timed = ("seconds", "tokens_per_second", "peak_bytes")
    return [
        {key: value for key, value in json.loads(text).items() if key not in timed}
        for text in (folder / "log.jsonl").read_text().splitlines()
    ]

"""The paper's comparison in the small (arXiv 2307.08621, section 3.2): a Transformer and RetNets of equal size, the same tokens in the same order.

All begin with the sizes that `[model]` gives; what a kind lacks in parameters against the largest is added to its feed-forward. Each is trained
in a folder of its own, `OUT/<name>`, so that several processes may train several at the same time; `report` puts the folders together.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retnet_core.config import RetNetConfig
from retnet_core.training.checkpoints import ResumeError, checkpoints, load_weights
from retnet_core.training.configuration import ConfigurationError, ModelConfig, TrainingConfig
from retnet_core.training.data import TokenFile, Windows
from retnet_core.training.evaluation import by_position, by_repetition, held_out_losses, uncompiled
from retnet_core.training.loop import Ending, Trainer, read_log
from retnet_core.training.objective import Objective, allow_tensor_cores, build, parameters
from retnet_core.training.processes import Processes
from retnet_core.training.recall import key_values, repeated_passages
from retnet_core.training.transformer import TransformerConfig

NAMES = ("transformer", "fixed", "gated", "gated-conv")
"""Attention; the paper's fixed decays; decays from the input; these and short convolutions, the kind that is shipped."""
EVALUATION = "evaluation.json"
_MULTIPLE = 8
"""Feed-forward widths are multiples of it, since tensor cores want that in bf16, unless a network is so small that it would miss the size."""
_PASSAGES = 128
"""Held-out windows whose beginnings are read again."""
_PROBED = 4096
"""Ids that key–value lists are drawn from: the most frequent of the file, so that every model knows them."""


def model_of(name: str, sizes: RetNetConfig) -> ModelConfig:
    """The model of that name with as many parameters as the largest, to within half a per cent. Raises `ConfigurationError`."""
    if name not in NAMES:
        raise ConfigurationError(f"{name!r} is none of {', '.join(NAMES)}")
    kinds = {one: _kind(one, sizes) for one in NAMES}
    largest = max(_size(kind) for kind in kinds.values())
    widened = kinds[name]
    channel = 3 * sizes.width * sizes.layers
    multiple = _MULTIPLE if _MULTIPLE * channel < 0.005 * largest else 1
    wanted = sizes.feed_forward + (largest - _size(widened)) / channel
    return replace(widened, feed_forward=round(wanted / multiple) * multiple)


def _kind(name: str, sizes: RetNetConfig) -> ModelConfig:
    if name == "transformer":
        return TransformerConfig(
            layers=sizes.layers, width=sizes.width, heads=sizes.heads, head_dim=sizes.head_dim, feed_forward=sizes.feed_forward,
            vocabulary=sizes.vocabulary, rotary_base=sizes.rotary_base, norm_eps=sizes.norm_eps, tied=sizes.tied,
        )  # fmt: skip
    return replace(
        sizes, decay="paper" if name == "fixed" else "gated", conv_width=sizes.conv_width or 4 if name == "gated-conv" else 0
    )


def _size(model: ModelConfig) -> int:
    with torch.device("meta"):
        return parameters(build(model, 0))


def config_of(name: str, config: TrainingConfig, out: Path) -> TrainingConfig:
    """The run of one model of the comparison. Raises `ConfigurationError` where `[model]` is no RetNet."""
    if not isinstance(config.model, RetNetConfig):
        raise ConfigurationError(
            "model.kind is 'transformer'; a comparison begins with the sizes of a RetNet and adds the Transformer itself"
        )
    return replace(config, model=model_of(name, config.model), output=replace(config.output, folder=out / name))


def train(name: str, config: TrainingConfig, out: Path, processes: Processes, seconds: float | None = None) -> Ending:
    """Train one model, going on from its last checkpoint if there is one, and evaluate it when it is finished."""
    run = config_of(name, config, out)
    trainer = Trainer(run, processes, resume=bool(checkpoints(run.output.folder)))
    ending = trainer.run(seconds)
    if ending == "finished" and processes.first:
        _write(run.output.folder / EVALUATION, evaluate(trainer.objective, run))
    return ending


def speeds(names: Sequence[str], config: TrainingConfig, processes: Processes, steps: int = 8) -> dict[str, float]:
    """Seconds of a step of each model, the mean of the last half of `steps`; nothing is kept."""
    taken = {}
    for name in names:
        run = config_of(name, config, Path())
        windows = Windows(TokenFile(run.data.tokens), context=run.data.context, held_out=run.data.held_out, seed=run.data.seed)
        objective = Objective(build(run.model, 0).to(processes.device), run.training)
        rows = windows.rows(0, run.training.micro_batch).to(processes.device)
        allow_tensor_cores(run.training, processes.device)
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            for _ in range(run.training.batch // run.training.micro_batch // processes.count):
                objective(rows).backward()
            if processes.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        taken[name] = float(np.mean(times[steps // 2 :]))
        del objective
        gc.collect()
    return taken


def fitted(names: Sequence[str], config: TrainingConfig, processes: Processes, seconds: float) -> TrainingConfig:
    """The configuration with as many steps as these models can be trained for in that time one after the other, 8 per cent of it kept for
    optimiser, evaluations and checkpoints. Raises `ConfigurationError` when that is not a step."""
    steps = torch.tensor(0.92 * seconds / sum(speeds(names, config, processes).values()), device=processes.device)
    # The first process's measurement would do; the mean is the same for all, which is what matters.
    count = int(processes.mean(steps))
    if count < 1:
        raise ConfigurationError(f"{seconds:g} s are too short for one step of each of {', '.join(names)}")
    return replace(config, training=replace(config.training, steps=count))


def evaluate_saved(name: str, config: TrainingConfig, out: Path, device: torch.device) -> dict[str, Any]:
    """Evaluate the last checkpoint of a model again, and write what came out. Raises `ResumeError` without one."""
    run = config_of(name, config, out)
    found = checkpoints(run.output.folder)
    if not found:
        raise ResumeError(f"{run.output.folder} has no checkpoint")
    network = build(run.model, 0)
    load_weights(found[-1], network)
    result = evaluate(Objective(network.to(device), run.training), run)
    _write(run.output.folder / EVALUATION, result)
    return result


def evaluate(objective: Objective, config: TrainingConfig) -> dict[str, Any]:
    """All held-out text, and what is recalled of it."""
    file = TokenFile(config.data.tokens)
    windows = Windows(file, context=config.data.context, held_out=config.data.held_out, seed=config.data.seed)
    losses, held_out = held_out_losses(objective, windows, config), windows.held_out()
    batch = config.training.micro_batch
    # The first million ids are enough to tell which are frequent.
    counted = np.bincount(np.asarray(file.ids[:1_000_000]), minlength=config.model.vocabulary)
    frequent = [int(number) for number in np.argsort(-counted, kind="stable")[:_PROBED] if counted[number]]
    with uncompiled():
        passages = repeated_passages(objective, windows.held_out(_PASSAGES), batch=batch)
        pairs = key_values(objective, frequent, batch=batch)
    return {
        "parameters": parameters(objective.network),
        "held_out_tokens": losses.numel(),
        "held_out_loss": float(losses.double().mean()),
        "standard_error": float(losses.double().mean(1).std() / len(losses) ** 0.5),
        "by_position": [asdict(one) for one in by_position(losses)],
        "by_repetition": [asdict(one) for one in by_repetition(held_out, losses)],
        "repeated_passages": [asdict(one) for one in passages],
        "key_values": [asdict(one) for one in pairs],
    }


def collect(out: Path) -> dict[str, Any]:
    """What the runs in `out` have logged and found, by name. Raises `ResumeError` when there is none."""
    models = {}
    for name in NAMES:
        folder = out / name
        if not (folder / "configuration.toml").is_file():
            continue
        config = TrainingConfig.read(folder / "configuration.toml")
        log = read_log(folder)
        trained = [line for line in log if "loss" in line]
        evaluation = folder / EVALUATION
        speeds = sorted(line["tokens_per_second"] for line in trained)
        models[name] = {
            "model": {key.partition(".")[2]: value for key, value in config.values().items() if key.startswith("model.")},
            "parameters": _size(config.model),
            "trained_tokens": trained[-1]["tokens"] if trained else 0,
            "seconds": trained[-1]["seconds"] if trained else 0,
            "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
            "peak_bytes": max((line["peak_bytes"] for line in trained), default=None),
            "loss": [[line["tokens"], line["loss"]] for line in trained],
            "held_out": [[line["tokens"], line["held_out_loss"]] for line in log if "held_out_loss" in line],
            "evaluation": json.loads(evaluation.read_text()) if evaluation.is_file() else None,
        }
    if not models:
        raise ResumeError(f"{out} has no run of {', '.join(NAMES)}")
    config = TrainingConfig.read(out / next(iter(models)) / "configuration.toml")
    shared = {key: str(value) if isinstance(value, Path) else value for key, value in config.values().items()}
    kept = ("data.", "optimiser.", "training.")
    return {"configuration": {key: value for key, value in shared.items() if key.startswith(kept)}, "models": models}


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")

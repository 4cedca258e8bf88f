"""Checkpoints from which a run goes on exactly: weights, optimiser and random state in safetensors, the rest in JSON and TOML. No pickle.

    FOLDER/step-00000500/model.safetensors       the network's `state_dict`, fp32
                         config.json             of a RetNet: with it `retnet_core.network_files.load_network` reads the folder
                         optimiser.safetensors   AdamW's two means and its count for each weight, and torch's random state
                         progress.json           step, tokens, what the log has not yet said, and which tokens were read
                         configuration.toml      the whole configuration

A checkpoint is written under another name and renamed when all of it is on the disk, so that one with its name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from retnet_core.checkpoint import CheckpointError
from retnet_core.network import RetNet
from retnet_core.network_files import WEIGHTS, read_tensors, save_network, write_tensors
from retnet_core.training.configuration import MAY_CHANGE, ConfigurationError, TrainingConfig
from retnet_core.training.transformer import Network

_PREFIX = "step-"
_OPTIMISER = "optimiser.safetensors"
_RANDOM = "random"


class ResumeError(ValueError):
    """There is nothing to go on from, or what is there is damaged or of another run."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `pending_*`: the losses of the steps since the last line of the log. `data`: the token file's SHA-256."""

    step: int
    tokens: int
    pending_loss: float
    pending_norm: float
    pending_steps: int
    seconds: float
    data: str


def save(
    folder: Path, network: Network, optimiser: torch.optim.AdamW, progress: Progress, config: TrainingConfig, keep: int
) -> Path:
    """Write the checkpoint of this step into `folder` and remove all but the last `keep`. Returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{progress.step:08}"
    partial = folder / f".{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if isinstance(network, RetNet):
        save_network(network, partial)
    else:
        write_tensors(partial / WEIGHTS, {name: [tensor] for name, tensor in network.state_dict().items()}, {"format": "pt"})
    write_tensors(partial / _OPTIMISER, {name: [tensor] for name, tensor in _optimiser_tensors(network, optimiser).items()}, {})
    (partial / "progress.json").write_text(json.dumps(asdict(progress), indent=2) + "\n")
    (partial / "configuration.toml").write_text(config.to_toml())
    for path in (*partial.iterdir(), partial):
        _to_disk(path)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _to_disk(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir()) if folder.is_dir() else []


def read_progress(checkpoint: Path, config: TrainingConfig, data: str) -> Progress:
    """How far the checkpoint is. Raises `ResumeError`, naming the field, when it was made with a configuration or with tokens that would make
    another run of it."""
    try:
        progress = Progress(**json.loads((checkpoint / "progress.json").read_text()))
        before = TrainingConfig.read(checkpoint / "configuration.toml").values()
    except (OSError, TypeError, json.JSONDecodeError, ConfigurationError) as error:
        raise ResumeError(f"{checkpoint} is damaged: {error}; remove it to go on from the one before it") from None
    now = config.values()
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and name not in MAY_CHANGE and not name.startswith("output."):
            raise ResumeError(
                f"{name} was {before.get(name)!r} and is now {now.get(name)!r}; a run goes on as it began: set it back, or begin in another folder"
            )
    if progress.data != data:
        raise ResumeError(f"{config.data.tokens} does not hold the tokens that the run began with; begin in another folder")
    return progress


def load(checkpoint: Path, network: nn.Module, optimiser: torch.optim.AdamW) -> None:
    """Put the checkpoint's weights, optimiser and random state in the place of those here. Raises `ResumeError` for a damaged file."""
    load_weights(checkpoint, network)
    tensors = _read(checkpoint / _OPTIMISER)
    torch.set_rng_state(tensors.pop(_RANDOM))
    named = dict(network.named_parameters())
    state: dict[Tensor, dict[str, Tensor]] = {weight: {} for weight in named.values()}
    for name, tensor in tensors.items():
        kind, _, weight = name.partition("/")
        if weight not in named:
            raise ResumeError(f"{checkpoint / _OPTIMISER} has {name}, which is none of the network's weights")
        # A count that is not fused stays on the CPU, as AdamW itself keeps it.
        on_host = kind == "step" and not optimiser.param_groups[0]["fused"]
        state[named[weight]][kind] = tensor if on_host else tensor.to(named[weight].device)
    missing = [name for name, weight in named.items() if len(state[weight]) != 3]
    if missing:
        raise ResumeError(f"{checkpoint / _OPTIMISER} lacks {', '.join(missing)}")
    optimiser.state.clear()
    optimiser.state.update(state)


def load_weights(checkpoint: Path, network: nn.Module) -> None:
    """Copy a checkpoint's weights into the network. Raises `ResumeError` when they are damaged or of another network."""
    try:
        network.load_state_dict(_read(checkpoint / WEIGHTS))
    except RuntimeError as error:
        raise ResumeError(f"{checkpoint / WEIGHTS} does not fit the network: {' '.join(str(error).split())}") from None


def _optimiser_tensors(network: nn.Module, optimiser: torch.optim.AdamW) -> Mapping[str, Tensor]:
    tensors = {_RANDOM: torch.get_rng_state()}
    for name, weight in network.named_parameters():
        tensors |= {f"{kind}/{name}": value for kind, value in optimiser.state[weight].items()}
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)[0]
    except CheckpointError as error:
        raise ResumeError(f"{error}; remove its folder to go on from the checkpoint before it") from error


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The files that torchscale's and flash-linear-attention's users have, and ours, as one kind of value: a configuration and tensors in parts.

Read are folders and single files: safetensors (one, or shards with their index) and torch's own `.pt`, `.pth` and `.bin`, out of which only tensors
and plain values are taken (`weights_only`): nothing in a file is ever run. Tensors are mapped, not read, so a network larger than memory converts.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.foreign import ForeignError, Parts, fla, joined, listed, torchscale
from retnet_core.network_files import (
    CONFIG,
    FORMAT,
    WEIGHTS,
    Origin,
    read_config,
    read_json,
    read_tensors,
    read_weights,
    write_json,
    write_network,
    write_tensors,
)

RETORT, TORCHSCALE, FLA = "retort", "torchscale", "fla"
KINDS = (RETORT, TORCHSCALE, FLA)
PICKLES = (".pt", ".pth", ".bin")
PICKLE = "model.pt"
INDEX = "model.safetensors.index.json"
_EMBEDDING = {FLA: "model.embeddings.weight", TORCHSCALE: "embed_tokens.weight"}
"""The tensor whose name tells the package; what stands before it is the prefix of all."""
_SETTINGS_READ = {FLA: fla.SETTINGS, TORCHSCALE: torchscale.SETTINGS}
_NAMES_OF_CLASS: dict[str, dict[str, Any]] = {FLA: {"architectures": ["RetNetForCausalLM"]}, TORCHSCALE: {}}
"""What transformers' `AutoModelForCausalLM` wants to know."""
_NESTED = ("model", "state_dict", "module")
"""Where a training run's checkpoint keeps its weights."""
_SETTINGS = ("args", "cfg", "config")
"""Where it keeps its settings."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A RetNet that was read from files: what we call it, its tensors in the parts that they came in, and where it is from (None: ours)."""

    kind: str
    config: RetNetConfig
    parts: Parts
    origin: Origin | None = None
    assumed: Mapping[str, object] = field(default_factory=dict)
    """Settings that the files do not tell, so that the package's defaults were taken."""


def read_checkpoint(
    path: Path, kind: str | None = None, *, config: Path | None = None, settings: Mapping[str, Any] | None = None
) -> Checkpoint:
    """The checkpoint of a folder or a file of weights, whose `config.json` lies beside it unless `config` names another.

    `kind`: one of `KINDS`, None: told from the files. `settings`: of the package's configuration, over what the files say.
    Raises `CheckpointError` for what is missing, damaged, not supported or does not fit.
    """
    weights = _weights(path)
    described = weights.parent / CONFIG if config is None else config
    fields = read_json(described) if config is not None or described.is_file() else {}
    if fields.get("format") == FORMAT and kind in (None, RETORT):
        return _read_ours(weights, described, settings)
    if kind == RETORT:
        raise ForeignError(f"{described} is no configuration of {FORMAT}; name the package that made {path} with --from")
    tensors, stored = _tensors(weights)
    found, prefix = _package(tensors)
    if found is None or kind not in (None, found):
        wanted = " or ".join(f"{name}'s {_EMBEDDING[name]}" for name in (_EMBEDDING if kind is None else (kind,)))
        looks = f"; they look like {found}'s" if found else ""
        raise ForeignError(f"{weights} lacks {wanted}. Its tensors are {listed(tensors)}{looks}")
    unknown = (settings or {}).keys() - _SETTINGS_READ[found]
    if unknown:
        raise ForeignError(
            f"no setting of {found} that matters is called {listed(unknown)}; those are {', '.join(_SETTINGS_READ[found])}"
        )
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return _read_foreign(found, prefix, tensors, {**stored, **fields}, settings or {})


def _read_foreign(
    kind: str, prefix: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any], settings: Mapping[str, Any]
) -> Checkpoint:
    fields = {**told, **settings}
    if kind == FLA:
        if not told:
            raise ForeignError(f"a network of {FLA} needs its {CONFIG}, beside its weights or named with --config")
        config, parts = fla.read_parts(fields, tensors)
        return Checkpoint(kind, config, parts, Origin(kind, _plain(fields), prefix))
    # torchscale's −1 is its "not known".
    known = {name: value for name, value in fields.items() if (name, value) != ("vocab_size", -1)}
    assumed = {} if told else {name: value for name, value in torchscale.ASSUMED.items() if name not in known}
    fields = {**torchscale.sizes_of(tensors), **assumed, **known}
    config, parts = torchscale.read_parts(fields, tensors)
    return Checkpoint(kind, config, parts, Origin(kind, _plain(fields), prefix), assumed)


def write_checkpoint(
    checkpoint: Checkpoint, folder: Path, kind: str, *, pickle: bool = False, wrote: Callable[[int], object] | None = None
) -> None:
    """Write a checkpoint as one of `KINDS`: `config.json` and `model.safetensors`, or for torchscale `model.pt` when `pickle` is set.

    A network that came from the package that it goes to gets back the settings and the prefix that it came with.
    Raises `ForeignError` for what the package cannot express.
    """
    if kind == RETORT:
        return write_network(folder, checkpoint.config, checkpoint.parts, checkpoint.origin, wrote)
    origin = checkpoint.origin if checkpoint.origin is not None and checkpoint.origin.kind == kind else Origin(kind, {})
    whole = joined(checkpoint.parts)
    if kind == FLA:
        names = {"fuse_norm": bool(origin.fields.get("fuse_norm", True)), "num_kv_heads": origin.fields.get("num_kv_heads")}
        fields, tensors = fla.write(checkpoint.config, whole, **names)
        if checkpoint.config.tied:
            # As transformers stores it.
            del tensors["lm_head.weight"]
    else:
        fields, tensors = torchscale.write(checkpoint.config, whole)
    named = {origin.prefix + name: tensor for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if pickle:
        _write_pickle(folder / PICKLE, named)
    else:
        write_tensors(folder / WEIGHTS, {name: [tensor] for name, tensor in named.items()}, {"format": "pt"}, wrote)
    write_json(folder / CONFIG, {**_NAMES_OF_CLASS[kind], **origin.fields, **fields})


def _write_pickle(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # Copies: torch stores the whole of what a tensor is a view of.
    part = path.with_name(path.name + ".part")
    try:
        torch.save({name: tensor.clone() for name, tensor in tensors.items()}, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read_ours(weights: Path, described: Path, settings: Mapping[str, Any] | None) -> Checkpoint:
    if settings:
        raise ForeignError(f"{listed(settings)} cannot be set: {described} tells all settings of a network in our own format")
    config, origin = read_config(described)
    tensors = read_weights(weights, config)
    return Checkpoint(RETORT, config, {name: [tensor] for name, tensor in tensors.items()}, origin)


def _weights(path: Path) -> Path:
    """The file of weights that a path means."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ForeignError(f"there is no {path}")
    for name in (WEIGHTS, INDEX):
        if (path / name).is_file():
            return path / name
    found = sorted(file for suffix in PICKLES for file in path.glob(f"*{suffix}")) + sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ForeignError(f"{path} has several files of weights, {listed(file.name for file in found)}: name the one to convert")
    raise ForeignError(f"{path} has no weights: neither {WEIGHTS}, {INDEX} nor a file that ends in {', '.join(PICKLES)}")


def _tensors(weights: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file's tensors, and the settings that are stored with them."""
    if weights.name == INDEX:
        return _shards(weights), {}
    if weights.suffix in PICKLES:
        return _pickle(weights)
    return read_tensors(weights)[0], {}


def _shards(index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
        raise ForeignError(f"{index} has no weight_map of tensors to files beside it")
    shards = {name: read_tensors(index.parent / name)[0] for name in sorted(set(places.values()))}
    for name, shard in places.items():
        if name not in shards[shard]:
            raise ForeignError(f"{index.parent / shard} lacks the tensor {name}, which {index.name} promises there")
    return {name: shards[shard][name] for name, shard in places.items()}


def _pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What torch.save wrote: weights alone, or a training run's checkpoint around them."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # Whatever a damaged or foreign pickle makes the reader raise.
        reason = str(error).strip().partition("\n")[0]
        if "Weights only load failed" in str(error):
            reason = "it holds objects, not only tensors and plain values, and loading those could run code"
        raise ForeignError(
            f"{path} was not loaded: {reason}. Store its tensors alone: torch.save(model.state_dict(), …)"
        ) from error
    if not isinstance(held, Mapping):
        raise ForeignError(f"{path} holds {type(held).__name__} instead of tensors by name")
    inner = next((held[name] for name in _NESTED if isinstance(held.get(name), Mapping)), held)
    if not inner or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in inner.items()):
        raise ForeignError(
            f"{path} holds no tensors by name, neither at its top nor under {', '.join(_NESTED)}; it has {listed(map(str, held))}"
        )
    stored = next((_settings(held[name]) for name in _SETTINGS if held is not inner and held.get(name) is not None), {})
    return {name: tensor.detach() for name, tensor in inner.items()}, stored


def _settings(stored: object) -> dict[str, Any]:
    """Settings of a training run: a mapping or a namespace, fairseq's with those of the model one level down."""
    values = vars(stored) if isinstance(stored, argparse.Namespace) else stored
    if not isinstance(values, Mapping):
        return {}
    below = values.get("model")
    return (
        _settings(below)
        if isinstance(below, Mapping | argparse.Namespace)
        else {str(name): value for name, value in values.items()}
    )


def _package(tensors: Mapping[str, Tensor]) -> tuple[str | None, str]:
    """Whose tensors these are, and what stands before each of their names, as `decoder.` or `module.`."""
    for kind, embedding in _EMBEDDING.items():
        for name in tensors:
            if name == embedding or name.endswith(f".{embedding}"):
                return kind, name.removesuffix(embedding)
    return None, ""


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that JSON can hold; what else a namespace carries says nothing about the network."""
    kept = {}
    for name, value in fields.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            continue
        kept[name] = value
    return kept

"""A trained RetNet in a folder: `config.json` (sizes and options) and `model.safetensors` (the `state_dict` of `RetNet`).

    save_network(network, "folder")
    network = load_network("folder")

The weights' file carries the configuration as well, so one that was replaced without the other is noticed. Tensors go to disk one by one,
straight from where they are: saving takes no second copy of the network in memory, and loading maps the file. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retnet_core.checkpoint import CheckpointError
from retnet_core.config import RetNetConfig
from retnet_core.network import RetNet

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = "retnet_core"
VERSION = 1
_HEADER_ALIGNMENT = 8
"""Bytes; what the safetensors format asks of the length of its header."""
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a converted network comes from, kept so that it can go back as it came.

    `kind`: `torchscale` or `fla`; `fields`: its own configuration, whole; `prefix`: what stood before each of its tensors' names.
    """

    kind: str
    fields: dict[str, Any]
    prefix: str = ""


def save_network(network: RetNet, folder: str | Path) -> None:
    """Write the network's weights, in the type that they have, and its configuration to a folder, which is made if need be.

    Each file appears whole or not at all; what was there is replaced.
    """
    write_network(Path(folder), network.config, {name: [tensor] for name, tensor in network.state_dict().items()})


def load_network(folder: str | Path) -> RetNet:
    """The network that `save_network` wrote, on the CPU, its weights in the type that they were stored in.

    Raises `CheckpointError` for files that are missing, damaged or of another format, and for tensors that are missing, unexpected or of
    another shape, naming them.
    """
    folder = Path(folder)
    config, _ = read_config(folder / CONFIG)
    tensors = read_weights(folder / WEIGHTS, config)
    try:
        return RetNet.from_state(config, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {error}") from error


def read_weights(path: Path, config: RetNetConfig) -> dict[str, Tensor]:
    """The tensors beside this configuration, mapped and not yet read. Raises `CheckpointError` when they are another network's."""
    tensors, metadata = read_tensors(path)
    stored = metadata.get("config")
    if stored is not None and stored != config.to_json():
        raise CheckpointError(
            f"{path} and the {CONFIG} beside it belong to different networks; restore the one that was replaced"
        )
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} holds {tensor.dtype}; expected numbers with a fraction")
    return tensors


def write_network(
    folder: Path,
    config: RetNetConfig,
    parts: Mapping[str, Sequence[Tensor]],
    origin: Origin | None = None,
    wrote: Callable[[int], object] | None = None,
) -> None:
    """`save_network` for tensors that lie in parts: each is the concatenation of its parts along the first dimension. `wrote` is told how many
    bytes went out."""
    folder.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {"format": FORMAT, "version": VERSION, "network": _values(config)}
    if origin is not None:
        described["origin"] = {"kind": origin.kind, "fields": origin.fields, "prefix": origin.prefix}
    write_tensors(folder / WEIGHTS, parts, {"format": "pt", "config": config.to_json()}, wrote)
    write_json(folder / CONFIG, described)


def read_config(path: Path) -> tuple[RetNetConfig, Origin | None]:
    """The configuration in a file, and where its network came from if it was converted. Raises `CheckpointError` when there is none."""
    described = read_json(path)
    if described.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no configuration of {FORMAT}; `python -m retnet_core.checkpoint convert` reads those of other packages"
        )
    if described.get("version") != VERSION:
        raise CheckpointError(f"{path} has the version {described.get('version')!r}; this release reads {VERSION}")
    try:
        config = RetNetConfig.from_json(json.dumps(described.get("network")))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config, _origin(path, described.get("origin"))


def _origin(path: Path, told: Any) -> Origin | None:
    if told is None:
        return None
    kinds = {"kind": str, "fields": dict, "prefix": str}
    if not isinstance(told, dict) or not all(isinstance(told.get(name), kind) for name, kind in kinds.items()):
        raise CheckpointError(f"{path}: the origin is {told!r}; expected a kind, its fields and a prefix")
    return Origin(**{name: told[name] for name in kinds})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, mapped and not yet read, and its metadata. Raises `CheckpointError` when it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"there is no {path}")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  (no mapping, and not iterable)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated, damaged or no safetensors file ({error})") from error


def write_tensors(
    path: Path,
    parts: Mapping[str, Sequence[Tensor]],
    metadata: Mapping[str, str],
    wrote: Callable[[int], object] | None = None,
) -> None:
    """A safetensors file, whole or not at all. Rows of different parts follow each other in it, so that stacking them takes no memory."""
    names = sorted(parts, key=lambda name: (-parts[name][0].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        rows = parts[name]
        start, end = end, end + sum(part.numel() * part.element_size() for part in rows)
        shape = [sum(part.shape[0] for part in rows), *rows[0].shape[1:]] if rows[0].ndim else []
        header[name] = {"dtype": _type_name(name, rows), "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            for part in parts[name]:
                data = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
                file.write(data)
                if wrote is not None:
                    wrote(data.nbytes)

    replace(path, write)


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises `CheckpointError` when there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {path}") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds {type(values).__name__} instead of an object of names and values")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    replace(path, lambda file: file.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()))


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name, and give it its own once all of it is on the disk."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _values(config: RetNetConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _type_name(name: str, rows: Iterable[Tensor]) -> str:
    types = {part.dtype for part in rows}
    if len(types) > 1:
        raise CheckpointError(f"the parts of {name} are of different types: {', '.join(sorted(map(str, types)))}")
    (dtype,) = types
    if dtype not in _TYPES:
        raise CheckpointError(f"{name} is of the type {dtype}; expected one of {', '.join(map(str, _TYPES))}")
    return _TYPES[dtype]

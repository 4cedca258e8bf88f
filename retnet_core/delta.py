"""The trained tensors of a checkpoint: safetensors only, and each name, shape, type and value that does not fit is named.

Stored names, layer `i` first: see `retnet_core/weights/README.md`. int8 matrices come with an fp16 scale per row under `name.s`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from retnet_core.config import RetNetConfig

SUMS = "SHA256SUMS"
"""Beside the weights, in the format of `sha256sum`: what the files must be, the base model's included. A folder may go without."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
STORED = {
    "retention_norm": "n1",
    "projection": "wi",
    "convolution": "cw",
    "gate_weight": "wa",
    "gate_bias": "ba",
    "rate": "ll",
    "group_norm": "gn",
    "output": "wo",
    "feed_forward_norm": "n2",
}
"""A layer's tensors: the names that `pack_layer` takes, and what they are called in the files."""
LOW_RANK = {"gate": "g", "up": "u", "down": "d"}
"""Corrections of the base's feed-forward, `W + B A`: `gA`, `gB` and so on, in pairs or not at all."""
FINAL_NORM = "n"
_FLOATS = ("F64", "F32", "F16", "BF16")
_NAMED = 5
"""Names that a message lists; a wrong file lacks hundreds."""


class CheckpointError(ValueError):
    """The weights are missing, damaged, incomplete, or do not fit the configuration or the base model."""


def layer_shapes(config: RetNetConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's tensors under the names that `pack_layer` takes."""
    return {
        "retention_norm": (config.width,),
        "projection": (4 * config.inner, config.width),
        "convolution": (config.convolved, config.conv_width),
        "gate_weight": (config.heads, config.width),
        "gate_bias": (config.heads,),
        "rate": (config.heads,),
        "group_norm": (config.inner,),
        "output": (config.width, config.inner),
        "feed_forward_norm": (config.width,),
        "gate": (config.feed_forward, config.width),
        "up": (config.feed_forward, config.width),
        "down": (config.width, config.feed_forward),
    }


def find_files(place: Path) -> list[Path]:
    """The safetensors of a folder, in order, or the one file itself. Raises `CheckpointError` where there are none, and for pickles."""
    if not place.exists():
        raise CheckpointError(f"there is no {place}: name a folder that holds *.safetensors")
    given = sorted(place.iterdir()) if place.is_dir() else [place]
    paths = [path for path in given if path.suffix == ".safetensors"]
    pickles = [path.name for path in given if path.suffix in PICKLES]
    if not paths and pickles:
        raise CheckpointError(
            f"{place} is a pickle or holds only pickles ({_listed(pickles)}): reading one runs whatever code it carries, so none is ever read; "
            "save the tensors as safetensors"
        )
    if not paths:
        raise CheckpointError(f"there are no *.safetensors in {place}")
    return paths


class Delta:
    """The trained tensors of a folder of safetensors, or of one such file.

    Raises `CheckpointError` for files that are missing, pickled, damaged or cut short.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.paths = find_files(place)
        self._files = [_open(path) for path in self.paths]
        self._where: dict[str, safe_open] = {}

    def __enter__(self) -> Delta:
        for path, opened in zip(self.paths, self._files, strict=True):
            file = opened.__enter__()
            for name in file.keys():  # noqa: SIM118  (no mapping, and not iterable)
                if name in self._where:
                    raise CheckpointError(f"{path} has the tensor {name}, which another file of {self.place} has as well")
                self._where[name] = file
        return self

    def __exit__(self, *error: object) -> None:
        self._where = {}
        for file in self._files:
            file.__exit__(*error)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def tensor(self, name: str) -> Tensor:
        """The tensor as fp32. Raises `CheckpointError` when it is missing, or holds NaN or infinity."""
        values = self._finite(name)
        scale = f"{name}.s"
        return values.mul_(self._finite(scale)[:, None]) if scale in self._where else values

    def check(self, config: RetNetConfig) -> None:
        """Raise `CheckpointError` unless all tensors of the configuration are here and no others, each in its shape and a type that can be
        read. Looks at the files' headers only."""
        shapes = layer_shapes(config)
        wanted = {f"{number}.{STORED[name]}": shapes[name] for number in range(config.layers) for name in STORED}
        wanted[FINAL_NORM] = (config.width,)
        for number in range(config.layers):
            for name, letter in LOW_RANK.items():
                first, second = f"{number}.{letter}A", f"{number}.{letter}B"
                if first in self or second in self:
                    rank = (self._shape(first)[:1] if first in self else self._shape(second)[-1:]) or (0,)
                    wanted[first], wanted[second] = (*rank, shapes[name][1]), (shapes[name][0], *rank)
        self._check_names(wanted)
        for name, shape in wanted.items():
            self._check_form(name, shape)

    def _check_names(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        scales = {f"{name}.s" for name, shape in wanted.items() if len(shape) == 2}
        missing, unknown = wanted.keys() - self._where.keys(), self._where.keys() - wanted.keys() - scales
        complaints = [f"lack {_listed(missing)}"] if missing else []
        complaints += [f"have {_listed(unknown)}, which no layer knows"] if unknown else []
        if complaints:
            raise CheckpointError(f"the weights in {self.place} {' and '.join(complaints)}: expected {len(wanted)} tensors")

    def _check_form(self, name: str, shape: tuple[int, ...]) -> None:
        given = self._shape(name)
        if given != shape:
            raise CheckpointError(f"{name} in {self.place} has the shape {given}; expected {shape}")
        kind, scale = self._kind(name), f"{name}.s"
        if kind not in (*_FLOATS, "I8"):
            raise CheckpointError(
                f"{name} in {self.place} is of the type {kind}; expected one of {', '.join(_FLOATS)} or I8 with scales"
            )
        if kind == "I8" and scale not in self:
            raise CheckpointError(f"{name} in {self.place} is I8; expected its scales as {scale}")
        if scale in self and (self._shape(scale) != shape[:1] or self._kind(scale) not in _FLOATS):
            raise CheckpointError(
                f"{scale} in {self.place} has the shape {self._shape(scale)} and the type {self._kind(scale)}; expected {shape[:1]} and a float"
            )

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name].get_slice(name).get_shape())

    def _kind(self, name: str) -> str:
        return str(self._where[name].get_slice(name).get_dtype())

    def _finite(self, name: str) -> Tensor:
        if name not in self._where:
            raise CheckpointError(f"the weights in {self.place} lack the tensor {name}")
        stored = self._where[name].get_tensor(name)
        values = stored.float()
        if stored.is_floating_point():
            check_finite(f"{name} in {self.place}", values)
        return values


def check_finite(name: str, values: Tensor) -> None:
    """Raise `CheckpointError` for NaN or infinity, saying where."""
    # One sum finds out whether to look closer: NaN and infinity survive it.
    if math.isfinite(float(values.sum())) or bool(values.isfinite().all()):
        return
    place = (~values.isfinite()).nonzero()[0].tolist()
    raise CheckpointError(f"{name} is {float(values[tuple(place)])} at {place}; expected a number")


def check_decays(name: str, rate: Tensor) -> None:
    """Raise `CheckpointError` unless each head's resting decay, `γ = exp(−exp(rate))`, lies in (0, 1), as fp32 has it."""
    decay = (-rate.float().exp()).exp()
    for head in (~((decay > 0) & (decay < 1))).nonzero().flatten().tolist():
        raise CheckpointError(
            f"{name} of head {head} is {float(rate[head]):g}, which makes a decay of {float(decay[head]):g}; expected one in (0, 1)"
        )


def hashes(paths: Iterable[Path]) -> dict[Path, bytes]:
    """SHA-256 of each file's bytes."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").digest()
    return found


def check_sums(place: Path, found: Mapping[Path, bytes]) -> None:
    """Raise `CheckpointError` for a file that is not the one that the folder's `SHA256SUMS` names; what it does not name is not checked."""
    sums = (place if place.is_dir() else place.parent) / SUMS
    if not sums.is_file():
        return
    expected = {}
    for line in filter(None, sums.read_text().splitlines()):
        digest, _, name = line.partition(" ")
        # A star before the name is the mark of `sha256sum --binary`.
        expected[name.lstrip(" *")] = digest
    for path, digest in found.items():
        if expected.get(path.name, digest.hex()) != digest.hex():
            raise CheckpointError(
                f"{path} is damaged or of another version: its SHA-256 is {digest.hex()[:12]}…, and {sums} expects {expected[path.name][:12]}…; "
                "install or copy it again"
            )


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged, cut short or no safetensors file ({error}): copy it again") from error


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {more} more" if more > 0 else "")

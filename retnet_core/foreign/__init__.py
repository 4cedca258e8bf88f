"""RetNets of other packages: their configurations and tensor names to ours and back, by renaming, stacking and reshaping only.

Each module has `read(fields, tensors) → (RetNetConfig, tensors of RetNet.state_dict)` and its inverse `write(config, tensors) → (fields, tensors)`;
no number changes either way. `RetNet.from_state(config, tensors)` makes the network. `read_parts` is `read` without stacking: each tensor as the
parts that follow each other in it, so that a file can be written from them without a copy (`retnet_core.convert`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from retnet_core.checkpoint import CheckpointError
from retnet_core.config import RetNetConfig

STACKED = ("q", "k", "v", "g")
"""The projections in the order in which `MultiScaleRetention.projection` stacks them."""

Parts = dict[str, list[Tensor]]
"""Tensors of `RetNet.state_dict`, each as the parts that it is stacked from along its first dimension."""


_NAMED = 8
"""How many names an error tells."""


class ForeignError(CheckpointError):
    """A checkpoint of another package uses what this RetNet lacks, or this RetNet what the other package lacks."""


class Tensors:
    """The tensors of a checkpoint, taken one by one, so that what is missing or left over can be named."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._left = dict(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """The tensor, once. Raises `ForeignError` when it is missing or of another shape."""
        if name not in self._left:
            raise ForeignError(f"the checkpoint lacks the tensor {name}")
        tensor = self._left.pop(name)
        if tuple(tensor.shape) != tuple(shape):
            raise ForeignError(f"{name} has the shape {tuple(tensor.shape)}; expected {tuple(shape)}")
        if not tensor.is_floating_point():
            raise ForeignError(
                f"{name} holds {tensor.dtype}; expected numbers with a fraction, so a network that is not quantised"
            )
        return tensor

    def take_equal(self, name: str, expected: Tensor, why: str) -> None:
        """Drop a tensor that only repeats what is known, if it is there. Raises `ForeignError` when it says something else."""
        if name in self and not torch.equal(self.take(name, expected.shape), expected):
            raise ForeignError(f"{name} differs from {why}")

    def take_computed(self, name: str, expected: Tensor, why: str) -> None:
        """As `take_equal`, for a buffer that another machine computed and stored in a type of its own: equal to the type's precision."""
        if name not in self:
            return
        stored = self.take(name, expected.shape)
        # Two ulps: processors differ in the last bit of a logarithm or a power.
        precision = 2 * torch.finfo(stored.dtype).eps
        if not torch.allclose(stored.double(), expected.double(), rtol=precision, atol=0.0):
            raise ForeignError(f"{name} differs from {why}")

    def finish(self) -> None:
        """Raise `ForeignError` if a tensor was not taken."""
        if self._left:
            raise ForeignError(f"the checkpoint has tensors that this RetNet does not know: {listed(self._left)}")


def listed(names: Iterable[str]) -> str:
    """Names for an error's one line: the first few in order, and how many more."""
    ordered = sorted(names)
    return ", ".join(ordered[:_NAMED]) + (f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else "")


def joined(parts: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """The tensors that these are the parts of; a tensor of one part is taken as it is."""
    return {name: rows[0] if len(rows) == 1 else torch.cat(list(rows)) for name, rows in parts.items()}


def demand(fields: Mapping[str, object], values: Mapping[str, object]) -> None:
    """Raise `ForeignError` unless each of these settings, where it is given, has this value."""
    for name, value in values.items():
        if fields.get(name, value) != value:
            raise ForeignError(f"{name} = {fields[name]!r} is not supported; only {value!r} is")


def configuration(**values: Any) -> RetNetConfig:
    """Our configuration of these values. Raises `ForeignError` where `RetNetConfig` refuses one."""
    try:
        return RetNetConfig(**values)
    except ValueError as error:
        raise ForeignError(str(error)) from error


def number_of(fields: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A setting that is a finite number. Raises `ForeignError` when it is not, or missing where there is no default."""
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ForeignError(f"the configuration's {name} is {value!r}; expected a number")
    return float(value)


def flag_of(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    """A setting that is true or false. Raises `ForeignError` for anything else."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise ForeignError(f"the configuration's {name} is {value!r}; expected true or false")
    return value


def size_of(fields: Mapping[str, Any], name: str) -> int:
    """A setting that is a whole number of at least 1. Raises `ForeignError` for anything else."""
    value = number_of(fields, name)
    if value < 1 or value != int(value):
        raise ForeignError(f"the configuration's {name} is {fields[name]!r}; expected a whole number of at least 1")
    return int(value)


def projection_sizes(config: RetNetConfig) -> dict[str, int]:
    """Rows of each projection, in the order in which they are stacked."""
    return dict(zip(STACKED, (config.inner, config.inner, config.value_inner, config.value_inner), strict=True))


def layer_shapes(config: RetNetConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's tensors that every RetNet has as they are, by our names."""
    return {
        "retention_norm.weight": (config.width,),
        "retention.output.weight": (config.width, config.value_inner),
        "feed_forward_norm.weight": (config.width,),
        "feed_forward.gate.weight": (config.feed_forward, config.width),
        "feed_forward.up.weight": (config.feed_forward, config.width),
        "feed_forward.down.weight": (config.width, config.feed_forward),
    }

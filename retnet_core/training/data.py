"""From text to a file of token ids, and from that file to windows in an order that depends on the seed and the step alone.

A token file is `NAME.bin`, ids as little-endian uint16 one after the other, every document followed by an end token, with `NAME.json` beside
it. The documents were shuffled when it was written, so its last tokens are a fair sample of all of them: they are held out.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from retnet_core.gguf import Gguf, find_base_model
from retnet_core.tokenizer import Tokenizer

_TYPE = np.dtype("<u2")
_TEXT_SUFFIXES = (".txt", ".md", ".rst")
BYTES = "bytes"
"""The name of the vocabulary of the 256 bytes and one end token: for tiny runs."""


class DataError(ValueError):
    """A token file, or a text to make one of, is missing, damaged or too small."""


class Vocabulary(Protocol):
    """Text to ids."""

    name: str
    size: int
    end: int

    def encode(self, text: str) -> list[int]: ...


class ByteVocabulary:
    """A token a byte, and 256 at the end of a document."""

    name = BYTES
    size = 257
    end = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


class ModelVocabulary:
    """The shipped model's tokenizer. Control tokens that a text spells out are broken up: only the end of a document is one."""

    def __init__(self) -> None:
        file = Gguf(find_base_model())
        try:
            self._tokenizer = Tokenizer.from_gguf(file)
        finally:
            file.close()
        self.name = self._tokenizer.fingerprint
        self.size = len(self._tokenizer)
        self.end = self._tokenizer.token_id("<|endoftext|>")

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(self._tokenizer.escape(text))


@dataclass(frozen=True, slots=True)
class Description:
    """What stands beside a token file. `sha256` is that of the file; `vocabulary` the tokenizer's fingerprint or `bytes`, `size` how many ids
    it has."""

    tokens: int
    documents: int
    vocabulary: str
    size: int
    sha256: str


def write_tokens(texts: Sequence[Path], out: Path, *, bytewise: bool = False, seed: int = 0, processes: int = 1) -> Description:
    """Write `out` (`NAME.bin`) and `NAME.json` from UTF-8 texts: files, or folders whose .txt, .md and .rst files are taken. A file is a document.

    Raises `DataError` for a path that is missing or no UTF-8, or when there is nothing to write.
    """
    paths = _documents(texts)
    random.Random(seed).shuffle(paths)
    vocabulary = _vocabulary(bytewise)
    digest, tokens = hashlib.sha256(), 0
    partial = out.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            for ids in _encoded(paths, bytewise, processes):
                written = np.asarray([*ids, vocabulary.end], dtype=_TYPE).tobytes()
                file.write(written)
                digest.update(written)
                tokens += len(ids) + 1
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    description = Description(tokens, len(paths), vocabulary.name, vocabulary.size, digest.hexdigest())
    partial.replace(out)
    out.with_suffix(".json").write_text(json.dumps(asdict(description), indent=2) + "\n")
    return description


def _documents(texts: Sequence[Path]) -> list[Path]:
    paths: list[Path] = []
    for text in texts:
        if text.is_dir():
            paths += sorted(path for path in text.rglob("*") if path.suffix in _TEXT_SUFFIXES and path.is_file())
        elif text.is_file():
            paths.append(text)
        else:
            raise DataError(f"{text} is no file and no folder")
    if not paths:
        raise DataError(f"no {', '.join(_TEXT_SUFFIXES)} in {', '.join(map(str, texts))}")
    return paths


_here: Vocabulary | None = None
"""The vocabulary of this process."""


def _vocabulary(bytewise: bool) -> Vocabulary:
    return ByteVocabulary() if bytewise else ModelVocabulary()


def _start(bytewise: bool) -> None:
    global _here
    _here = _vocabulary(bytewise)


def _encode(path: Path) -> np.ndarray:
    assert _here is not None
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 at byte {error.start}; convert it, or leave it out") from None
    return np.asarray(_here.encode(text), dtype=_TYPE)


def _encoded(paths: Sequence[Path], bytewise: bool, processes: int) -> Iterator[np.ndarray]:
    if processes == 1:
        _start(bytewise)
        yield from map(_encode, paths)
        return
    # Spawned, not forked: a fork of a process that has loaded torch may hang in its threads.
    with multiprocessing.get_context("spawn").Pool(processes, _start, (bytewise,)) as pool:
        yield from pool.imap(_encode, paths, chunksize=16)


class TokenFile:
    """A token file, mapped and not read. Raises `DataError` when it is missing or does not fit its description."""

    def __init__(self, path: Path) -> None:
        self.path = path
        beside = path.with_suffix(".json")
        try:
            self.description = Description(**json.loads(beside.read_text()))
        except FileNotFoundError:
            raise DataError(
                f"{beside} is missing; `python -m retnet_core.training tokens TEXT… {path}` makes both files"
            ) from None
        except (TypeError, json.JSONDecodeError) as error:
            raise DataError(f"{beside} does not describe a token file: {error}") from None
        if not path.is_file() or path.stat().st_size != self.description.tokens * _TYPE.itemsize:
            raise DataError(f"{path} is not the file of {self.description.tokens:,} tokens that {beside.name} describes")
        self.ids = np.memmap(path, dtype=_TYPE, mode="r")

    def __len__(self) -> int:
        return self.description.tokens


class Windows:
    """Windows of `context + 1` ids, the last one only a target: those to train on in a shuffled order, and those held out.

    Which window row r of step s reads depends on `seed`, s and r alone, so a run that was cut off goes on with the same text, on any number
    of processes. Windows of one epoch do not overlap but for the id that is the target of one and the beginning of the next; every epoch has its
    own order and begins at a place of its own. Raises `DataError` for a file with too few tokens.
    """

    def __init__(self, file: TokenFile, *, context: int, held_out: int, seed: int) -> None:
        self._ids, self.context, self._seed = file.ids, context, seed
        self._held_out = held_out // context
        self._trained = len(file) - self._held_out * context - 1
        self.per_epoch = (self._trained - context) // context  # room for the place where an epoch begins
        if self.per_epoch < 1:
            raise DataError(
                f"{file.path} has {len(file):,} tokens; with {held_out:,} held out a context of {context:,} needs "
                f"{held_out + 2 * context + 1:,} at least"
            )
        self._order: tuple[int, int, np.ndarray] | None = None

    def rows(self, first: int, count: int) -> Tensor:
        """Rows `first`, `first + 1`, …, counted from the beginning of training: int64 `[count, context + 1]`."""
        return torch.from_numpy(np.stack([self._window(self._place(row)) for row in range(first, first + count)]))

    def held_out(self, count: int | None = None) -> Tensor:
        """`count` of the windows that are held out (None: all), evenly spread over them: int64 `[windows, context + 1]`."""
        count = self._held_out if count is None else min(count, self._held_out)
        if not count:
            raise DataError("nothing is held out; data.held_out must be at least one context")
        numbers = np.linspace(0, self._held_out - 1, count).round().astype(int)
        return torch.from_numpy(np.stack([self._window(self._trained + number * self.context) for number in numbers]))

    def _place(self, row: int) -> int:
        epoch, number = divmod(row, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            drawn = np.random.default_rng([self._seed, epoch])
            self._order = epoch, int(drawn.integers(self.context)), drawn.permutation(self.per_epoch)
        _, begin, order = self._order
        return begin + int(order[number]) * self.context

    def _window(self, place: int) -> np.ndarray:
        return self._ids[place : place + self.context + 1].astype(np.int64)

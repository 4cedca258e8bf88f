"""Passages and questions as word pieces, put together as the product reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
import torch

from retnet_core.distill.handwritten.rows import Passage
from retnet_core.distill.selection.network import Texts
from retnet_core.distill.writer.samples import Sentences

ENCODER_TOKENS, READER_TOKENS, QUESTION_TOKENS = 256, 320, 64
_BATCH = 20000


class Ragged:
    """Lists of ids of any length, in one array."""

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        self.ends = np.cumsum([0, *map(len, lists)])
        self.values = np.fromiter((number for one in lists for number in one), dtype=np.int32, count=int(self.ends[-1]))

    def __getitem__(self, place: int) -> list[int]:
        return self.values[self.ends[place] : self.ends[place + 1]].tolist()

    def __len__(self) -> int:
        return len(self.ends) - 1


@dataclass(frozen=True, slots=True)
class Pieces:
    """Word pieces of all passages: of the whole, of the title, and of each sentence (those of passage i from `first[i]` on)."""

    whole: Ragged
    titles: Ragged
    headings: Ragged
    sentences: Ragged
    first: np.ndarray
    places: Mapping[str, int]

    def sentences_of(self, passage: int) -> range:
        """The numbers of its sentences."""
        return range(int(self.first[passage]), int(self.first[passage + 1]))


def heading_of(title: str) -> str:
    """The nearest heading in "Page - Section", which the product puts before a sentence."""
    return title.rpartition(" - ")[2]


class Tokens:
    """The installed model's word pieces."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.start, self.stop = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Without special tokens."""
        found: list[list[int]] = []
        for start in range(0, len(texts), _BATCH):
            part = list(texts[start : start + _BATCH])
            found += [one.ids for one in self._tokenizer.encode_batch_fast(part, add_special_tokens=False)]
        return Ragged(found)

    def pieces(self, passages: Sequence[Passage], sentences: Sentences) -> Pieces:
        """All passages at once."""
        texts: list[str] = []
        first = [0]
        for one in passages:
            texts += [one.text[start:end] for start, end in sentences(one.text)]
            first.append(len(texts))
        return Pieces(
            self.encode([f"{one.title}\n{one.text}" for one in passages]),
            self.encode([one.title for one in passages]),
            self.encode([f"{heading_of(one.title)}: " for one in passages]),
            self.encode(texts),
            np.array(first),
            {one.id: place for place, one in enumerate(passages)},
        )

    def texts(self, lists: Sequence[Sequence[int]], most: int = ENCODER_TOKENS) -> Texts:
        """Texts for the encoder: special tokens around, cut to `most`, padded."""
        own = [[self.start, *ids[: most - 2], self.stop] for ids in lists]
        lengths = torch.tensor([len(ids) for ids in own])
        padded = torch.zeros(len(own), int(lengths.max()), dtype=torch.long)
        for row, ids in enumerate(own):
            padded[row, : len(ids)] = torch.tensor(ids)
        return Texts(padded, lengths)

    def pairs(self, questions: Sequence[Sequence[int]], passages: Sequence[int], pieces: Pieces) -> tuple[Texts, torch.Tensor]:
        """(texts for the reader, numbers of the sentences): `[CLS] question [SEP] title [SEP] sentence sentence … [SEP]`.

        Sentences that find no room are cut off, and have no word pieces.
        """
        rows, types, numbers = [], [], []
        for question, passage in zip(questions, passages, strict=True):
            ids = [self.start, *question[:QUESTION_TOKENS], self.stop]
            kind = [0] * len(ids)
            ids += [*pieces.titles[passage][:48], self.stop]
            number = [-1] * len(ids)
            for count, sentence in enumerate(pieces.sentences_of(passage)):
                own = pieces.sentences[sentence][: READER_TOKENS - 1 - len(ids)]
                ids += own
                number += [count] * len(own)
            ids.append(self.stop)
            number.append(-1)
            rows.append(ids)
            types.append(kind + [1] * (len(ids) - len(kind)))
            numbers.append(number)
        width = max(map(len, rows))
        padded = torch.zeros(len(rows), width, dtype=torch.long)
        typed, numbered = torch.zeros_like(padded), torch.full_like(padded, -1)
        for row, (ids, kind, number) in enumerate(zip(rows, types, numbers, strict=True)):
            padded[row, : len(ids)] = torch.tensor(ids)
            typed[row, : len(ids)] = torch.tensor(kind)
            numbered[row, : len(ids)] = torch.tensor(number)
        return Texts(padded, torch.tensor([len(ids) for ids in rows]), typed), numbered

"""`[mixture]` of a configuration: which files conversations are drawn from, and the mixture that they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retnet_core.distill import DistillError, configuration
from retnet_core.distill.configuration import built
from retnet_core.distill.functions import load_function
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import Passage
from retnet_core.distill.keep import read_passages
from retnet_core.distill.mixture.mix import Mixture, Shares
from retnet_core.distill.mixture.questions import Library, from_older, from_pairs, from_rows, older_passages
from retnet_core.distill.mixture.words import Words
from retnet_core.distill.writer.samples import Sentences
from retnet_core.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class MixtureConfig:
    """`written`: the folder whose pages the pairs may rest on; weights are how often one question is drawn beside the others."""

    passages: list[Path]
    pairs: list[Path]
    written: list[Path]
    sentences: Sentences
    older: list[Path] = field(default_factory=list)
    handwritten_weight: float = 10.0
    pair_weight: float = 1.0
    older_weight: float = 0.3
    shares: Shares = field(default_factory=Shares)

    @classmethod
    def make(cls, table: Any, where: str) -> MixtureConfig:
        """Raises `DistillError` for an unknown key or a value that does not fit."""
        return built(
            cls, table, where, passages=configuration.files, pairs=configuration.files, written=configuration.files,
            older=configuration.files, sentences=load_function, shares=lambda shares: built(Shares, shares, f"{where}.shares"),
        )  # fmt: skip

    def mixture(self, tokenizer: Tokenizer) -> Mixture:
        """The training mixture. Raises `DistillError` for files that can't be used."""
        known: dict[str, Passage] = {}
        for folder in self.written:
            if not folder.is_dir():
                raise DistillError(f"there is no folder {folder}: written names folders that `write` wrote")
        # Without such a folder, one that holds nothing.
        for folder in self.written or [handwritten.FOLDER]:
            known |= read_passages(self.passages, folder)
        for one in older_passages(self.older):
            known.setdefault(one.id, one)
        library = Library(known, self.sentences)
        questions = from_rows(handwritten.rows("core"), library, self.handwritten_weight)
        for path in self.pairs:
            questions += from_pairs(path, library, self.pair_weight)
        questions += from_older(self.older, library, self.older_weight)
        words = Words.gather(known[one] for one in library.ids[:: max(1, len(library.ids) // 30000)])
        return Mixture(tokenizer, library, questions, handwritten.rows("core"), words, self.shares)

    def measuring(self, tokenizer: Tokenizer) -> Mixture:
        """The same over the development sites, for measures alone: questions of the half `choose`, words kept apart."""
        known = handwritten.passages()
        library = Library(known, self.sentences, dev=True)
        rows = handwritten.rows("dev", "choose")
        words = Words.gather(known.values(), measuring=True)
        return Mixture(tokenizer, library, from_rows(rows, library, 1.0), rows, words, self.shares)

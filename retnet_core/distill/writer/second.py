"""The second reading: each question that was written is read again beside its page, which the writer still holds, to say what answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
import torch

from retnet_core.distill.writer import tasks
from retnet_core.distill.writer.generator import Generator, Written, peaks
from retnet_core.distill.writer.jobs import Job
from retnet_core.distill.writer.tasks import Pair


@dataclass(frozen=True, slots=True)
class Reading:
    """A pair, the row that holds its page's tokens, and the tokens of what is asked after them."""

    place: int
    slot: int
    job: Job
    pair: Pair
    ids: list[int]


class SecondReader:
    """Parses what was written for jobs and reads each question again."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, device: torch.device) -> None:
        self._tokenizer = tokenizer
        letters = [self._first(letter) for letter in tasks.LETTERS]
        self._among = torch.tensor([self._first(tasks.NONE), *letters], device=device)

    def _first(self, label: str) -> int:
        return self._tokenizer.encode(f" {label}", add_special_tokens=False).ids[0]

    def records(self, generator: Generator, written: Sequence[Written], jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """A record for each job, with the pairs that could be parsed; `lost` counts the lines that could not be used."""
        texts = self._tokenizer.decode_batch([one.ids for one in written], skip_special_tokens=True)
        parsed = [tasks.parse(text, job.asks, complete=one.complete) for text, job, one in zip(texts, jobs, written, strict=True)]
        found = [
            {"job": job.number, "turn": job.turn, "passages": list(job.passages), "lost": own.lost, "pairs": []}
            for job, own in zip(jobs, parsed, strict=True)
        ]
        # The questions of one row are read one after the other, in the same place.
        turns: list[list[Reading]] = []
        for one in self._readings(written, jobs, [own.pairs for own in parsed]):
            if one.job.read + len(one.ids) >= generator.positions:
                found[one.place]["lost"] += 1
                continue
            turn = next((turn for turn in turns if turn[-1].place < one.place), None)
            if turn is None:
                turns.append(turn := [])
            turn.append(one)
        for turn in turns:
            for one, record in zip(turn, self._read(generator, turn), strict=True):
                found[one.place]["pairs"].append(record)
        return found

    def _readings(self, written: Sequence[Written], jobs: Sequence[Job], pairs: Sequence[Sequence[Pair]]) -> list[Reading]:
        own = [(place, pair) for place, several in enumerate(pairs) for pair in several]
        asked = [tasks.read_text(pair.question, pair.before) for _, pair in own]
        encoded = self._tokenizer.encode_batch_fast(asked, add_special_tokens=False)
        return [
            Reading(place, written[place].slot, jobs[place], pair, ids.ids)
            for (place, pair), ids in zip(own, encoded, strict=True)
        ]

    def _read(self, generator: Generator, turn: Sequence[Reading]) -> list[dict[str, Any]]:
        """`read` is the likeliest sentence (-1: none), `gold` and `none` are the probabilities of the sentences asked for together, and of none,
        among the letters of the page and none."""
        hidden = generator.extend([one.ids for one in turn], [one.slot for one in turn], [one.job.read for one in turn])
        found = []
        for one, share in zip(turn, peaks(generator.network.logits(hidden, self._among)), strict=True):
            share, pair = share[: 1 + one.job.sentences], one.pair
            share = share / share.sum()
            found.append(
                {
                    "q": pair.question,
                    **({"before": pair.before} if pair.before else {}),
                    **({"a": pair.answer} if pair.answer else {}),
                    "at": list(pair.ask.places),
                    "style": list(pair.ask.styles),
                    "read": int(share.argmax()) - 1,
                    "gold": round(float(sum(share[1 + place] for place in pair.ask.places)), 3),
                    "none": round(float(share[0]), 3),
                }
            )
        return found

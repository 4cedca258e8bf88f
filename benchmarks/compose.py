"""`retort bench compose`: how near a state put together from a text that was read by itself comes to having read it.

Conversations made of this project's documentation: persona and some turns (A), then the passages of a grounded turn (B), then the question
and the published answer (C). C's next-token distributions after `compose(A, B)` are compared with those after truly reading A and then B;
so are those of a model that never read B, and of one that forgot A, which say what a divergence means. Openings of B are read truly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import _report as report
from benchmarks._agreement import divergence, same_best
from benchmarks.turns import PERSONA, turns
from retnet_core import Model, State, compose, load_model, read_segment
from workers.answer import prompt

THREADS = 2
OPENINGS = (0, 3, 16)
TURNS_BEFORE = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation: ids before the passages, the passages, and what comes after them; `digit` is where the citation is chosen."""

    before: list[int]
    passages: list[int]
    after: list[int]
    digit: int


def cases(model: Model, count: int) -> list[Case]:
    """`count` conversations, each about other sections."""
    tokenizer = model.tokenizer
    start = tokenizer.token_id("<|im_start|>")
    persona = prompt.persona_prefix(tokenizer, PERSONA)
    given = turns(tokenizer)
    found = []
    for _ in range(count):
        before = list(persona)
        for _ in range(TURNS_BEFORE):
            turn = next(given)
            before += turn.question + turn.answer
        turn = next(given)
        # The grounded turn: a block of passages, then the question again.
        split = turn.grounded.index(start, 1)
        answer = turn.answer[turn.answer.index(start) + len(prompt.answer_opening(tokenizer)) :]
        after = turn.grounded[split:]
        digit = len(after) - 1
        found.append(Case(before + turn.question, turn.grounded[:split], after + tokenizer.encode("1] ") + answer, digit))
    return found


class Comparison:
    """One run: what it measures, and where the rows go."""

    def __init__(self, count: int, rows: report.Report) -> None:
        self.model, self.rows = load_model(), rows
        self.cases = cases(self.model, count)
        lengths = [sum(len(getattr(case, name)) for case in self.cases) / count for name in ("before", "passages", "after")]
        rows.notes.append(
            f"{count} conversations, {self.model.precision}; on average {lengths[0]:.0f} tokens before, "
            f"{lengths[1]:.0f} of passages, {lengths[2]:.0f} of question and answer"
        )

    def run(self) -> None:
        model = self.model
        befores = [self._state(case.before) for case in self.cases]
        truly, seconds = _timed(
            [partial(self._state, case.passages, before) for case, before in zip(self.cases, befores, strict=True)]
        )
        wanted = [self._after(case, state) for case, state in zip(self.cases, truly, strict=True)]
        self.rows.add("reading the passages, the quickest", 1000 * seconds, "ms")
        again = [self._state(case.before + case.passages) for case in self.cases]
        self._row("read again, cut elsewhere", wanted, again)
        for opening in OPENINGS:
            segments = [read_segment(model, case.passages, opening=opening) for case in self.cases]
            composed, seconds = _timed(
                [partial(compose, before, segment, model=model) for before, segment in zip(befores, segments, strict=True)]
            )
            self._row(f"composed, opening of {opening}", wanted, composed, note=f"the quickest in {1000 * seconds:.0f} ms")
        self._row("passages never read", wanted, befores)
        forgotten = [self._state(case.passages) for case in self.cases]
        self._row("what was before forgotten", wanted, forgotten)

    def _state(self, ids: Sequence[int], state: State | None = None) -> State:
        return self.model.read(ids, state)[1]

    def _after(self, case: Case, state: State) -> Tensor:
        return self.model.read(case.after, state)[0]

    def _row(self, name: str, wanted: Sequence[Tensor], states: Sequence[State], note: str = "") -> None:
        divergences, same, digits = [], [], []
        for case, expected, state in zip(self.cases, wanted, states, strict=True):
            logits = self._after(case, state)
            divergences.append(divergence(expected, logits))
            same.append(same_best(expected, logits))
            digits.append(float(expected[case.digit].argmax() == logits[case.digit].argmax()))
        count = len(self.cases)
        spread = f"of a conversation {min(divergences):.3f} to {max(divergences):.3f}"
        self.rows.add(f"{name}: KL", sum(divergences) / count, "nats", note="; ".join(filter(None, (spread, note))))
        self.rows.add(f"{name}: same most probable token", sum(same) / count, "")
        self.rows.add(f"{name}: same passage cited", sum(digits) / count, "")


def _timed(actions: Sequence[Callable[[], State]]) -> tuple[list[State], float]:
    """What the actions give, and the seconds of the quickest, because on a shared machine the others measure the neighbours."""
    states, quickest = [], float("inf")
    for action in actions:
        begun = time.perf_counter()
        states.append(action())
        quickest = min(quickest, time.perf_counter() - begun)
    return states, quickest


def main() -> None:
    given = report.arguments(__doc__ or "").parse_args()
    rows = report.Report("Composed states")
    torch.set_num_threads(THREADS)
    Comparison(3 if given.quick else 8, rows).run()
    rows.finish(given)


if __name__ == "__main__":
    main()

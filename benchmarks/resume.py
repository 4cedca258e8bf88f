"""`retort bench resume`: what parking a conversation's state costs in bytes, time and answers, at each precision.

Conversations made of this project's documentation. After some turns the next one, question, evidence and published answer, is read from the
state itself and from the state as it came back from its bytes; the next-token distributions over that turn are compared, and the greedy
answers that both write. *Once*: parked before that turn only. *Each turn*: parked and fetched after every turn, so that errors add up.
Measured in the arithmetic that this machine answers in, whose own noise is what the same ids, cut into other passes, come to; and in
float32, where little but the parking is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import torch

from benchmarks import _report as report
from benchmarks._agreement import agreeing, divergence, same_best
from benchmarks.turns import PERSONA, Turn, turns
from retnet_core import Engine, Model, Request, State, load_model
from retnet_core.state import STATE_PRECISIONS
from workers.answer import prompt
from workers.answer.generate import SAMPLING

THREADS = 2
ANSWER_TOKENS = 24
NOISE = "never parked, cut elsewhere"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured, in which arithmetic."""

    arithmetic: str
    conversations: int
    turns: int
    probes: tuple[int, ...]  # after so many turns
    rounds: int


FULL = (Size("auto", 4, 16, (1, 16), 20), Size("float32", 2, 8, (8,), 20))
QUICK = (Size("auto", 1, 5, (5,), 5),)


@dataclass(slots=True)
class Found:
    """What was found of one way to park: divergence and agreement of each turn, and the greedy answers from the state itself and from it."""

    divergences: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)
    answers: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)


def resumed(state: State, model: Model, precision: str) -> State:
    """The state as it comes back from where it was parked."""
    return State.from_bytes(state.to_bytes(precision=precision), model=model)


class Parking:
    """One run: what it measures, and where the rows go."""

    def __init__(self, size: Size, rows: report.Report) -> None:
        self.size, self.rows = size, rows
        self.model = load_model(precision=size.arithmetic)
        self.persona = prompt.persona_prefix(self.model.tokenizer, PERSONA)
        self.found: dict[str, Found] = {}

    def run(self) -> None:
        given = turns(self.model.tokenizer)
        state = self.model.new_state()
        for _ in range(self.size.conversations):
            state = self.conversation(list(islice(given, self.size.turns + 1)))
        if not self.rows.rows:
            self.costs(state)
        self.report()

    def conversation(self, all_turns: Sequence[Turn]) -> State:
        """One conversation with every way to park it; the state at its end."""
        exact = self._state(self.persona)
        # float32 is exact, so it has nothing to add up.
        chains = {precision: exact for precision in STATE_PRECISIONS[1:]}
        consumed = list(self.persona)
        for number, turn in enumerate(all_turns[:-1], 1):
            own = turn.question + turn.answer
            consumed += own
            exact = self._state(own, exact)
            for precision, state in chains.items():
                chains[precision] = resumed(self._state(own, state), self.model, precision)
            if number in self.size.probes:
                states = {f"{precision}, once": resumed(exact, self.model, precision) for precision in STATE_PRECISIONS}
                states |= {f"{precision}, each of {number} turns": state for precision, state in chains.items() if number > 1}
                states[NOISE] = self._state(consumed)
                self.probe(exact, states, all_turns[number])
        return exact

    def _state(self, ids: Sequence[int], state: State | None = None) -> State:
        return self.model.read(ids, state)[1]

    def probe(self, exact: State, states: dict[str, State], turn: Turn) -> None:
        """Compare the next turn after `exact` with the same turn after each of the states."""
        opening = len(prompt.answer_opening(self.model.tokenizer))
        asked = turn.question + turn.grounded
        ids = [*asked, *self.model.tokenizer.encode("1] "), *turn.answer[opening:]]
        wanted, answer = self.model.read(ids, exact)[0], self._answers(asked, [exact])[0]
        for (name, state), other in zip(states.items(), self._answers(asked, list(states.values())), strict=True):
            logits = self.model.read(ids, state)[0]
            found = self.found.setdefault(name, Found())
            found.divergences.append(divergence(wanted, logits))
            found.same.append(same_best(wanted, logits))
            found.answers.append((answer, other))

    def _answers(self, ids: list[int], states: Sequence[State]) -> list[tuple[int, ...]]:
        """What is written after each of the states, greedily, as the product does."""
        engine = Engine(self.model, slots=len(states), threads=THREADS)
        engine.start()
        try:
            requests = [
                Request(ids, state, max_new_tokens=ANSWER_TOKENS, sampling=SAMPLING, return_state=False) for state in states
            ]
            return [handle.wait().ids for handle in [engine.submit(request) for request in requests]]
        finally:
            engine.close()

    def costs(self, state: State) -> None:
        """Bytes, and the best time of writing and of reading them."""
        for precision in STATE_PRECISIONS:
            data = state.to_bytes(precision=precision)
            writing = min(_seconds(partial(state.to_bytes, precision=precision)) for _ in range(self.size.rounds))
            reading = min(_seconds(partial(State.from_bytes, data, model=self.model)) for _ in range(self.size.rounds))
            note = f"to bytes {1000 * writing:.1f} ms, back {1000 * reading:.1f} ms"
            self.rows.add(f"{precision} state", len(data) / 1e6, "MB", note=note)

    def report(self) -> None:
        for name, found in sorted(self.found.items(), key=lambda item: (item[0] == NOISE, item[0])):
            count = len(found.same)
            whole, tokens = agreeing(*zip(*found.answers, strict=True))
            name = f"{self.model.precision}: {name}"
            note = f"worst turn {max(found.divergences):.2g}"
            self.rows.add(f"{name}: KL", sum(found.divergences) / count, "nats", note=note)
            self.rows.add(f"{name}: same most probable token", sum(found.same) / count, "")
            note = f"{100 * whole:.0f} % of {count} answers to the end"
            self.rows.add(f"{name}: greedy tokens up to the first that differs", tokens, "", note=note)
        self.rows.notes.append(
            f"{self.model.precision}: {self.size.conversations} conversations, compared after {', '.join(map(str, self.size.probes))} turns"
        )


def _seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def main() -> None:
    given = report.arguments(__doc__ or "").parse_args()
    rows = report.Report("Parked states")
    torch.set_num_threads(THREADS)
    for size in QUICK if given.quick else FULL:
        Parking(size, rows).run()
    rows.finish(given)


if __name__ == "__main__":
    main()

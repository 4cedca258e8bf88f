"""`retort bench turns`: what a turn costs in a conversation of 1,000 turns, and what is read for it.

Two kinds of conversation, both made of this project's documentation. *Grounded*, as the product runs it: question and evidence are read in
one request, the answer is written from there, and the state at the end of the question (`Request.state_at`), which has not seen the
evidence, then reads the answer and is the memory. *Chat*: question and answer stay in the state that wrote the answer.

Cost: at each of the turns the same ids are read and the same number of tokens written, in rounds that go through all turns in a new
order; in each round turn 1 is measured a second time. The spread of that second measure over the first is the noise, and a later turn is
flat when the median of its cost over turn 1's, round by round, lies within it; with more than 10 per cent of noise nothing is said. Peers,
with a KV cache that grows, are measured in the same way as far as the 8,192 tokens go that the model was trained to read at once; what lies
beyond is computed.

Reading: the ids that a request reads (`Result.prompt_tokens`), counted over 20 turns and compared with the rows that went through the
model; a server that cannot come back to a state reads the whole conversation again. The benchmark fails if an id is read twice.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks import _report as report
from benchmarks._peers import LlamaCpp, PeerMissing, Transformers
from benchmarks.decode import Ours
from retnet_core import Request, State, Tokenizer, load_model
from retnet_core.gguf import find_base_model
from workers.answer import prompt
from workers.answer.sentences import split_sentences

THREADS = 2
DOCS = Path(__file__).parents[1] / "docs"
PERSONA = "You answer the questions of visitors of a website. Use only the passages."
QUESTIONS = ("What should I know about {}?", "Can you tell me more about {}?", "How does this work: {}?", "Please explain {}.")
LONGEST = 8192
"""Tokens that the peers' model was trained to read at once."""
MOST_NOISE = 0.1
"""Above it a run says nothing about a cost being flat."""
PEER_ROUNDS = 5
CACHE_BYTES = 30 * 3 * 64 * 2 * 2
"""A token's keys and values in the peers' caches: 30 layers, 3 heads of 64, in 16 bits."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    turns: tuple[int, ...]  # the first is compared with the others
    peer_turns: tuple[int, ...]
    rounds: int
    write: int  # tokens a measurement
    read_turns: int
    transformers: bool


FULL = Size((1, 100, 1000), (1, 25, 50, 100, 125), 15, 48, 20, True)
QUICK = Size((1, 20, 100), (1, 20), 6, 24, 20, False)


@dataclass(frozen=True, slots=True)
class Turn:
    """A visitor's question, what the fork reads for it, and the published answer, as ids."""

    question: list[int]
    grounded: list[int]
    answer: list[int]


def turns(tokenizer: Tokenizer) -> Iterator[Turn]:
    """For ever, one a section of the documentation: its heading asked for, its first sentences as evidence, the first as the answer."""
    sections = []
    for path in sorted(DOCS.glob("*.md")):
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
        for heading, body in re.findall(r"^##+ (.+)\n+([A-Z][^#|]+)", text, flags=re.M):
            told = " ".join(body.split())
            sentences = [told[start:end] for start, end in split_sentences(told)][:4]
            evidence = [
                {"number": 1 + place // 2, "title": path.stem, "heading_path": [heading], "text": sentence}
                for place, sentence in enumerate(sentences)
            ]
            sections.append((heading, evidence, sentences[0]))
    for (heading, evidence, answer), question in zip(cycle(sections), cycle(QUESTIONS), strict=False):
        asked = question.format(heading)
        yield Turn(
            prompt.visitor_turn(tokenizer, asked),
            prompt.grounded_turn(tokenizer, asked, evidence),
            prompt.assistant_turn(tokenizer, answer),
        )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    first, middle, last = (report.quantile(values, share) for share in (0.25, 0.5, 0.75))
    assert first is not None and middle is not None and last is not None
    return first, middle, last


class Turns:
    """One run: what it measures, and where the rows go."""

    def __init__(self, size: Size, rows: report.Report) -> None:
        self.size, self.rows = size, rows
        self.ours = Ours(load_model(), 1)
        self.tokenizer = self.ours.model.tokenizer
        self.persona = prompt.persona_prefix(self.tokenizer, PERSONA)
        self.turns = list(islice(turns(self.tokenizer), max(*size.turns, size.read_turns)))
        self.states: dict[int, State] = {}
        """The memory with which a turn begins, of one conversation."""
        rows.notes.append(f"ours: {self.ours.model.precision}, {THREADS} threads")
        own = sum(len(turn.question) + len(turn.answer) for turn in self.turns) / len(self.turns)
        evidence = sum(len(turn.grounded) for turn in self.turns) / len(self.turns)
        rows.notes.append(f"a turn: {own:.0f} tokens of question and answer, {evidence:.0f} of evidence with the question again")

    def run(self) -> None:
        self.reading_grounded()
        self.reading_chat()
        self._converse({*self.size.turns, *self.size.peer_turns})
        self.cost()
        self.peers()

    def close(self) -> None:
        self.ours.engine.close()

    def cost(self) -> None:
        """The same turn after 0, 99 and 999 others: milliseconds a token read and written, and the memory's bytes."""
        size, states = self.size, self.states
        first = size.turns[0]
        for name, measure in (("written", self._written), ("read", self._read)):
            measures: dict[str, Callable[[], float]] = {f"turn {turn}": partial(measure, states[turn]) for turn in size.turns}
            measures["again"] = partial(measure, states[first])
            found = rounds(size.rounds, measures)
            again = [one / other for one, other in zip(found["again"], found[f"turn {first}"], strict=True)]
            noise = max(abs(edge - 1) for edge in (report.quantile(again, 0.1), report.quantile(again, 0.9)) if edge)
            for turn in size.turns:
                low, middle, high = quartiles(found[f"turn {turn}"])
                self._row(
                    f"a token {name}, {self._place(turn)}", middle, "ms", (low, high), note=f"half of them {low:.2f}–{high:.2f}"
                )
            for turn in size.turns[1:]:
                over = [one / other for one, other in zip(found[f"turn {turn}"], found[f"turn {first}"], strict=True)]
                low, middle, high = quartiles(over)
                told = f"noise ±{100 * noise:.1f} %, half of them {low:.3f}–{high:.3f}"
                self._row(
                    f"a token {name}, turn {turn} over turn {first}", middle, "×", (low, high),
                    goal=1 + noise if noise <= MOST_NOISE else None,
                    note=told if noise <= MOST_NOISE else f"{told}: this machine is too busy to tell",
                )  # fmt: skip
        sizes = {turn: (states[turn].nbytes, len(states[turn].to_bytes(precision="bfloat16"))) for turn in size.turns}
        if len(set(sizes.values())) != 1:
            raise SystemExit(f"a state's bytes changed with the turn: {sizes}")
        for turn in size.turns:
            self.rows.add(
                f"memory, {self._place(turn)}", sizes[turn][0], "bytes", peer="KV cache, 16 bits",
                peer_value=CACHE_BYTES * self._tokens(turn), note=f"parked {sizes[turn][1]:,}",
            )  # fmt: skip

    def _row(self, name: str, value: float, unit: str, edges: tuple[float, float], **more: Any) -> None:
        self.rows.add(name, value, unit, **more)
        for edge, at in zip(("first quartile", "third quartile"), edges, strict=True):
            self.rows.add(f"{name}, {edge}", at, unit, detail=True)

    def _converse(self, wanted: set[int]) -> None:
        """Have the whole conversation, and keep the memory with which each of these turns begins."""
        state, _ = self.ours.state(self.persona)
        for number, turn in enumerate(self.turns, 1):
            if number in wanted:
                self.states[number] = state
            after = self.ours.engine.submit(Request([*turn.question, *turn.answer], state)).wait().state
            assert after is not None
            state = after

    def _tokens(self, turn: int) -> int:
        """Tokens that the conversation holds when this turn begins."""
        return len(self.persona) + sum(len(one.question) + len(one.answer) for one in self.turns[: turn - 1])

    def _place(self, turn: int) -> str:
        return f"turn {turn} ({self._tokens(turn)} tokens)"

    def _written(self, state: State) -> float:
        return 1000 / self.ours.write([state], self.size.write)

    def _read(self, state: State) -> float:
        ids = [*self.turns[0].question, *self.turns[0].grounded]
        begun = time.perf_counter()
        self.ours.engine.submit(Request(ids, state, return_state=False)).wait()
        return 1000 * (time.perf_counter() - begun) / len(ids)

    def reading_grounded(self) -> None:
        """What is read of a conversation with evidence, from the persona on."""
        engine, size = self.ours.engine, self.size
        with Meter(self.ours.model) as meter:
            state, _ = self.ours.state(self.persona)
            counted, again, written = [], [], 0
            for turn in self.turns[: size.read_turns]:
                history = state.tokens
                ids, end = [*turn.question, *turn.grounded], len(turn.question)
                answered = engine.submit(
                    Request(ids, state, max_new_tokens=8, stop_ids=(), state_at=(end,), return_state=False)
                ).wait()
                remembered = engine.submit(Request(turn.answer, answered.states[end])).wait()
                assert remembered.state is not None
                state = remembered.state
                counted.append(answered.prompt_tokens + remembered.prompt_tokens)
                again.append(history + len(ids))
                written += len(answered.ids) - 1  # the last one is dropped with the fork
        own = [*self.persona, *(token for turn in self.turns[: size.read_turns] for token in (*turn.question, *turn.answer))]
        expected = len(own) + sum(len(turn.grounded) for turn in self.turns[: size.read_turns])
        self._nothing_twice("grounded", len(self.persona) + sum(counted), expected, meter.rows - written)
        self._same_memory(state, own)
        self._reading("grounded", counted, again)
        self._first_token(own, self.turns[size.read_turns - 1])

    def reading_chat(self) -> None:
        """What is read of an ordinary chat: each request adds the new message to the state that wrote the last answer."""
        opening, closing = prompt.answer_opening(self.tokenizer), self.tokenizer.encode("<|im_end|>\n")
        with Meter(self.ours.model) as meter:
            ids, state = list(self.persona), None
            counted, again, written = [], [], 0
            for turn in self.turns[: self.size.read_turns]:
                ids += [*turn.question, *opening]
                result = self.ours.engine.submit(Request(ids, state, max_new_tokens=len(turn.answer), stop_ids=())).wait()
                assert result.state is not None
                counted.append(result.prompt_tokens)
                again.append(len(ids) + (0 if state is None else state.tokens))
                state, ids = result.state, list(closing)
                written += len(result.ids)
        assert state is not None
        self._nothing_twice("chat", sum(counted), state.tokens - written, meter.rows - written)
        self._reading("chat", counted, again)

    def _nothing_twice(self, kind: str, read: int, expected: int, rows: int) -> None:
        """Ids that were read, as the engine counts them; the conversation's; rows of the model's passes that are not writing."""
        if not read == expected == rows:
            raise SystemExit(
                f"{kind}: {read} ids were read of {expected}, and {rows} went through the model: something is read twice"
            )

    def _same_memory(self, state: State, ids: Sequence[int]) -> None:
        """Read turn by turn or in one go, the conversation leaves the same memory but for rounding."""
        whole, _ = self.ours.state(ids)
        difference = float((state.retention - whole.retention).norm() / whole.retention.norm())
        self.rows.add(
            "memory read turn by turn, off the one read in one go",
            100 * difference,
            "%",
            note="root mean square of int8 rounding",
        )
        if state.tokens != whole.tokens or difference > 0.05:
            raise SystemExit(
                f"the memory after {state.tokens} tokens differs from the one of {whole.tokens} read at once by {difference:.3f}"
            )

    def _reading(self, kind: str, counted: Sequence[int], again: Sequence[int]) -> None:
        peer = "whole conversation"
        for number, (read, whole) in enumerate(zip(counted, again, strict=True), 1):
            inner = 1 < number < len(counted)
            self.rows.add(f"{kind}, tokens read in turn {number}", read, "tokens", peer=peer, peer_value=whole, detail=inner)
        self.rows.add(f"{kind}, tokens read in {len(counted)} turns", sum(counted), "tokens", peer=peer, peer_value=sum(again))

    def _first_token(self, own: Sequence[int], turn: Turn) -> None:
        """Time to the first token of the last turn, from the state before it and from nothing."""
        before = own[: len(own) - len(turn.question) - len(turn.answer)]
        state, _ = self.ours.state(before)
        ids = [*turn.question, *turn.grounded]

        def first(ids: Sequence[int], state: State | None) -> float:
            begun = time.perf_counter()
            self.ours.engine.submit(Request(ids, state, max_new_tokens=1, stop_ids=(), return_state=False)).wait()
            return 1000 * (time.perf_counter() - begun)

        found = rounds(
            min(5, self.size.rounds), {"state": lambda: first(ids, state), "whole": lambda: first([*before, *ids], None)}
        )
        self.rows.add(
            f"grounded, first token of turn {self.size.read_turns}", report.median(found["state"]), "ms",
            peer="whole conversation", peer_value=report.median(found["whole"]),
        )  # fmt: skip

    def peers(self) -> None:
        """The same conversation in a KV cache, at the same turns, as far as it fits."""
        own = [*self.persona, *(token for turn in self.turns for token in (*turn.question, *turn.answer))]
        room = LONGEST - (PEER_ROUNDS + 1) * (self.size.write + 1) * len(self.size.peer_turns) - 1
        marks = [turn for turn in self.size.peer_turns if self._tokens(turn) <= room]
        for turn in self.size.turns:
            if self._tokens(turn) > room:
                self.rows.notes.append(
                    f"peers: turn {turn} begins after {self._tokens(turn):,} tokens, which the {LONGEST:,} that their model was trained on do not "
                    "hold; their memory there is computed"
                )
        try:
            self._llama(own, marks)
        except PeerMissing as missing:
            self.rows.notes.append(f"llama.cpp is not compared: {missing}")
        if self.size.transformers:
            self._transformers(own, [marks[0], marks[-1]])

    def _llama(self, own: Sequence[int], marks: Sequence[int]) -> None:
        process = LlamaCpp(find_base_model(), THREADS)
        try:
            with process.context(LONGEST, flash=True):
                read = 0
                for turn in marks:
                    # One token of the next turn, which the decoding begins with. What was written at earlier turns stays in the cache too.
                    process.call("read", tokens=own[read : self._tokens(turn) + 1])
                    read = self._tokens(turn) + 1
                    peer = lambda: 1000 / process.rate("decode", tokens=self.size.write)  # noqa: E731
                    self._beside("llama.cpp Q4_1", turn, peer)
        finally:
            process.close()

    def _transformers(self, own: Sequence[int], marks: Sequence[int]) -> None:
        peer = Transformers(THREADS, torch.bfloat16)
        for turn in marks:
            _, cache = peer.read(own[: self._tokens(turn)])
            held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
            if held != CACHE_BYTES * self._tokens(turn):
                raise SystemExit(f"the KV cache of {self._tokens(turn)} tokens holds {held} bytes, not {CACHE_BYTES} a token")
            self._beside("transformers bfloat16", turn, lambda: 1000 / peer.decode(cache, 8))  # noqa: B023

    def _beside(self, name: str, turn: int, peer: Callable[[], float]) -> None:
        found = rounds(PEER_ROUNDS, {"ours": partial(self._written, self.states[turn]), "peer": peer})
        low, middle, high = quartiles(found["peer"])
        self.rows.add(
            f"a token written beside {name}, {self._place(turn)}", report.median(found["ours"]), "ms", peer=name, peer_value=middle,
            note=f"half of them {low:.2f}–{high:.2f}",
        )  # fmt: skip


class Meter:
    """Counts the rows that go through the model while it is open: one for each id read or written."""

    def __init__(self, model: Any) -> None:
        self._model, self.rows = model, 0

    def __enter__(self) -> Meter:
        forward = self._model.forward

        def counting(ids: torch.Tensor, *others: Any) -> torch.Tensor:
            self.rows += len(ids)
            return forward(ids, *others)

        self._model.forward = counting
        return self

    def __exit__(self, *error: object) -> None:
        del self._model.forward


def rounds(count: int, measures: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Every measure once a round, in a new order each time; a first round, which warms up, is dropped."""
    order, random_ = list(measures), random.Random(0)
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(count + 1):
        random_.shuffle(order)
        for name in order:
            value = measures[name]()
            if number:
                found[name].append(value)
    return found


def main() -> None:
    given = report.arguments(__doc__ or "").parse_args()
    rows = report.Report("What a turn costs")
    torch.set_num_threads(THREADS)
    run = Turns(QUICK if given.quick else FULL, rows)
    try:
        run.run()
    finally:
        run.close()
    rows.finish(given)


if __name__ == "__main__":
    main()

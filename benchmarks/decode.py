"""`retort bench decode`: the RetNet on this machine's processor beside llama.cpp and transformers, same model size, same threads.

All take turns in one run, on the same prompts of random tokens, and each one's best round counts, because on a shared machine the
slower rounds measure the neighbours. llama.cpp runs SmolLM2-135M-Instruct in Q4_1, as its package ships it, and in Q8_0, with and
without flash attention, whichever is faster; transformers runs the same shape in float32 and bfloat16 with its KV cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import _report as report
from benchmarks._peers import INSTALLED, LlamaCpp, PeerMissing, Transformers, q8_0
from retnet_core import Engine, Handle, Model, Request, State, load_model
from retnet_core.gguf import find_base_model

THREADS = 2
VOCABULARY_FROM, VOCABULARY_TO = 300, 49000  # ordinary tokens: none ends an answer


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    short: int  # tokens of context
    long: int
    crowd: int  # conversations at once
    crowd_context: int
    read: int  # tokens of the prompt that is read
    parked: int
    write: int  # tokens written by one conversation, and by each of the crowd
    crowd_write: int
    rounds: int
    transformers: bool
    goals: bool  # they are set for the full sizes
    peers: tuple[str, ...]  # llama.cpp's stored precisions
    flash: tuple[bool, ...]  # its ways of attention, of which the faster counts


FULL = Size(512, 8192, 32, 4096, 2048, 4096, 96, 24, 4, True, True, ("Q4_1", "Q8_0"), (False, True))
QUICK = Size(512, 1024, 8, 1024, 512, 1024, 24, 8, 2, False, False, ("Q4_1",), (False,))


def prompt(length: int, seed: int = 0) -> list[int]:
    """Random ordinary tokens, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY_FROM, VOCABULARY_TO, (length,), generator=generator).tolist()


class Ours:
    """The engine with the shipped weights."""

    def __init__(self, model: Model, slots: int) -> None:
        self.model = model
        self.engine = Engine(model, slots=slots, prefill_chunk=256, queue_limit=0, threads=THREADS)
        self.engine.start()

    def state(self, ids: Sequence[int]) -> tuple[State, float]:
        """The memory after the ids, and the seconds of reading them."""
        begun = time.perf_counter()
        state = self.engine.submit(Request(ids)).wait().state
        assert state is not None
        return state, time.perf_counter() - begun

    def write(self, states: Sequence[State], tokens: int) -> float:
        """Tokens a second of all together, each writing `tokens` after its first, which ends the reading."""
        requests = [
            Request([VOCABULARY_FROM], state, max_new_tokens=tokens + 1, stop_ids=(), return_state=False) for state in states
        ]
        handles = [self.engine.submit(request) for request in requests]
        # The engine runs them in step; the first tokens of all are there when the last one's is.
        _wait_for_first_tokens(handles)
        begun = time.perf_counter()
        for handle in handles:
            handle.wait()
        return tokens * len(handles) / (time.perf_counter() - begun)

    def resume(self, parked: bytes) -> float:
        """Seconds from a parked conversation's bytes to its next token."""
        begun = time.perf_counter()
        state = State.from_bytes(parked, model=self.model)
        self.engine.submit(Request([VOCABULARY_FROM], state, max_new_tokens=1, stop_ids=(), return_state=False)).wait()
        return time.perf_counter() - begun


def _wait_for_first_tokens(handles: Iterable[Handle]) -> None:
    for handle in handles:
        while not handle.written:
            if handle.done:
                handle.wait()  # raises why it failed
                raise RuntimeError("a request ended without a token")
            time.sleep(0.0002)


def best(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Each measure's largest value over rounds in which they take turns."""
    found: dict[str, float] = {}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name] = max(found.get(name, 0.0), measure())
    return found


class Comparison:
    """One run: what it measures, and where the rows go."""

    def __init__(self, size: Size, rows: report.Report) -> None:
        self.size, self.rows = size, rows
        self.ours = Ours(load_model(), max(size.crowd, 1))
        self.peers: dict[str, LlamaCpp] = {}
        rows.notes.append(
            f"ours: {self.ours.model.precision}, {'kernels' if self.ours.model._network else 'torch'}, {THREADS} threads"
        )
        try:
            for kind in size.peers:
                name, path = f"llama.cpp {kind}", find_base_model() if kind == "Q4_1" else q8_0(INSTALLED)
                self.peers[name] = LlamaCpp(path, THREADS)
                rows.notes.append(f"{name}: {self.peers[name].instructions.strip()}")
        except PeerMissing as missing:
            rows.notes.append(f"llama.cpp is not compared: {missing}")

    def run(self) -> None:
        size = self.size
        self.decode(f"decode, 1 conversation, {size.short} tokens of context", size.short, 1, size.write, 1.2)
        self.decode(f"decode, 1 conversation, {size.long} tokens of context", size.long, 1, size.write, 4.0)
        self.decode(
            f"decode, {size.crowd} conversations of {size.crowd_context}", size.crowd_context, size.crowd, size.crowd_write, 15.0
        )
        self.prefill(size.read)
        self.resume(size.parked)
        if size.transformers:
            self.transformers(size.short)

    def close(self) -> None:
        self.ours.engine.close()
        for peer in self.peers.values():
            peer.close()

    def decode(self, name: str, context: int, conversations: int, tokens: int, goal: float) -> None:
        """Tokens a second after a context that is read once, and shared by the conversations."""
        state, _ = self.ours.state(prompt(context))
        states = [state] * conversations
        found = best(self.size.rounds, {"ours": lambda: self.ours.write(states, tokens)})
        peers: dict[str, float] = {}
        for peer, process in self.peers.items():
            for flash in self.size.flash:
                rate = self._peer_decode(process, context, conversations, tokens, flash)
                peers[peer] = max(peers.get(peer, 0.0), rate)
            # Between the peers again, so that a quiet or a busy minute is shared.
            again = best(1, {"ours": lambda: self.ours.write(states, tokens)})
            found["ours"] = max(found["ours"], again["ours"])
        self._compare(name, found["ours"], peers, goal)

    def _peer_decode(self, process: LlamaCpp, context: int, conversations: int, tokens: int, flash: bool) -> float:
        try:
            with process.context(context + (tokens + 2) * self.size.rounds + 8, conversations, flash=flash):
                process.call("read", tokens=prompt(context), only=1)
                if conversations > 1:
                    process.call("share")
                return best(self.size.rounds, {"rate": lambda: process.rate("decode", tokens=tokens)})["rate"]
        except PeerMissing as failed:
            self.rows.notes.append(str(failed))
            return 0.0

    def prefill(self, length: int) -> None:
        """Tokens a second of reading one prompt."""
        ids = prompt(length)
        found = best(self.size.rounds, {"ours": lambda: length / self.ours.state(ids)[1]})
        peers: dict[str, float] = {}
        for peer, process in self.peers.items():
            for flash in self.size.flash:
                try:
                    with process.context(length + 8, flash=flash):
                        peers[peer] = max(peers.get(peer, 0.0), process.rate("read", tokens=ids))
                except PeerMissing as failed:
                    self.rows.notes.append(str(failed))
            found["ours"] = max(found["ours"], length / self.ours.state(ids)[1])
        self._compare(f"prefill, {length} tokens", found["ours"], peers, 2.5)

    def resume(self, length: int) -> None:
        """A parked conversation's next token, against reading it all again."""
        ids = prompt(length)
        state, again = self.ours.state(ids)
        parked = state.to_bytes(precision="bfloat16")
        resumed = 1 / best(8, {"rate": lambda: 1 / self.ours.resume(parked)})["rate"]
        again = min(again, self.ours.state(ids)[1])
        self.rows.add(
            f"reading {length} tokens again over resuming them parked", again / resumed, "×", goal=50.0 if self.size.goals else None, at_least=True,
            note=f"{1000 * again:.0f} ms, {1000 * resumed:.1f} ms, {len(parked) / 1e6:.2f} MB",
        )  # fmt: skip

    def transformers(self, context: int) -> None:
        """The library most people would reach for first."""
        ids = prompt(context)
        state, _ = self.ours.state(ids)
        for dtype in (torch.float32, torch.bfloat16):
            peer = Transformers(THREADS, dtype)
            name = f"transformers {str(dtype).removeprefix('torch.')}"
            rate, cache = peer.read(ids)
            found = best(2, {"ours": lambda: self.ours.write([state], self.size.write), "peer": partial(peer.decode, cache, 32)})
            self._compare(f"decode, 1 conversation, {context} tokens of context", found["ours"], {name: found["peer"]}, None)
            self._compare(f"prefill, {context} tokens", context / self.ours.state(ids)[1], {name: rate}, None)

    def _compare(self, name: str, ours: float, peers: dict[str, float], goal: float | None) -> None:
        """A row for each peer; the goal is a ratio, and counts against the fastest."""
        self.rows.add(name, ours, "tokens/s")
        fastest = max(peers, key=peers.__getitem__, default=None)
        for peer, rate in peers.items():
            if rate:
                self.rows.add(
                    f"  over {peer}", ours / rate, "×", note=f"{rate:.0f} tokens/s",
                    goal=goal if self.size.goals and peer == fastest else None, at_least=True,
                )  # fmt: skip


def main() -> None:
    given = report.arguments(__doc__ or "").parse_args()
    rows = report.Report("RetNet on the processor")
    torch.set_num_threads(THREADS)
    comparison = Comparison(QUICK if given.quick else FULL, rows)
    try:
        comparison.run()
    finally:
        comparison.close()
    rows.finish(given)


if __name__ == "__main__":
    main()

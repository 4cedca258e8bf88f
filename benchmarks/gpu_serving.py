"""`python -m benchmarks.gpu_serving`: the shipped model on one GPU, in the engine, checked against fp32 on this machine's processor in the same run.

Loads the model in float32 on the CPU (the reference), in bfloat16 and in float32 on the GPU. Measures how far the GPU's numbers are from the
reference (reading in chunks, token by token, greedy answers, a state that moves between the two), whether a request's numbers
depend on its company, what memory it takes, and how many tokens a second it writes and reads: by whole passes of the model alone, and
through the engine, with requests that join and leave all the time. The figures are those of kernels started one by one, without CUDA graphs.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import _report as report
from benchmarks._agreement import agreeing, divergence, grounded, largest_difference, prose, same_best
from retnet_core import Engine, Model, Request, State, load_model
from retnet_core.lanes import Lanes
from retnet_core.model import Span

CHUNK = 1024
"""Ids that the engine reads in a step on a GPU."""
THREADS = len(os.sched_getaffinity(0))  # of the reference
AGAIN = 64  # tokens read after a state
ROUNDS = 4  # of timed passes; the best counts


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    text: int  # tokens read
    answers: int  # greedy ones
    answer: int  # their tokens
    crowd: int  # others beside a request
    writers: tuple[int, ...]
    passes: int  # of each round
    written: int  # tokens of each request that the engine runs for speed
    prefill: int


FULL = Size(512, 16, 48, 31, (1, 32, 256), 10, 64, 4096)
QUICK = Size(64, 2, 6, 3, (1, 4), 2, 4, 1024)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the model runs that is measured."""

    device: torch.device

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def allocated(self) -> int:
        return torch.cuda.memory_allocated() if self.device.type == "cuda" else 0


def loaded(precision: str, place: Place) -> tuple[Model, float]:
    """The model, and the seconds it took."""
    begun = time.perf_counter()
    model = load_model(precision=precision, device=place.device)
    place.wait()
    return model, time.perf_counter() - begun


def answers(model: Model, prompts: Sequence[Sequence[int]], *, slots: int, tokens: int) -> list[tuple[int, ...]]:
    """Greedy answers, `slots` at a time."""
    engine = Engine(model, slots=slots, prefill_chunk=CHUNK, queue_limit=len(prompts), threads=THREADS)
    handles = [engine.submit(Request(prompt, max_new_tokens=tokens, stop_ids=(), return_state=False)) for prompt in prompts]
    engine.start()
    try:
        return [tuple(handle.wait().ids) for handle in handles]
    finally:
        engine.close()


def first_logits(model: Model, prompts: Sequence[Sequence[int]], slots: int) -> Tensor:
    """Logits after each prompt, `[prompts, vocabulary]`."""
    engine = Engine(model, slots=slots, prefill_chunk=CHUNK, queue_limit=len(prompts), threads=THREADS)
    handles = [engine.submit(Request(prompt, want_logits=True, return_state=False)) for prompt in prompts]
    engine.start()
    try:
        rows = [handle.wait().logits for handle in handles]
    finally:
        engine.close()
    return torch.stack([row for row in rows if row is not None])


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reference makes of a text, of grounded prompts, and of the text's beginning after the whole of it."""

    model: Model
    text: list[int]
    prompts: list[list[int]]
    logits: Tensor
    state: State
    again: Tensor
    answers: list[tuple[int, ...]]

    @classmethod
    def of(cls, model: Model, size: Size) -> Expected:
        text, prompts = prose(model.tokenizer, size.text), grounded(model.tokenizer, size.answers)
        logits, state = model.read(text)
        again, _ = model.read(text[:AGAIN], state)
        return cls(model, text, prompts, logits, state, again, answers(model, prompts, slots=8, tokens=size.answer))


def agreement(rows: report.Report, name: str, model: Model, expected: Expected, size: Size) -> None:
    """Against the reference: a text read in chunks, its beginning token by token, greedy answers, and states that move."""
    text, beginning = expected.text, expected.text[: len(expected.text) // 4]
    logits, made = model.read(text)
    stepped, _ = model.read(beginning, chunk=1)
    # There and back: a state is a value of the host, whatever device made it.
    moved, _ = model.read(text[:AGAIN], State.from_bytes(expected.state.to_bytes(), model=model))
    back, _ = expected.model.read(text[:AGAIN], State.from_bytes(made.to_bytes(), model=expected.model))
    for what, reference, actual in (
        (f"{len(text)} tokens read in chunks", expected.logits, logits),
        (f"{len(beginning)} tokens read one by one", expected.logits[: len(beginning)], stepped),
        (f"{AGAIN} tokens after a state that the CPU made", expected.again, moved),
        (f"{AGAIN} tokens on the CPU after a state that this made", expected.again, back),
    ):
        best = 100 * same_best(reference, actual)
        note = f"same best token {best:.1f} %, largest difference of a logit {largest_difference(reference, actual):.1e}"
        rows.add(f"{name}: KL to fp32 on the CPU, {what}", 1000 * divergence(reference, actual), "millinats", note=note)
    alike(
        rows,
        f"{name}: greedy answers as the CPU's in fp32",
        expected.answers,
        answers(model, expected.prompts, slots=8, tokens=size.answer),
    )


def alike(rows: report.Report, name: str, one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> None:
    """How many greedy answers are the same."""
    whole, part = agreeing(one, other)
    rows.add(name, 100 * whole, "%", note=f"{len(one)} of {len(one[0])} tokens; {100 * part:.1f} % of tokens before they part")


def company(rows: report.Report, name: str, model: Model, prompts: Sequence[Sequence[int]], size: Size) -> None:
    """The same requests alone and among others."""
    crowd = grounded(model.tokenizer, len(prompts) + size.crowd)
    difference = largest_difference(first_logits(model, prompts, 1), first_logits(model, crowd, size.crowd + 1)[: len(prompts)])
    rows.add(
        f"{name}: largest difference of a logit, alone and among {size.crowd} others",
        1e6 * difference,
        "millionths of the largest",
    )
    single, together = (
        answers(model, prompts, slots=1, tokens=size.answer),
        answers(model, crowd, slots=size.crowd + 1, tokens=size.answer),
    )
    alike(rows, f"{name}: greedy answers the same alone and in company", single, together[: len(prompts)])


@torch.inference_mode()
def passes(rows: report.Report, model: Model, place: Place, writers: int, count: int) -> None:
    """Steps of the model alone, the choice on the device: what an engine could reach."""
    before = place.allocated()
    lanes = Lanes(model.config, writers, model.device)
    held = place.allocated() - before
    ids = torch.full((writers,), 300, device=model.device)
    best = math.inf
    for _ in range(ROUNDS):  # the first warms up
        place.wait()
        begun = time.perf_counter()
        for _ in range(count):
            ids = model.logits(model.forward(ids, lanes, writers, [])).argmax(-1)
        place.wait()
        best = min(best, time.perf_counter() - begun)
    step = best / count
    note = f"{1000 * step:.2f} ms a step" + (f"; {held / writers / 1e6:.2f} MB a conversation" if held else "")
    rows.add(f"passes alone, {writers} writing", writers / step, "tokens/s", note=note)


@torch.inference_mode()
def prefill(rows: report.Report, model: Model, place: Place, length: int) -> None:
    """One prompt in passes of `CHUNK` ids."""
    lanes, ids = Lanes(model.config, 1, model.device), torch.randint(300, 49000, (length,), device=model.device)
    best = math.inf
    for _ in range(ROUNDS - 1):
        place.wait()
        begun = time.perf_counter()
        for start in range(0, length, CHUNK):
            model.forward(ids[start : start + CHUNK], None, 0, [Span(lanes, 0, CHUNK)])
        place.wait()
        best = min(best, time.perf_counter() - begun)
    rows.add(f"reading {length} tokens, {CHUNK} a pass", length / best, "tokens/s")


def serving(rows: report.Report, model: Model, place: Place, writers: int, tokens: int) -> None:
    """The engine with `writers` slots and twice as many requests, every fourth of which is cancelled on the way: they join and leave all the time."""
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    engine = Engine(model, slots=writers, prefill_chunk=CHUNK, queue_limit=2 * writers)
    engine.start()
    begun = time.perf_counter()
    handles = [
        engine.submit(Request([300 + number], max_new_tokens=tokens + number % 7, stop_ids=(), return_state=False))
        for number in range(2 * writers)
    ]
    written = 0
    try:
        for number, handle in enumerate(handles):
            if number % 4 == 3:
                handle.cancel()
        for handle in handles:
            written += len(handle.wait().ids)
        taken = time.perf_counter() - begun
    finally:
        engine.close()
    peak = torch.cuda.max_memory_allocated() / 2**30 if place.device.type == "cuda" else 0.0
    rows.add(
        f"engine, {writers} slots, requests joining and leaving", written / taken, "tokens/s", note=f"{peak:.2f} GiB at the peak"
    )


def main() -> None:
    parser = report.arguments(__doc__ or "")
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cuda (where there is one), or cpu to try the script",
    )
    given = parser.parse_args()
    place = Place(torch.device(given.device))
    size = QUICK if given.quick or place.device.type == "cpu" else FULL
    rows = report.Report("The shipped model on a GPU")
    name = torch.cuda.get_device_name() if place.device.type == "cuda" else "no GPU: only to try the script"
    rows.notes.append(f"{name}, torch {torch.__version__}")
    reference, taken = loaded("float32", Place(torch.device("cpu")))
    rows.add("loading float32 on the CPU, the reference", taken, "s", goal=3)
    before = place.allocated()
    model, taken = loaded("bfloat16", place)
    rows.add("loading bfloat16", taken, "s", goal=3, note="with the start of CUDA" if place.device.type == "cuda" else "")
    rows.add(
        "weights", sum(model.bytes_by_part().values()) / 1e6, "MB", note=f"{(place.allocated() - before) / 1e6:.0f} MB allocated"
    )
    expected = Expected.of(reference, size)
    agreement(rows, "bfloat16", model, expected, size)
    company(rows, "bfloat16", model, expected.prompts, size)
    exact, taken = loaded("float32", place)
    rows.add("loading float32", taken, "s", goal=3)
    agreement(rows, "float32", exact, expected, size)
    company(rows, "float32", exact, expected.prompts, size)
    del exact
    for writers in size.writers:
        passes(rows, model, place, writers, size.passes)
    prefill(rows, model, place, size.prefill)
    for writers in size.writers:
        serving(rows, model, place, writers, size.written)
    rows.finish(given)


if __name__ == "__main__":
    main()

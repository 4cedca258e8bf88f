"""Alone or among 31 others that read, write, come, go and are cancelled: the same numbers, on every way to compute them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from retnet_core import Engine, Handle, Model, Request, Result, Sampling, native
from tests.retnet_core.tiny import tiny_model

SECONDS = 60
VOCABULARY = 260


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute, and how far a logit may be off in company: `exact` ones not at all."""

    model: Model
    exact: bool


@pytest.fixture(scope="module", params=["kernels", "float32", "bfloat16", "int8"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "kernels":
            model = tiny_model(precision="int8", size=4)
            if model._network is None:
                pytest.skip("the kernels cannot be compiled here")
            yield Way(model, True)
        else:
            patch.setattr(native, "library", lambda: None)
            # torch adds in another order when there are more rows: measured 1e-6 of the largest value.
            yield Way(tiny_model(precision=request.param, size=4), False)


def drawn(length: int, seed: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def subjects(model: Model) -> list[Request]:
    """What is compared: prompts shorter and longer than a chunk, states given and taken on the way, greedy and drawn."""
    state = model.read(drawn(70, 1))[1]
    return [
        Request(drawn(90, 2), max_new_tokens=20, stop_ids=(), want_logits=True, state_at=(13, 64)),
        Request(drawn(3, 3), state, max_new_tokens=25, stop_ids=(), want_logits=True),
        Request(
            drawn(33, 4), max_new_tokens=15, stop_ids=(), want_logits=True, logprobs=3, sampling=Sampling(repetition_penalty=1.2)
        ),
        Request(drawn(130, 5), state, want_logits=True),
    ]


def others(seed: int) -> list[Request]:
    """28 more: some read long, some write long, some forbid tokens, some draw."""
    return [
        Request(
            drawn(1 + 37 * (number + seed) % 150, seed + number),
            max_new_tokens=number % 4 and 3 + 7 * (number % 5),
            stop_ids=(),
            sampling=Sampling(temperature=number % 3 / 2, seed=number, logit_bias={number: -5.0}, frequency_penalty=number % 2),
            group=str(number % 5),
            priority=number % 2,
            return_state=number % 2 == 0,
        )
        for number in range(28)
    ]


def assert_same(result: Result, alone: Result, exact: bool) -> None:
    assert result.ids == alone.ids
    assert result.logits is not None and alone.logits is not None
    assert result.state is not None and alone.state is not None
    pairs = [
        (result.logits, alone.logits),
        (result.state.retention, alone.state.retention),
        (result.state.window, alone.state.window),
    ]
    pairs += [(result.states[place].retention, alone.states[place].retention) for place in alone.states]
    for ours, theirs in pairs:
        if exact:
            assert torch.equal(ours, theirs)
        else:
            assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp_min(1)


def cancel_some(handles: list[Handle]) -> None:
    """Every third, one after the other, while all are on their way."""
    for handle in handles[::3]:
        time.sleep(0.002)
        handle.cancel()


@pytest.mark.parametrize("slots", [32, 5])
def test_the_same_in_a_changing_crowd(way: Way, slots: int) -> None:
    requests = subjects(way.model)
    alone_engine = Engine(way.model, slots=1, threads=1)
    alone_engine.start()
    alone = [alone_engine.submit(request).wait(SECONDS) for request in requests]
    alone_engine.close()
    crowd = Engine(way.model, slots=slots, threads=1)
    crowd.start()
    try:
        for seed in (0, 100):
            handles, ours = [], []
            for number, request in enumerate(others(seed)):
                handles.append(crowd.submit(request))
                if number % 9 == 4:
                    ours.append(crowd.submit(requests[len(ours)]))
            ours += [crowd.submit(request) for request in requests[len(ours) :]]
            canceller = threading.Thread(target=cancel_some, args=(handles,))
            canceller.start()
            for handle, expected in zip(ours, alone, strict=True):
                assert_same(handle.wait(SECONDS), expected, way.exact)
            canceller.join()
            assert {handle.wait(SECONDS).finish for handle in handles} <= {"length", "cancelled"}
    finally:
        crowd.close()

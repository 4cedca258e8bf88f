"""What cannot be done is refused by name, with the value and what was expected; and one bad request never harms those beside it."""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

import retnet_core
from retnet_core import (
    EmptyPrompt,
    Engine,
    Model,
    NotFinite,
    NothingAllowed,
    Request,
    RequestError,
    Result,
    Sampling,
    State,
    StateMismatch,
    StateOutOfRange,
    TooLarge,
    UnknownToken,
    native,
)
from retnet_core.engine import machine_memory
from retnet_core.state import LARGEST, bytes_of
from tests.retnet_core.tiny import tiny_model

MODEL = tiny_model()
VOCABULARY = MODEL.config.vocabulary
SECONDS = 60
POISON = 7
"""The id whose embedding is NaN."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(MODEL, slots=4, prefill_chunk=16, threads=1, memory_limit=100 * bytes_of(MODEL.config))
    engine.start()
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (Request([3, VOCABULARY]), UnknownToken, rf"id {VOCABULARY} at place 1 .* between 0 and {VOCABULARY - 1}"),
        (Request([3, 4, -1]), UnknownToken, "id -1 at place 2"),
        (Request([3, 1.5]), UnknownToken, "id 1.5 at place 1"),  # pyright: ignore
        (Request([None]), UnknownToken, "id None at place 0"),  # pyright: ignore
        (Request([], max_new_tokens=1), EmptyPrompt, "at least one"),
        (Request([], want_logits=True), EmptyPrompt, "at least one"),
        (Request([1], max_new_tokens=-1), RequestError, "max_new_tokens .* 0 or more, not -1"),
        (Request([1], max_new_tokens=2.5), RequestError, "max_new_tokens .* not 2.5"),  # pyright: ignore
        (Request([1], logprobs=-1), RequestError, "logprobs .* not -1"),
        (Request([1], logprobs=VOCABULARY + 1), RequestError, f"logprobs .* {VOCABULARY}"),
        (Request([1], priority="high"), RequestError, "priority .* 'high'"),  # pyright: ignore
        (Request([1], group=["a"]), RequestError, r"group .*\['a'\]"),  # pyright: ignore
        (Request([1], state_at=(2,)), RequestError, "state_at .* 0 to 1, not 2"),
        (Request([1], state_at=(0.5,)), RequestError, "state_at .* not 0.5"),  # pyright: ignore
        (Request([1], stop_strings=("",)), RequestError, "stop string cannot be empty"),
        (Request([1], stop_strings="stop"), RequestError, "stop_strings .* 'stop'"),  # pyright: ignore
        (Request([1], sampling=Sampling(logit_bias={VOCABULARY: 1.0})), UnknownToken, f"logit_bias .* not {VOCABULARY}"),
    ],
)
def test_a_request_that_cannot_run_is_refused_at_once_and_by_name(
    engine: Engine, wrong: Request, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        engine.submit(wrong)
    assert issubclass(error, ValueError)


def test_ids_may_be_any_whole_numbers(engine: Engine) -> None:
    expected = engine.submit(Request([1, 2, 3], max_new_tokens=4, stop_ids=())).wait(SECONDS)
    for ids in (array.array("i", [1, 2, 3]), torch.tensor([1, 2, 3]), (True, 2, 3)):
        assert engine.submit(Request(ids, max_new_tokens=4, stop_ids=())).wait(SECONDS).ids == expected.ids  # type: ignore[arg-type]


def test_a_part_without_ids_is_refused() -> None:
    with pytest.raises(EmptyPrompt, match="part 1 of 3"):
        Request.of_parts([[1], [], [2]])


def test_every_named_error_is_exported_and_says_what_it_means() -> None:
    names = [
        "CheckpointError EmptyPrompt EngineClosed NotFinite NothingAllowed Overloaded RequestError RetentionError",
        "SamplingError StateMismatch StateOutOfRange TooLarge UnknownToken",
    ]
    for name in " ".join(names).split():
        error = getattr(retnet_core, name)
        assert name in retnet_core.__all__ and issubclass(error, Exception) and error.__doc__


def changed(state: State, name: str, place: tuple[int, ...], value: float) -> State:
    values = getattr(state, name).clone()
    values[place] = value
    return replace(state, **{name: values})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e13, -3e38])
@pytest.mark.parametrize(
    ("name", "place", "says"),
    [
        ("retention", (1, 0, 3, 5), r"retention in layer 1, head 0 is .* at \[3, 5\]"),
        ("window", (0, 2, 32 + 16 + 4), "window in layer 0 is .* in the k of head 1, 3 of 3"),
    ],
)
def test_a_state_that_is_no_state_is_refused_with_its_layer_and_head(
    engine: Engine, value: float, name: str, place: tuple[int, ...], says: str
) -> None:
    state = changed(MODEL.read([1, 2, 3])[1], name, place, value)
    with pytest.raises(StateOutOfRange, match=says):
        engine.submit(Request([1], state))
    # Written by whoever holds it, with a right checksum: still no state.
    with pytest.raises(StateMismatch, match=says):
        State.from_bytes(state.to_bytes(), model=MODEL)


def test_a_state_of_the_largest_values_still_gives_numbers(engine: Engine) -> None:
    state = MODEL.read([1, 2, 3])[1]
    state = replace(state, retention=state.retention.sign() * LARGEST)
    result = engine.submit(Request([1, 2, 3], state, max_new_tokens=5, stop_ids=(), want_logits=True)).wait(SECONDS)
    assert result.logits is not None and result.logits.isfinite().all() and len(result.ids) == 5


def test_a_state_of_another_shape_type_or_model_is_refused(engine: Engine) -> None:
    state = MODEL.read([1])[1]
    for wrong, says in (
        (
            replace(state, retention=state.retention[:1]),
            r"retention is torch.float32 of \(1, 2, 16, 16\); expected .*\(2, 2, 16, 16\)",
        ),
        (replace(state, window=state.window.double()), "window is torch.float64"),
        (replace(state, tokens=-1), "-1 tokens"),
        (tiny_model(1).new_state(), "belongs to the model 'tiny-1-2', and here runs 'tiny-0-2'"),
    ):
        with pytest.raises(StateMismatch, match=says):
            engine.submit(Request([1], wrong))


def test_a_request_larger_than_memory_is_refused_with_the_bytes(engine: Engine) -> None:
    size = bytes_of(MODEL.config)
    assert size == MODEL.new_state().nbytes
    ids = [1] * 300
    fits = Request(ids, state_at=tuple(range(90)), return_state=False)
    assert len(engine.submit(fits).wait(SECONDS).states) == 90
    # Its own memory, 99 states on the way, the last one, 300 ids and the logits.
    large = Request(ids, state_at=tuple(range(99)), want_logits=True)
    needed = 101 * size + 8 * 300 + 4 * VOCABULARY
    with pytest.raises(TooLarge, match=f"{needed:,} bytes .* memory_limit is {100 * size:,}"):
        engine.submit(large)
    assert engine.submit(Request([1], max_new_tokens=1, stop_ids=())).wait(SECONDS).finish == "length"


def test_requests_that_fit_alone_but_not_together_take_turns() -> None:
    engine = Engine(MODEL, slots=4, threads=1, memory_limit=12 * bytes_of(MODEL.config))
    handles = [engine.submit(Request([1] * 20, state_at=tuple(range(9)), group=str(number))) for number in range(6)]
    engine.start()
    try:
        assert all(len(handle.wait(SECONDS).states) == 9 for handle in handles)
    finally:
        engine.close()


def test_the_memory_of_the_machine_is_known() -> None:
    assert 1 << 28 < machine_memory() < 1 << 50
    assert Engine(MODEL).memory_limit == machine_memory() // 2


@pytest.mark.parametrize("sizes", [{"slots": 0}, {"prefill_chunk": 0}, {"queue_limit": -1}, {"threads": 0}, {"memory_limit": 0}])
def test_an_engine_of_impossible_size_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Engine(MODEL, **sizes)


def good_requests() -> list[Request]:
    return [
        Request(
            [(3 * number + place) % 250 + 8 for place in range(5 + 9 * number)], max_new_tokens=12, stop_ids=(), want_logits=True
        )
        for number in range(4)
    ]


def run_together(model: Model, bad: list[Request]) -> tuple[list[Result], list[Exception]]:
    """The good ones' results beside bad ones, and what the bad ones failed with."""
    engine = Engine(model, slots=16, threads=1)
    good = [engine.submit(request) for request in good_requests()]
    failing = [engine.submit(request) for request in bad]
    engine.start()
    errors: list[Exception] = []
    try:
        results = [handle.wait(SECONDS) for handle in good]
        for handle in failing:
            with pytest.raises(Exception) as caught:
                handle.wait(SECONDS)
            errors.append(caught.value)
        # And the engine goes on.
        assert engine.submit(good_requests()[0]).wait(SECONDS).ids == results[0].ids
    finally:
        engine.close()
    return results, errors


BAD: list[tuple[Callable[[], Request], type[Exception], str]] = [
    (lambda: Request([9, POISON, 9], max_new_tokens=9), NotFinite, "logit of token 0 is nan"),
    (lambda: Request([9, POISON], want_logits=True), NotFinite, "logit of token 0 is nan"),
    (lambda: Request([POISON, *[9] * 200]), StateOutOfRange, "after 201 tokens the state's retention in layer 0, head 0 is nan"),
    (lambda: Request([9, POISON, *[9] * 200], state_at=(5, 150)), StateOutOfRange, "after 5 tokens"),
    (
        lambda: Request([9, 8], max_new_tokens=9, sampling=Sampling(logit_bias=dict.fromkeys(range(272), -math.inf))),
        NothingAllowed,
        "forbids all",
    ),
    (
        # It writes the poison itself, in the company of writers.
        lambda: Request([9], max_new_tokens=9, stop_ids=(), sampling=Sampling(logit_bias={POISON: 1e30})),
        NotFinite,
        "nan",
    ),
]


@pytest.mark.parametrize("precision", ["kernels", "int8", "float32", "bfloat16"])
def test_what_is_wrong_with_one_request_changes_nothing_for_others(precision: str) -> None:
    """Not a bit of the logits, ids and states of those that run in the same passes."""
    with pytest.MonkeyPatch.context() as patch:
        if precision != "kernels":
            patch.setattr(native, "library", lambda: None)
        model = tiny_model(precision="int8" if precision == "kernels" else precision, size=4, poison=POISON)
        if precision == "kernels" and model._network is None:
            pytest.skip("the kernels cannot be compiled here")
        # Beside healthy requests of the same lengths, because torch's products may depend on how many rows there are.
        healthy = [
            replace(request(), ids=[9] * len(request().ids), sampling=Sampling(), want_logits=True) for request, _, _ in BAD
        ]
        engine = Engine(model, slots=16, threads=1)
        handles = [engine.submit(request) for request in [*good_requests(), *healthy]]
        engine.start()
        expected = [handle.wait(SECONDS) for handle in handles][: len(good_requests())]
        engine.close()
        results, errors = run_together(model, [request() for request, _, _ in BAD])
    for error, (_, kind, says) in zip(errors, BAD, strict=True):
        assert isinstance(error, kind) and says in str(error)
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.ids == theirs.ids
        assert ours.logits is not None and theirs.logits is not None and ours.state is not None and theirs.state is not None
        pairs = [(ours.logits, theirs.logits), (ours.state.retention, theirs.state.retention)]
        for mine, wanted in pairs:
            if precision == "kernels":
                assert torch.equal(mine, wanted)
            else:
                assert (mine - wanted).abs().max() <= 1e-4 * wanted.abs().max().clamp_min(1)

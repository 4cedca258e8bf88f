"""States on the way: asked for by place, the same as stopping there, and whoever goes on from one reads only what is new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retnet_core import Engine, Request, State
from tests.retnet_core.tiny import Braked, tiny_model

MODEL = tiny_model()
VOCABULARY = MODEL.config.vocabulary
CHUNK = 16
SECONDS = 60
ids_of = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(MODEL, slots=4, prefill_chunk=CHUNK, threads=1)
    engine.start()
    yield engine
    engine.close()


def assert_identical(ours: State | None, theirs: State | None) -> None:
    assert ours is not None and theirs is not None
    assert ours.to_bytes() == theirs.to_bytes()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(ids_of, min_size=1, max_size=4))
def test_the_states_of_one_request_are_those_of_stopping_there_bit_for_bit(engine: Engine, parts: list[list[int]]) -> None:
    """After the persona, after the first turn, after the second …: as one request each, going on from the state before."""
    whole = engine.submit(Request.of_parts(parts, max_new_tokens=5, stop_ids=())).wait(SECONDS)
    state = None
    for part, on_the_way in zip(parts, whole.states_in_order, strict=True):
        state = engine.submit(Request(part, state)).wait(SECONDS).state
        assert_identical(on_the_way, state)
    assert whole.prompt_tokens == sum(map(len, parts))
    # And the answer is what it would be from there.
    last = engine.submit(Request(parts[-1], whole.states_in_order[-2] if len(parts) > 1 else None, max_new_tokens=5, stop_ids=()))
    assert last.wait(SECONDS).ids == whole.ids
    assert_identical(last.wait(SECONDS).state, whole.state)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=ids_of, data=st.data())
def test_the_first_place_is_where_a_shorter_request_would_have_stopped(
    engine: Engine, ids: list[int], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(ids)))
    on_the_way = engine.submit(Request(ids, state_at=(place,))).wait(SECONDS).states[place]
    if place:
        assert_identical(on_the_way, engine.submit(Request(ids[:place])).wait(SECONDS).state)
    else:
        assert_identical(on_the_way, MODEL.new_state())


@pytest.mark.parametrize("place", [CHUNK, 2 * CHUNK])
def test_a_place_between_chunks_changes_nothing_at_all(engine: Engine, place: int) -> None:
    ids = torch.randint(0, VOCABULARY, (50,), generator=torch.Generator().manual_seed(2)).tolist()
    plain = engine.submit(Request(ids, max_new_tokens=6, stop_ids=())).wait(SECONDS)
    asked = engine.submit(Request(ids, max_new_tokens=6, stop_ids=(), state_at=(place,))).wait(SECONDS)
    assert asked.ids == plain.ids
    assert_identical(asked.state, plain.state)


def test_the_states_are_given_whatever_ends_the_answer_and_not_beyond_what_was_read(engine: Engine) -> None:
    result = engine.submit(Request([1, 2, 3], state_at=(3, 1, 1), max_new_tokens=9, stop_ids=tuple(range(VOCABULARY)))).wait(
        SECONDS
    )
    assert result.finish == "stop" and not result.ids
    assert [(place, state.tokens) for place, state in sorted(result.states.items())] == [(1, 1), (3, 3)]
    assert_identical(result.states[3], result.state)


def test_a_cancelled_reader_gives_the_states_that_it_came_by() -> None:
    model = tiny_model(kind=Braked)
    assert isinstance(model, Braked)
    engine = Engine(model, prefill_chunk=CHUNK, threads=1)
    handle = engine.submit(Request([5] * 100, state_at=(4, 90)))
    engine.start()
    for _ in range(2):
        model.wait_until_asked()
        model.allow(1)
    model.wait_until_asked()
    handle.cancel()
    model.allow(100)
    result = handle.wait(SECONDS)
    engine.close()
    assert result.finish == "cancelled" and result.state is None and result.states.keys() == {4}
    assert_identical(result.states[4], MODEL.read([5] * 4)[1])


def test_a_conversation_of_20_turns_reads_nothing_twice() -> None:
    """Every id goes through the model once, counted at the model: prompts, answers, and none for the forks that share a prefix."""
    model = tiny_model(kind=Braked)
    assert isinstance(model, Braked)
    model.allow(10_000)
    engine = Engine(model, slots=4, prefill_chunk=CHUNK, threads=1)
    engine.start()
    generator = torch.Generator().manual_seed(3)
    persona = torch.randint(0, VOCABULARY, (40,), generator=generator).tolist()
    try:
        after_persona = engine.submit(Request(persona)).wait(SECONDS).state
        consumed, total = len(persona), 0
        for _ in range(2):  # two visitors, one persona
            state = after_persona
            for _ in range(20):
                turn = torch.randint(0, VOCABULARY, (17,), generator=generator).tolist()
                result = engine.submit(Request(turn, state, max_new_tokens=5, stop_ids=())).wait(SECONDS)
                assert result.prompt_tokens == 17
                state = result.state
                total += 17 + len(result.ids)
            assert state is not None and state.tokens == len(persona) + 20 * (17 + 5)
    finally:
        engine.close()
    assert sum(model.rows) == consumed + total

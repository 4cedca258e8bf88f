"""What a request gets: the same answer in any company, a state that has consumed exactly what it says, stops, and clear refusals."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retnet_core import Engine, EngineClosed, Model, Request, Result, Sampling, State, Token
from retnet_core.model import Span
from retnet_core.sequence import StopStrings
from tests.retnet_core.tiny import assert_close, grounded_prompt, tiny_model

MODEL = tiny_model()
VOCABULARY = MODEL.config.vocabulary
SECONDS = 60
ids_of = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40)
# Letters only, so that an answer is text whose every token is a character.
LETTERS = Sampling(
    temperature=1.0,
    seed=11,
    logit_bias={token: -math.inf for token in range(VOCABULARY) if not MODEL.tokenizer.token_bytes(token).isalpha()},
)
Engines = Callable[..., Engine]


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    made: list[Engine] = []

    def make(model: Model = MODEL, **options: int) -> Engine:
        engine = Engine(model, **{"threads": 1, **options})
        made.append(engine)
        engine.start()
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def engine(engines: Engines) -> Engine:
    return engines(slots=4, prefill_chunk=16)


def assert_consumed(state: State | None, ids: list[int], after: State | None = None) -> None:
    """The state has read exactly these ids after that state."""
    assert state is not None
    expected = MODEL.read(ids, after)[1]
    assert state.tokens == expected.tokens
    assert_close(state.retention, expected.retention, 1e-4)
    assert_close(state.window, expected.window, 1e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=ids_of,
    earlier=st.lists(st.integers(0, VOCABULARY - 1), max_size=20),
    limit=st.integers(0, 12),
    stops=st.sets(st.integers(0, VOCABULARY - 1), max_size=60),
)
def test_the_state_has_consumed_the_prompt_and_the_emitted_ids(
    engine: Engine, ids: list[int], earlier: list[int], limit: int, stops: set[int]
) -> None:
    start = MODEL.read(earlier)[1]
    result = engine.submit(
        Request(
            ids,
            state=start,
            max_new_tokens=limit,
            stop_ids=tuple(stops),
            want_logits=True,
            sampling=Sampling(temperature=2.0, seed=5),
        )
    ).wait(SECONDS)
    assert_consumed(result.state, [*ids, *result.ids], start)
    assert not stops & set(result.ids)
    assert len(result.ids) <= limit
    assert result.finish == ("length" if len(result.ids) == limit else "stop")
    assert result.prompt_tokens == len(ids)
    assert result.logits is not None
    assert_close(result.logits, MODEL.read(ids, start)[0][-1], 1e-4)


def test_greedy_ids_are_the_models_most_probable_ones(engine: Engine) -> None:
    prompt = list(b"what is the")
    result = engine.submit(Request(prompt, max_new_tokens=10, stop_ids=())).wait(SECONDS)
    logits = MODEL.read([*prompt, *result.ids])[0]
    assert list(result.ids) == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


def test_a_result_without_state_ends_with_its_last_token(engine: Engine) -> None:
    result = engine.submit(Request([1, 2], max_new_tokens=5, stop_ids=(), return_state=False)).wait(SECONDS)
    assert result.state is None and len(result.ids) == 5


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=ids_of, data=st.data())
def test_states_on_the_way_are_those_after_so_many_ids(engine: Engine, ids: list[int], data: st.DataObject) -> None:
    places = tuple(data.draw(st.sets(st.integers(0, len(ids)), max_size=4)))
    result = engine.submit(Request(ids, state_at=places, max_new_tokens=2, stop_ids=())).wait(SECONDS)
    assert result.states.keys() == set(places)
    for place, state in result.states.items():
        assert_consumed(state, ids[:place])


def test_the_same_request_gets_the_same_ids_alone_and_among_many(engines: Engines) -> None:
    generator = torch.Generator().manual_seed(9)
    requests = [
        Request(
            torch.randint(0, VOCABULARY, (length,), generator=generator).tolist(),
            max_new_tokens=6 + length % 7,
            stop_ids=(),
            group=str(length % 3),
        )
        for length in range(3, 60, 4)
    ]
    alone = engines(slots=1)
    expected = [alone.submit(request).wait(SECONDS) for request in requests]
    crowded = engines(slots=6, prefill_chunk=16)
    results = [handle.wait(SECONDS) for handle in [crowded.submit(request) for request in requests]]
    for result, wanted in zip(results, expected, strict=True):
        assert result.ids == wanted.ids
        assert result.state is not None and wanted.state is not None
        assert_close(result.state.retention, wanted.state.retention, 1e-4)


def test_the_shipped_model_answers_the_same_alone_and_among_many(shipped: Model, engines: Engines) -> None:
    tokenizer = shipped.tokenizer
    passages = [
        ("Fees", "A berth costs 40 euros a night. Electricity is included."),
        ("Office", "The harbour office opens at 8 am."),
    ]
    prompts = [
        tokenizer.encode(grounded_prompt("What does a berth cost?", passages) + "1]"),
        tokenizer.encode(grounded_prompt("When does the office open?", passages) + "2]"),
    ]
    engine = engines(shipped, threads=2)
    requests = [Request(ids, max_new_tokens=8, sampling=Sampling(repetition_penalty=1.1), group=str(ids[-2])) for ids in prompts]
    alone = [engine.submit(request).wait(SECONDS) for request in requests]
    together = [handle.wait(SECONDS) for handle in [engine.submit(request) for request in requests]]
    assert [result.ids for result in together] == [result.ids for result in alone]
    assert "40 euros" in tokenizer.decode(alone[0].ids) and "8 am" in tokenizer.decode(alone[1].ids)


def test_forks_of_a_state_know_nothing_of_each_other(engine: Engine) -> None:
    state = engine.submit(Request(list(b"told once"))).wait(SECONDS).state
    assert state is not None
    before = state.to_bytes()
    handles = [engine.submit(Request([number], state=state, max_new_tokens=8, stop_ids=())) for number in (3, 4, 3)]
    first, other, again = (handle.wait(SECONDS) for handle in handles)
    assert first.ids == again.ids and first.ids != other.ids
    assert state.to_bytes() == before
    assert_consumed(first.state, [3, *first.ids], state)


def text_of(result: Result) -> str:
    return MODEL.tokenizer.decode(result.ids)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 24), length=st.integers(1, 5), second=st.integers(0, 24))
def test_a_stop_string_ends_the_answer_with_the_token_that_completes_it(
    engine: Engine, start: int, length: int, second: int
) -> None:
    """Also when it is spread over several tokens, and the first of several wins."""
    plain = Request(list(b"tell me"), max_new_tokens=30, stop_ids=(), sampling=LETTERS)
    whole = engine.submit(plain).wait(SECONDS)
    text = text_of(whole)
    stops = (text[start : start + length], text[second : second + 3])
    end = min(text.index(stop) + len(stop) for stop in stops)
    wanted = next(count for count in range(len(whole.ids) + 1) if len(MODEL.tokenizer.decode(whole.ids[:count])) >= end)
    result = engine.submit(Request(plain.ids, max_new_tokens=30, stop_ids=(), sampling=LETTERS, stop_strings=stops)).wait(SECONDS)
    assert result.ids == whole.ids[:wanted]
    assert result.finish == ("length" if wanted == 30 and not any(stop in text for stop in stops) else "stop")
    assert_consumed(result.state, [*plain.ids, *result.ids])


characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, max_size=30)


@given(text=texts, stops=st.lists(st.text(characters, min_size=1, max_size=4), min_size=1, max_size=4), data=st.data())
def test_a_stop_string_is_noticed_with_the_token_that_completes_it(text: str, stops: list[str], data: st.DataObject) -> None:
    """Of any Unicode, however it is cut into tokens: here a character is up to four of them, and stops begin and end inside the text."""
    if text:
        start = data.draw(st.integers(0, len(text) - 1))
        stops.append(text[start : data.draw(st.integers(start + 1, len(text)))])
    tokenizer = MODEL.tokenizer
    tokens = tokenizer.encode(text)
    watch = StopStrings(tuple(stops), tokenizer)
    noticed = next((count for count, token in enumerate(tokens, 1) if watch.completed_by(token)), None)
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert noticed is None
    else:
        # The first token with which the text is there in whole characters.
        whole = (tokenizer.decode(tokens[:count]) for count in range(len(tokens) + 1))
        assert noticed == next(count for count, part in enumerate(whole) if part.startswith(text[: min(ends)]))


def test_the_callers_list_may_change_after_it_is_submitted(engine: Engine) -> None:
    ids = list(range(30))
    handle = engine.submit(Request(ids, max_new_tokens=1, stop_ids=()))
    ids.clear()
    result = handle.wait(SECONDS)
    assert result.prompt_tokens == 30
    assert_consumed(result.state, [*range(30), *result.ids])


async def test_tokens_stream_as_they_are_chosen_and_may_be_read_twice(engine: Engine) -> None:
    handle = engine.submit(Request([1, 2, 3], max_new_tokens=9, stop_ids=(), logprobs=2))
    first, second = await asyncio.gather(*[_tokens(handle.__aiter__()) for _ in range(2)])
    result = await handle.result()
    assert [token.id for token in first] == list(result.ids) and first == second
    logprobs = MODEL.read([1, 2, 3, *result.ids])[0].log_softmax(-1)
    for place, token in enumerate(first):
        own = logprobs[2 + place]
        assert token.logprob == pytest.approx(float(own[token.id]), abs=1e-3)
        assert [value for _, value in token.top] == pytest.approx(own.topk(2).values.tolist(), abs=1e-3)


async def test_log_probabilities_come_on_request_only(engine: Engine) -> None:
    tokens = await _tokens(engine.submit(Request([1, 2, 3], max_new_tokens=3, stop_ids=())).__aiter__())
    assert [(token.logprob, token.top) for token in tokens] == [(None, ())] * 3


async def _tokens(stream: AsyncIterator[Token]) -> list[Token]:
    return [token async for token in stream]


def test_an_engine_that_breaks_says_so_to_everybody(engines: Engines) -> None:
    class Breaking(Model):
        def forward(self, ids: torch.Tensor, writing: object, writers: int, reading: list[Span]) -> torch.Tensor:  # type: ignore[override]
            raise MemoryError("no room for a step")

    broken = engines(tiny_model(kind=Breaking))
    with pytest.raises(MemoryError, match="no room"):
        broken.submit(Request([1], max_new_tokens=1, stop_ids=())).wait(SECONDS)
    with pytest.raises(EngineClosed):
        broken.submit(Request([1]))

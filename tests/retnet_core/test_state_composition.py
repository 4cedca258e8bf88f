"""Composition of states: exact where the same keys, values and decays are added; an approximation in deeper layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retnet_core import EmptyPrompt, Engine, Model, Request, StateMismatch
from retnet_core.composition import Segment, compose, join, read_segment, turned
from retnet_core.retention import retention_chunkwise
from tests.retnet_core.tiny import assert_close, tiny_model

ONE, DEEP = tiny_model(layers=1), tiny_model(layers=3)
VOCABULARY = ONE.config.vocabulary
BASE = 1e5
ids_of = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=90)


def keys_at(keys: Tensor, first: int) -> Tensor:
    """Keys `[…, length, dim]` turned by their positions, the first of which is `first`."""
    dim = keys.shape[-1]
    angle = (first + torch.arange(keys.shape[-2]))[:, None].double() * BASE ** (-torch.arange(0, dim, 2).double() / dim)
    pairs = torch.view_as_complex(keys.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(pairs).flatten(-2)


@settings(max_examples=30, deadline=None)
@given(before=st.integers(1, 200), after=st.integers(1, 100), seed=st.integers(0, 1000), slow=st.floats(0.001, 2))
def test_of_one_retention_everything_is_exact(before: int, after: int, seed: int, slow: float) -> None:
    """`S_AB = γ_B S_A + S_B`, the keys of B turned on by the length of A, to 1e-10 in fp64."""
    generator = torch.Generator().manual_seed(seed)
    length, dim = before + after, 16
    q, k, v = (torch.randn(1, 2, length, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    log_decay = -torch.rand(1, 2, length, generator=generator, dtype=torch.float64) * slow - 1e-4
    _, whole = retention_chunkwise(q, keys_at(k, 0), v, log_decay)
    a, b = slice(None, before), slice(before, None)
    _, first = retention_chunkwise(q[:, :, a], keys_at(k[:, :, a], 0), v[:, :, a], log_decay[..., a])
    _, second = retention_chunkwise(q[:, :, b], keys_at(k[:, :, b], 0), v[:, :, b], log_decay[..., b])
    decay = log_decay[..., b].sum(-1).exp()[..., None, None]
    assert_close(decay * first + turned(second, before, BASE), whole, 1e-10)


@settings(max_examples=25, deadline=None)
@given(first=ids_of, second=ids_of, opening=st.integers(3, 8), after=ids_of)
def test_of_a_network_with_one_layer_everything_is_exact(
    first: list[int], second: list[int], opening: int, after: list[int]
) -> None:
    """Convolution included, because the opening is truly read; and so is what is read next."""
    before = ONE.read(first)[1]
    composed = compose(before, read_segment(ONE, second, opening=opening), model=ONE)
    truly = ONE.read([*first, *second])[1]
    assert composed.tokens == truly.tokens
    assert_close(composed.retention, truly.retention, 1e-5)
    assert_close(composed.window, truly.window, 1e-5)
    assert_close(ONE.read(after, composed)[0], ONE.read(after, truly)[0], 1e-4)


@settings(max_examples=15, deadline=None)
@given(first=ids_of, second=ids_of)
def test_in_a_deep_network_the_first_layer_is_exact_and_the_deeper_ones_are_not(first: list[int], second: list[int]) -> None:
    second = [*second, *range(40, 60)]
    composed = compose(DEEP.read(first)[1], read_segment(DEEP, second), model=DEEP)
    truly = DEEP.read([*first, *second])[1]
    assert_close(composed.retention[0], truly.retention[0], 1e-5)
    assert_close(composed.window[0], truly.window[0], 1e-5)
    assert (composed.retention[1:] - truly.retention[1:]).abs().max() > 1e-4


def test_a_longer_opening_comes_nearer_and_the_whole_text_as_opening_is_reading_it() -> None:
    generator = torch.Generator().manual_seed(4)
    first, second = (torch.randint(0, VOCABULARY, (80,), generator=generator).tolist() for _ in range(2))
    before, truly = DEEP.read(first)[1], DEEP.read([*first, *second])[1]
    errors = []
    for opening in (0, 3, 40, 80):
        composed = compose(before, read_segment(DEEP, second, opening=opening), model=DEEP)
        errors.append(float((composed.retention - truly.retention).norm() / truly.retention.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[2] and errors[3] < 1e-5


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(ids_of, min_size=3, max_size=3), opening=st.sampled_from([0, 3]))
def test_segments_may_be_joined_first(texts: list[list[int]], opening: int) -> None:
    """Decays multiply, and it does not matter which two are put together first."""
    state = DEEP.read(texts[0])[1]
    middle, last = read_segment(DEEP, texts[1], opening=opening), read_segment(DEEP, texts[2], opening=0)
    one = compose(compose(state, middle, model=DEEP), last, model=DEEP)
    joined = join(middle, last, model=DEEP)
    other = compose(state, joined, model=DEEP)
    assert joined.added == middle.added + last.added and one.tokens == other.tokens
    assert_close(other.retention, one.retention, 1e-5)
    assert_close(other.window, one.window, 1e-6)
    assert torch.allclose(joined.log_decay, middle.log_decay + last.log_decay)


def test_a_segment_says_how_much_it_leaves_of_what_was_before() -> None:
    """Two states that differ, and then the same text: what is left of the difference is the decay, in the layer that sees tokens alone."""
    text = list(range(3, 40))
    states = [ONE.read([*text[:3], start, *text[:3]])[1] for start in (50, 90)]  # the convolution's reach is the same
    truly = [ONE.read(text, state)[1].retention for state in states]
    segment = read_segment(ONE, text, opening=0)
    assert segment.log_decay.shape == (1, 2) and (segment.log_decay < 0).all()
    left = segment.log_decay.exp()[..., None, None] * (states[0].retention - states[1].retention)
    assert_close(truly[0] - truly[1], left, 1e-5)


def test_what_does_not_belong_together_is_refused() -> None:
    segment = read_segment(ONE, [1, 2, 3, 4])
    with pytest.raises(StateMismatch, match="read both"):
        compose(DEEP.new_state(), segment, model=DEEP)
    with pytest.raises(StateMismatch, match="read both"):
        compose(DEEP.new_state(), segment, model=ONE)
    with pytest.raises(EmptyPrompt):
        read_segment(ONE, [])
    with pytest.raises(ValueError, match="opening of 3"):
        join(segment, segment, model=ONE)


@pytest.mark.parametrize("size", [1, 4])
def test_a_composed_state_is_a_state_like_any_other(size: int) -> None:
    """It can be parked and continued by the engine, and reading segments changed none of its parts."""
    model: Model = tiny_model(precision="int8" if size == 4 else "float32", size=size)
    before, segment = model.read([1, 2, 3])[1], read_segment(model, list(range(70)))
    kept = before.to_bytes(), segment.state.to_bytes()
    state = compose(before, segment, model=model)
    engine = Engine(model, threads=1)
    engine.start()
    try:
        result = engine.submit(Request([5], state, max_new_tokens=3, stop_ids=())).wait(30)
    finally:
        engine.close()
    assert len(result.ids) == 3 and result.prompt_tokens == 1
    assert result.state is not None and result.state.tokens == 3 + 70 + 1 + 3
    assert (before.to_bytes(), segment.state.to_bytes()) == kept
    assert isinstance(segment, Segment) and segment.opening == (0, 1, 2)

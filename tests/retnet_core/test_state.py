"""States: values of constant size that survive parking, and never become a wrong answer."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retnet_core import State, StateMismatch
from tests.retnet_core.tiny import assert_close, tiny_model

MODEL, OTHER = tiny_model(), tiny_model(1)
OWNER = {"conversation": "4711", "consumed": "ab" * 32}
PRECISIONS = ["float32", "bfloat16", "int8"]


def read(ids: list[int]) -> State:
    return MODEL.read(ids)[1]


STATE = read(list(b"a visitor asked something"))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.0), ("bfloat16", 2**-8), ("int8", 0.5 / 127)])
@settings(max_examples=10, deadline=None)
@given(ids=st.lists(st.integers(0, 200), max_size=40))
def test_a_parked_state_comes_back_as_precise_as_it_was_parked(precision: str, tolerance: float, ids: list[int]) -> None:
    state = read(ids)
    back = State.from_bytes(state.to_bytes(precision=precision, header=OWNER), model=MODEL, header=OWNER)
    assert back.tokens == state.tokens
    assert back.model_fingerprint == state.model_fingerprint and back.tokenizer_fingerprint == state.tokenizer_fingerprint
    for actual, expected in ((back.retention, state.retention), (back.window, state.window)):
        assert actual.dtype == torch.float32
        assert_close(actual, expected, tolerance * 1.01)


def test_fp32_bytes_are_exact() -> None:
    back = State.from_bytes(STATE.to_bytes(), model=MODEL)
    assert torch.equal(back.retention, STATE.retention) and torch.equal(back.window, STATE.window)


def test_int8_keeps_small_rows_beside_large_ones() -> None:
    """One scale for all would round the memory of quiet heads to nothing."""
    retention = STATE.retention.clone()
    retention[0] *= 1e-4
    state = State(retention, STATE.window, STATE.tokens, STATE.model_fingerprint, STATE.tokenizer_fingerprint)
    back = State.from_bytes(state.to_bytes(precision="int8"), model=MODEL)
    assert (back.retention[0] - retention[0]).abs().max() <= retention[0].abs().max() / 100


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_size_is_the_same_after_one_turn_and_after_many(precision: str) -> None:
    turn = list(b"one more turn of this conversation")
    state, sizes = None, set()
    for _ in range(30):
        state = MODEL.read(turn, state)[1]
        sizes.add(len(state.to_bytes(precision=precision, header=OWNER)))
    assert len(sizes) == 1
    assert sizes == {len(MODEL.new_state().to_bytes(precision=precision, header=OWNER))}
    assert state is not None and state.nbytes == MODEL.new_state().nbytes


def test_lower_precisions_take_less_room() -> None:
    sizes = [len(STATE.to_bytes(precision=precision)) for precision in PRECISIONS]
    assert sizes[0] > 1.8 * sizes[1] > 3 * sizes[2]
    with pytest.raises(ValueError, match="float32, bfloat16, int8"):
        STATE.to_bytes(precision="int4")


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_noticed(precision: str, data: st.DataObject) -> None:
    whole = STATE.to_bytes(precision=precision, header=OWNER)
    place = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(whole)
    damaged[place] ^= flip
    with pytest.raises(StateMismatch):
        State.from_bytes(bytes(damaged), model=MODEL, header=OWNER)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_or_lengthened_state_is_noticed(data: st.DataObject) -> None:
    whole = STATE.to_bytes(header=OWNER)
    cut = data.draw(
        st.one_of(st.integers(0, len(whole) - 1).map(lambda end: whole[:end]), st.binary(min_size=1).map(whole.__add__))
    )
    with pytest.raises(StateMismatch):
        State.from_bytes(cut, model=MODEL, header=OWNER)


@given(noise=st.binary(max_size=300))
def test_noise_is_no_state(noise: bytes) -> None:
    with pytest.raises(StateMismatch):
        State.from_bytes(noise, model=MODEL)


@settings(max_examples=40, deadline=None)
@given(noise=st.binary(max_size=120), header=st.binary(max_size=60))
def test_noise_under_a_right_checksum_is_no_state_either(noise: bytes, header: bytes) -> None:
    """What only a hostile writer makes: everything fits but the content."""
    body = b"RETNETST" + (1).to_bytes(2, "little") + len(header).to_bytes(4, "little") + header + noise
    with pytest.raises(StateMismatch):
        State.from_bytes(body + hashlib.sha256(body).digest(), model=MODEL)


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(StateMismatch, match="another model"):
        State.from_bytes(STATE.to_bytes(), model=OTHER)


def test_a_state_of_another_tokenizer_is_refused() -> None:
    foreign = State(STATE.retention, STATE.window, STATE.tokens, STATE.model_fingerprint, "other")
    with pytest.raises(StateMismatch, match="another tokenizer"):
        State.from_bytes(foreign.to_bytes(), model=MODEL)


@pytest.mark.parametrize(
    "header", [{}, {"conversation": "4712", "consumed": OWNER["consumed"]}, {"conversation": "4711"}, {**OWNER, "more": "1"}]
)
def test_a_state_of_another_owner_is_refused(header: dict[str, str]) -> None:
    with pytest.raises(StateMismatch, match="header"):
        State.from_bytes(STATE.to_bytes(header=OWNER), model=MODEL, header=header)


def test_a_state_with_the_payload_of_another_shape_is_refused() -> None:
    deeper = tiny_model(layers=3)
    state = deeper.new_state()
    claimed = State(state.retention, state.window, 0, MODEL.fingerprint, MODEL.tokenizer_fingerprint)
    with pytest.raises(StateMismatch, match="payload"):
        State.from_bytes(claimed.to_bytes(), model=MODEL)


def test_reading_on_leaves_the_state_itself_alone() -> None:
    before = STATE.to_bytes()
    first, second = MODEL.read([1, 2, 3], STATE), MODEL.read([1, 2, 3], STATE)
    assert torch.equal(first[0], second[0])
    assert STATE.to_bytes() == before
    assert not torch.equal(first[1].retention, STATE.retention)

"""The forward pass: one function however the ids are cut, and the shipped checkpoint in the format it was tuned on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retnet_core import CheckpointError, Model, load_model
from retnet_core.checkpoint import TiedLookup, pack_layer
from retnet_core.config import RetNetConfig
from retnet_core.delta import layer_shapes
from retnet_core.lanes import Lanes
from retnet_core.model import Span
from retnet_core.quantize import BFloat16Linear, Float32Linear, pack
from tests.retnet_core.checkpoints import CONFIG
from tests.retnet_core.tiny import assert_close, grounded_prompt, tiny_model

TINY = tiny_model()
TINY_STATE = tiny_model(1, layers=2).read([5, 6])[1]
ids_of = st.lists(st.integers(0, TINY.config.vocabulary - 1), min_size=1, max_size=90)

SHOP = [
    ("Delivery", "Orders placed before 2 pm are sent on the same day. Delivery within Norway takes three working days."),
    ("Returns", "You can return any item within 30 days. Write to returns@example.com and enclose the receipt."),
    ("Workshop", "The workshop repairs skis and bicycles on Tuesdays. Bring the key of your lock."),
]


@settings(max_examples=15, deadline=None)
@given(ids=ids_of, chunk=st.integers(1, 70))
def test_ids_read_in_chunks_give_what_ids_read_one_by_one_give(ids: list[int], chunk: int) -> None:
    logits, state = TINY.read(ids, chunk=chunk)
    expected, wanted = TINY.read(ids, chunk=1)
    assert_close(logits, expected, 1e-4)
    assert_close(state.retention, wanted.retention, 1e-4)
    assert_close(state.window, wanted.window, 1e-4)
    assert state.tokens == wanted.tokens == len(ids)


@settings(max_examples=15, deadline=None)
@given(ids=ids_of, data=st.data())
def test_reading_may_stop_and_go_on_anywhere(ids: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(ids)))
    logits, state = TINY.read(ids)
    first, between = TINY.read(ids[:place])
    second, final = TINY.read(ids[place:], between)
    assert_close(torch.cat((first, second)), logits, 1e-4)
    assert_close(final.retention, state.retention, 1e-4)
    assert between.tokens == place and final.tokens == len(ids)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pass_runs_wholly_on_the_device_of_the_weights(precision: str) -> None:
    """On torch's `meta` device, which has shapes but no values, and refuses to be mixed with the host as a GPU does. Counts stay on the host."""
    meta = torch.device("meta")
    layers = [
        pack_layer({name: -torch.rand(shape) for name, shape in layer_shapes(CONFIG).items()}, CONFIG, precision, device=meta)
        for _ in range(CONFIG.layers)
    ]
    head = pack(torch.rand(CONFIG.vocabulary, CONFIG.width, device=meta), precision)
    assert isinstance(head, Float32Linear | BFloat16Linear)
    norm = torch.ones(CONFIG.width, device=meta)
    model = Model(CONFIG, layers, TiedLookup(head.weight), norm, head, fingerprint="meta", precision=precision)
    assert model.device == meta and model.kernels == "torch"
    writing, reading = Lanes(CONFIG, 4, meta), Lanes(CONFIG, 1, meta)
    hidden = model.forward(torch.tensor([1, 2, *range(70)]), writing, 2, [Span(reading, 0, 70)])
    assert hidden.device == meta
    logits = model.logits(hidden)
    assert logits.device == meta and logits.dtype == torch.float32 and logits.shape == (72, CONFIG.vocabulary)
    assert writing.tokens.tolist() == [1, 1, 0, 0] and reading.tokens.tolist() == [70]
    reading.write(0, TINY_STATE)
    writing.copy(reading, 0, 3)
    assert writing.tokens.tolist()[3] == TINY_STATE.tokens == 2
    with pytest.raises(ValueError, match="'int8' is not available on meta; choose from float32, bfloat16"):
        pack(torch.ones(64, 64, device=meta), "int8")


def test_bfloat16_weights_stay_near_float32_ones() -> None:
    ids = list(range(3, 100))
    exact, near = (tiny_model(precision=precision).read(ids)[0].log_softmax(-1) for precision in ("float32", "bfloat16"))
    assert float((exact.exp() * (exact - near)).sum(-1).mean()) < 2e-3
    assert float((exact.argmax(-1) == near.argmax(-1)).float().mean()) > 0.9


def test_later_ids_do_not_change_earlier_logits() -> None:
    assert_close(TINY.read([5, 6, 7, 8])[0][:2], TINY.read([5, 6, 99, 3])[0][:2], 1e-6)


@pytest.mark.parametrize("gated", [True, False])
def test_the_decay_depends_on_the_input_only_when_gated(gated: bool) -> None:
    """What is left of the first token's memory, after tails of one length that differ beyond the convolution's reach."""
    model = tiny_model(3, layers=1, gated=gated)

    def left(tail: list[int]) -> torch.Tensor:
        states = [model.read([first, *tail])[1].retention[0] for first in (7, 8)]
        return states[0] - states[1]

    # The first tokens touch the three projections after them; what follows only decays.
    one, other = left([5, 5, 5, *[9] * 12]), left([5, 5, 5, *[40] * 12])
    assert torch.allclose(one, other, atol=1e-4) is not gated


def test_positions_far_out_turn_as_precisely_as_near_ones() -> None:
    """A conversation of a million tokens still rotates by relative distance."""
    lanes = Lanes(TINY.config, 1)
    lanes.tokens[0] = 1_000_000
    far = TINY.read([3, 4, 5, 6], TINY.state_of(lanes, 0))[0]
    assert_close(far, TINY.read([3, 4, 5, 6])[0], 1e-3)


def test_a_layer_that_does_not_fit_is_refused_by_name() -> None:
    config = RetNetConfig(layers=1, width=8, heads=1, head_dim=4, feed_forward=8, vocabulary=8)
    with pytest.raises(CheckpointError, match=r"retention_norm has the shape \(3,\) instead of \(8,\) in layer 0"):
        pack_layer(dict.fromkeys(("retention_norm", "projection"), torch.zeros(3)), config, "float32")
    with pytest.raises(CheckpointError, match=r"layer 7 lacks projection; expected a tensor of the shape \(16, 8\)"):
        pack_layer({"retention_norm": torch.zeros(8)}, config, "float32", number=7)


def test_an_unknown_precision_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="choose from float32"):
        load_model(precision="float8")


@pytest.mark.parametrize(
    ("question", "digit", "words"),
    [
        ("How long does delivery within Norway take?", "1", ["three"]),
        ("Can I return an item within 30 days?", "2", ["Yes", "30 days"]),
        ("On which day does the workshop repair bicycles?", "3", ["Tuesday"]),
    ],
)
def test_the_shipped_model_answers_from_the_right_passage(shipped: Model, question: str, digit: str, words: list[str]) -> None:
    tokenizer = shipped.tokenizer
    logits, state = shipped.read(tokenizer.encode(grounded_prompt(question, SHOP)))
    digits = {letter: float(logits[-1, tokenizer.token_id(letter)]) for letter in "0123"}
    assert max("0123", key=digits.__getitem__) == digit
    answer = []
    newest = tokenizer.encode(f"{digit}]")
    while len(answer) < 30:
        logits, state = shipped.read(newest, state)
        token = int(logits[-1].argmax())
        if token == tokenizer.end_id:
            break
        answer.append(token)
        newest = [token]
    else:
        pytest.fail("the answer does not end by itself")
    assert all(word in tokenizer.decode(answer) for word in words)


def test_the_shipped_model_reads_in_chunks_what_it_reads_step_by_step(shipped: Model) -> None:
    ids = shipped.tokenizer.encode(grounded_prompt("When is the workshop open?", SHOP[2:]))[:28]
    logits, state = shipped.read(ids, chunk=11)
    expected, wanted = shipped.read(ids, chunk=1)
    assert_close(logits, expected, 1e-4)
    assert_close(state.retention, wanted.retention, 1e-4)


def test_the_shipped_fingerprint_does_not_depend_on_the_precision(shipped: Model) -> None:
    """A state parked by a generator at one precision continues on another machine's."""
    assert len(shipped.fingerprint) == 64
    other = load_model(precision="bfloat16")
    assert (other.fingerprint, other.tokenizer_fingerprint) == (shipped.fingerprint, shipped.tokenizer_fingerprint)


def test_a_network_of_another_kind_is_refused_by_name() -> None:
    for option in ({"decay": "paper"}, {"conv_width": 0}):
        config = RetNetConfig(layers=1, width=32, heads=2, head_dim=16, feed_forward=64, vocabulary=40, **option)
        with pytest.raises(ValueError, match=next(iter(option))):
            Model(config, [], lambda ids: ids, torch.ones(32), lambda x: x, fingerprint="", precision="float32")

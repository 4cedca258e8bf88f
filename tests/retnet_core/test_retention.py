"""The three forms of retention compute one function: outputs, final states and gradients, against a naive double loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retnet_core.retention import (
    RetentionError,
    fixed_log_decay,
    gated_log_decay,
    recurrent_step_,
    retention_chunkwise,
    retention_normalised,
    retention_parallel,
    retention_recurrent,
)

Form = Callable[..., tuple[Tensor, Tensor]]
FORMS: dict[str, Form] = {
    "parallel": retention_parallel,
    "recurrent": retention_recurrent,
    "chunkwise, 1": partial(retention_chunkwise, chunk=1),
    "chunkwise, 3": partial(retention_chunkwise, chunk=3),
    "chunkwise, 16": partial(retention_chunkwise, chunk=16),
    "chunkwise, 64": retention_chunkwise,
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
LEAVES = ("q", "k", "v", "log_decay", "state")


def naive(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every pair of tokens on its own: token m reaches token n through the product of all decays after m."""
    batch, heads, length, key_dim = q.shape
    if log_decay.ndim == 1:
        log_decay = log_decay[None, :, None].expand(batch, heads, length)
    start = torch.zeros(batch, heads, key_dim, v.shape[-1], dtype=q.dtype) if state is None else state
    outputs = []
    for n in range(length):
        output = torch.einsum("bhk,bhkv->bhv", q[:, :, n], start * log_decay[:, :, : n + 1].sum(-1).exp()[..., None, None])
        for m in range(n + 1):
            reach = log_decay[:, :, m + 1 : n + 1].sum(-1).exp()
            output = output + ((q[:, :, n] * k[:, :, m]).sum(-1) * reach).unsqueeze(-1) * v[:, :, m]
        outputs.append(output)
    final = start * log_decay.sum(-1).exp()[..., None, None]
    for m in range(length):
        final = final + log_decay[:, :, m + 1 :].sum(-1).exp()[..., None, None] * k[:, :, m, :, None] * v[:, :, m, None, :]
    return torch.stack(outputs, 2), final


def inputs(seed: int, length: int, dtype: torch.dtype, *, gated: bool, with_state: bool, batch: int = 2) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    heads, key_dim, value_dim = 3, 4, 5

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    if gated:
        log_decay = gated_log_decay(2 * random(batch, heads, length), torch.linspace(-1, -6, heads, dtype=dtype)[:, None], 5.0)
    else:
        log_decay = fixed_log_decay(heads, dtype=dtype)
    qkv = [random(batch, heads, length, size) * size**-0.5 for size in (key_dim, key_dim, value_dim)]
    return [*qkv, log_decay, random(batch, heads, key_dim, value_dim) if with_state else None]


@st.composite
def sequences(draw: st.DrawFn) -> list[Tensor | None]:
    """q, k, v, log decay and state in fp64 of every kind that the theorem speaks of; 1 − γ spread evenly in its logarithm over 0.1 … 2⁻¹²."""
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    length, key_dim, value_dim = draw(st.integers(1, 37)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    kind = draw(st.sampled_from(["paper", "release", "fixed", "gated", "padded"]))
    shape = (batch, heads, length) if kind in ("gated", "padded") else (heads,)
    rates = torch.rand(*shape, generator=generator, dtype=torch.float64) * (math.log(2.0**-12) - math.log(0.1)) + math.log(0.1)
    log_decay = fixed_log_decay(heads, kind, dtype=torch.float64) if kind in ("paper", "release") else torch.log1p(-rates.exp())  # type: ignore[arg-type]
    q, k, v = (random(batch, heads, length, size) for size in (key_dim, key_dim, value_dim))
    if kind == "padded":
        # Anywhere, each row its own: at the left, at the right and between tokens.
        padding = torch.rand(batch, 1, length, generator=generator) < 0.3
        k = k.masked_fill(padding.unsqueeze(-1), 0.0)
        log_decay = log_decay.masked_fill(padding, 0.0)
    return [q, k, v, log_decay, random(batch, heads, key_dim, value_dim) if draw(st.booleans()) else None]


def differentiated(
    form: Form, given_: Sequence[Tensor | None], dtype: torch.dtype = torch.float64, *, magnitudes: bool = False
) -> dict[str, Tensor]:
    """Outputs, final state, and the gradients of one weighted sum of both, by name.

    `magnitudes`: of the absolute values of everything but the decays. All results are sums of products of these, so what comes out are the sums
    of the absolute values of their terms: what rounding errors are relative to, also where the terms themselves cancel.
    """
    parts = {name: part for name, part in zip(LEAVES, given_, strict=True) if part is not None}
    if magnitudes:
        parts = {name: part if name == "log_decay" else part.abs() for name, part in parts.items()}
    leaves = {name: part.to(dtype).requires_grad_() for name, part in parts.items()}
    output, state = form(*leaves.values(), *([] if "state" in leaves else [None]))
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64).to(dtype) for part in (output, state)]
    weights = [weight.abs() if magnitudes else weight for weight in weights]
    total = sum((part * weight).sum() for part, weight in zip((output, state), weights, strict=True))
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return {
        "output": output,
        "final state": state,
        **{f"gradient of {name}": grad for name, grad in zip(leaves, gradients, strict=True)},
    }


def close(left: Tensor, right: Tensor, scale: Tensor | None = None) -> bool:
    """Equal up to the tolerance of the left one's type, relative to the largest value of `scale` (None: of the right one)."""
    largest = (right if scale is None else scale).abs().max()
    return bool((left.double() - right.double()).abs().max() <= TOLERANCE[left.dtype] * largest)


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], scale: dict[str, Tensor] | None = None) -> None:
    assert actual.keys() == expected.keys()
    assert [name for name in expected if not close(actual[name], expected[name], (scale or expected)[name])] == []


@settings(max_examples=30, deadline=None)
@given(given_=sequences(), chunk=st.integers(1, 40))
def test_every_form_gives_outputs_states_and_gradients_of_the_double_loop(given_: list[Tensor | None], chunk: int) -> None:
    single = [None if part is None else part.float() for part in given_]
    scale = differentiated(naive, given_, magnitudes=True)
    for dtype, parts in ((torch.float64, given_), (torch.float32, single)):
        # fp32 is held against the loop in fp64 over the same rounded values: its own error, not the loop's.
        expected = differentiated(naive, parts)
        for form in (retention_parallel, retention_recurrent, partial(retention_chunkwise, chunk=chunk)):
            assert_same(differentiated(form, parts, dtype), expected, scale)


@settings(max_examples=15, deadline=None)
@given(given_=sequences())
def test_a_chunk_of_one_is_the_recurrent_form_and_a_chunk_of_everything_the_parallel_one(given_: list[Tensor | None]) -> None:
    length = given_[0].shape[2]
    assert_same(differentiated(partial(retention_chunkwise, chunk=1), given_), differentiated(retention_recurrent, given_))
    whole, parallel = (differentiated(form, given_) for form in (partial(retention_chunkwise, chunk=length), retention_parallel))
    assert all(torch.equal(whole[name], parallel[name]) for name in parallel)


@settings(max_examples=40, deadline=None)
@given(given_=sequences(), data=st.data())
def test_a_sequence_may_be_split_anywhere_and_each_part_read_in_any_form(
    given_: list[Tensor | None], data: st.DataObject
) -> None:
    length = given_[0].shape[2]
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=4))) if length > 1 else []
    spans = list(zip([0, *cuts], [*cuts, length], strict=True))
    names = [data.draw(st.sampled_from(sorted(FORMS))) for _ in spans]

    def in_parts(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        outputs = []
        for name, (start, end) in zip(names, spans, strict=True):
            decay = log_decay if log_decay.ndim == 1 else log_decay[:, :, start:end]
            output, state = FORMS[name](q[:, :, start:end], k[:, :, start:end], v[:, :, start:end], decay, state)
            outputs.append(output)
        return torch.cat(outputs, 2), state

    assert_same(differentiated(in_parts, given_), differentiated(retention_parallel, given_))


def normalised_by_hand(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """arXiv 2307.08621, section 2.1, word for word, for fixed decays: `[batch, heads, length, value_dim]`."""
    n = torch.arange(q.shape[2], dtype=q.dtype)
    decays = torch.exp(log_decay[:, None, None] * (n[:, None] - n)).tril()
    decays = decays / decays.sum(-1, keepdim=True).sqrt()
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 * decays
    return scores / scores.sum(-1, keepdim=True).abs().clamp_min(1) @ v


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.integers(2, 40), data=st.data())
def test_the_papers_normalisations_are_the_same_through_every_form_and_split(seed: int, length: int, data: st.DataObject) -> None:
    q, k, v, log_decay, _ = inputs(seed, length, torch.float64, gated=False, with_state=False)
    expected = normalised_by_hand(3 * q, k, v, log_decay)
    cut = data.draw(st.integers(1, length - 1))
    for form in FORMS.values():
        first, state = retention_normalised(form, 3 * q[:, :, :cut], k[:, :, :cut], v[:, :, :cut], log_decay)
        rest, _ = retention_normalised(form, 3 * q[:, :, cut:], k[:, :, cut:], v[:, :, cut:], log_decay, state)
        assert close(torch.cat((first, rest), 2), expected)


def group_normed(output: Tensor, eps: float) -> Tensor:
    return output * (output.square().mean(-1, keepdim=True) + eps).rsqrt()


def test_the_normalisations_cancel_in_a_group_norm_without_eps_and_are_a_larger_eps_in_one_with_it() -> None:
    given_ = inputs(11, 29, torch.float64, gated=True, with_state=False)
    given_[0] = 5 * given_[0]

    def normed(form: Form, eps: float) -> Form:
        return lambda *parts: (lambda output, state: (group_normed(output, eps), state[..., :4, :5]))(*form(*parts))

    normalised = partial(retention_normalised, retention_chunkwise)
    without, with_them = (differentiated(normed(form, 0.0), given_) for form in (retention_chunkwise, normalised))
    assert_same(with_them, without)
    plain, scaled = retention_chunkwise(*given_)[0], normalised(*given_)[0]
    factor = scaled[..., :1] / plain[..., :1]
    assert bool(((factor > 0) & (factor < 0.51)).all())
    assert close(group_normed(scaled, 1e-3), plain * (plain.square().mean(-1, keepdim=True) + 1e-3 / factor**2).rsqrt())
    assert not close(group_normed(scaled, 1e-3), group_normed(plain, 1e-3))


def test_a_padded_position_does_not_count_in_the_normalisations() -> None:
    q, k, v, log_decay, _ = inputs(12, 9, torch.float64, gated=True, with_state=False)
    padded = [torch.cat((torch.zeros_like(part[:, :, :4]), part), 2) for part in (q, k, v, log_decay)]
    for form in FORMS.values():
        output, state = retention_normalised(form, *padded)
        alone, alone_state = retention_normalised(form, q, k, v, log_decay)
        assert close(output[:, :, 4:], alone)
        assert close(state, alone_state)


BF16_ERRORS = {"output": 0.005, "final state": 0.003}
"""Largest root mean square error, of the fp64 result's own root mean square; `python -m benchmarks.retention_precision` prints the exact figures."""


@pytest.mark.parametrize("name", ["parallel", "recurrent", "chunkwise, 64"])
def test_bf16_stays_within_the_stated_error_because_the_state_is_not_kept_in_it(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 4, 256, 32, generator=generator, dtype=torch.float64) * 32**-0.5 for _ in range(3))
    log_decay = torch.log1p(-torch.exp2(torch.tensor([-4.0, -7.0, -9.0, -12.0], dtype=torch.float64)))
    expected = retention_recurrent(q, k, v, log_decay)
    output, state = FORMS[name](q.bfloat16(), k.bfloat16(), v.bfloat16(), log_decay.float())
    assert (output.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    for what, actual, right in zip(BF16_ERRORS, (output, state), expected, strict=True):
        assert (actual.double() - right).square().mean().sqrt() < BF16_ERRORS[what] * right.square().mean().sqrt()


@pytest.mark.parametrize("name", FORMS)
def test_a_padded_batch_gives_each_row_what_it_gives_alone(name: str) -> None:
    form = FORMS[name]
    lengths, longest = (5, 21, 13), 21
    rows = [inputs(seed, length, torch.float64, gated=True, with_state=True, batch=1) for seed, length in enumerate(lengths)]
    padded: list[Tensor] = []
    for part in range(4):
        batch = torch.zeros(len(rows), *rows[1][part].shape[1:], dtype=torch.float64)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            batch[place, :, :length] = row[part][0]
        padded.append(batch)
    output, state = form(*padded, torch.cat([row[4] for row in rows]))
    assert output.shape[2] == longest
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        alone, alone_state = form(*row)
        assert close(output[place, :, :length], alone[0])
        assert close(state[place], alone_state[0])


def test_the_step_in_place_is_one_token_of_the_recurrent_form() -> None:
    q, k, v, log_decay, state = inputs(3, 6, torch.float64, gated=True, with_state=True)
    expected, final = retention_recurrent(q, k, v, log_decay, state)
    for n in range(6):
        output = recurrent_step_(q[:, :, n], k[:, :, n], v[:, :, n], log_decay[:, :, n].exp(), state)
        assert close(output, expected[:, :, n])
    assert close(state, final)


def test_the_forms_leave_the_given_state_alone() -> None:
    for form in FORMS.values():
        given_ = inputs(4, 9, torch.float64, gated=True, with_state=True)
        before = given_[4].clone()
        form(*given_)
        assert torch.equal(given_[4], before)


def test_decays_are_the_published_ones_and_stay_inside_zero_and_one() -> None:
    assert fixed_log_decay(3, dtype=torch.float64).exp().tolist() == pytest.approx([1 - 2**-5, 1 - 2**-6, 1 - 2**-7], abs=1e-15)
    released = fixed_log_decay(5, "release", dtype=torch.float64).exp()
    assert released.tolist() == pytest.approx([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128, 1 - 1 / 256, 1 - 1 / 512], abs=1e-15)
    assert close(released, 1 - torch.linspace(math.log(1 / 32), math.log(1 / 512), 5, dtype=torch.float64).exp())
    with pytest.raises(RetentionError, match="'paper' or 'release', not 'xpos'"):
        fixed_log_decay(3, "xpos")  # type: ignore[arg-type]
    gate = torch.tensor([-1e9, -5.0, 0.0, 5.0, 1e9], dtype=torch.float64)
    decay = gated_log_decay(gate, torch.tensor(-6.0, dtype=torch.float64), 5.0).exp()
    assert bool(((decay > 0) & (decay < 1)).all())
    assert decay[0] == decay[1] and decay[3] == decay[4]


def test_gradients_stay_finite_where_decays_are_strong() -> None:
    q, k, v, _, state = inputs(5, 64, torch.float32, gated=True, with_state=True)
    log_decay = torch.full((2, 3, 64), -20.0, requires_grad=True)
    output, final = retention_chunkwise(q, k, v, log_decay, state)
    (output.sum() + final.sum()).backward()
    assert bool(torch.isfinite(log_decay.grad).all())


def misfits() -> dict[str, tuple[str, int, Tensor]]:
    """What does not fit: the words expected in the error, which argument it is, and its value."""
    q, k, v, log_decay, state = inputs(6, 7, torch.float64, gated=True, with_state=True)

    def changed(part: Tensor, place: tuple[int, ...], value: float) -> Tensor:
        part = part.clone()
        part[place] = value
        return part

    return {
        "q without heads": (r"q has the shape \(2, 7, 4\); expected \[batch, heads", 0, q[:, 0]),
        "no token": (r"length of at least 1", 0, q[:, :, :0]),
        "a shorter k": (r"k has the shape \(2, 3, 6, 4\); expected \(2, 3, 7, 4\)", 1, k[:, :, :6]),
        "v of other heads": (r"v has the shape \(2, 2, 7, 5\); expected \(2, 3, 7, 5\)", 2, v[:, :2]),
        "decays of other heads": (r"log_decay \(fixed\) has the shape \(2,\); expected \(3,\)", 3, fixed_log_decay(2)),
        "decays of other tokens": (r"log_decay \(gated\) has the shape \(2, 3, 6\)", 3, log_decay[..., :6]),
        "a state of another size": (r"state has the shape \(2, 3, 4, 4\); expected \(2, 3, 4, 5\)", 4, state[..., :4]),
        "a decay above 1": (r"log_decay\[1, 2, 3\] is 0.5; a decay lies in \(0, 1\)", 3, changed(log_decay, (1, 2, 3), 0.5)),
        "a decay of 0": (r"log_decay\[0, 0, 6\] is -inf; a decay lies", 3, changed(log_decay, (0, 0, 6), -math.inf)),
        "a decay that is no number": (r"log_decay\[0, 1, 0\] is nan; a decay lies", 3, changed(log_decay, (0, 1, 0), math.nan)),
        "a decay of 1 at a token": (
            r"log_decay\[0, 1, 0\] is 0; a decay of 1 is for padding",
            3,
            changed(log_decay, (0, 1, 0), 0.0),
        ),
        "a fixed decay of 1": (r"log_decay\[2\] is 0; a decay of 1", 3, changed(fixed_log_decay(3), (2,), 0.0)),
        "NaN in the state": (
            r"state\[1, 0, 3, 2\] is nan; every value of a state is finite",
            4,
            changed(state, (1, 0, 3, 2), math.nan),
        ),
        "infinity in the state": (r"state\[0, 0, 0, 0\] is -inf", 4, changed(state, (0, 0, 0, 0), -math.inf)),
    }


@pytest.mark.parametrize("what", misfits())
def test_what_does_not_fit_is_named_at_the_door_of_every_form(what: str) -> None:
    words, place, value = misfits()[what]
    parts = inputs(6, 7, torch.float64, gated=True, with_state=True)
    parts[place] = value
    for form in FORMS.values():
        with pytest.raises(RetentionError, match=words):
            form(*parts)


def test_nothing_is_looked_at_in_inference_mode_or_where_the_caller_has_checked() -> None:
    parts = inputs(6, 7, torch.float64, gated=True, with_state=True)
    parts[4][0] = math.nan
    for form in FORMS.values():
        assert form(*parts, checked=False)[0].isnan().any()
        with torch.inference_mode():
            assert form(*parts)[0].isnan().any()

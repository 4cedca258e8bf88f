"""The three forms of retention compute one function: outputs, final states and gradients, against a naive double loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retnet_core.retention import (
    fixed_log_decay,
    gated_log_decay,
    recurrent_step_,
    retention_chunkwise,
    retention_parallel,
    retention_recurrent,
)

FORMS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "parallel": retention_parallel,
    "recurrent": retention_recurrent,
    "chunkwise, 1": lambda *a: retention_chunkwise(*a, chunk=1),
    "chunkwise, 3": lambda *a: retention_chunkwise(*a, chunk=3),
    "chunkwise, 16": lambda *a: retention_chunkwise(*a, chunk=16),
    "chunkwise, 64": retention_chunkwise,
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


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


def close(left: Tensor, right: Tensor) -> bool:
    tolerance = TOLERANCE[left.dtype]
    return torch.allclose(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    length=st.integers(1, 41),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    gated=st.booleans(),
    with_state=st.booleans(),
)
def test_a_form_gives_the_outputs_and_the_state_of_the_double_loop(
    name: str, seed: int, length: int, dtype: torch.dtype, gated: bool, with_state: bool
) -> None:
    given_ = inputs(seed, length, dtype, gated=gated, with_state=with_state)
    output, state = FORMS[name](*given_)
    expected, expected_state = naive(*given_)  # type: ignore[arg-type]
    assert close(output, expected)
    assert close(state, expected_state)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("dtype", "length"), [(torch.float64, 23), (torch.float32, 17), (torch.float64, 1)])
def test_a_form_gives_the_gradients_of_the_double_loop(name: str, dtype: torch.dtype, length: int) -> None:
    gradients = []
    for form in (FORMS[name], naive):
        leaves = [
            part.clone().requires_grad_() for part in inputs(7, length, dtype, gated=True, with_state=True) if part is not None
        ]
        output, state = form(*leaves)
        weight = torch.linspace(-1, 1, output.numel(), dtype=dtype).view_as(output)
        ((output * weight).sum() + state.square().sum() / 10).backward()
        gradients.append([leaf.grad for leaf in leaves])
    assert all(close(left, right) for left, right in zip(*gradients, strict=True))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.integers(2, 40), data=st.data())
def test_a_sequence_may_be_split_anywhere_and_each_part_read_in_any_form(seed: int, length: int, data: st.DataObject) -> None:
    q, k, v, log_decay, state = inputs(seed, length, torch.float64, gated=True, with_state=True)
    whole, final = retention_parallel(q, k, v, log_decay, state)
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=4)))
    outputs = []
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        form = FORMS[data.draw(st.sampled_from(sorted(FORMS)))]
        output, state = form(q[:, :, start:end], k[:, :, start:end], v[:, :, start:end], log_decay[:, :, start:end], state)
        outputs.append(output)
    assert close(torch.cat(outputs, 2), whole)
    assert close(state, final)


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


def test_decays_are_the_papers_and_stay_inside_zero_and_one() -> None:
    assert fixed_log_decay(3, dtype=torch.float64).exp().tolist() == pytest.approx([1 - 2**-5, 1 - 2**-6, 1 - 2**-7], abs=1e-15)
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

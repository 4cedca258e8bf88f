"""Retention in its three forms, side by side.

All three compute the same function (arXiv 2307.08621, section 2.1 and 2.2; gated decay: arXiv 2405.05254, section 3.1) with
`S_n = γ_n S_{n−1} + K_nᵀ V_n` and `O_n = Q_n S_n`. The decay `γ_n` of token n applies to the memory before the token is added.

Shapes everywhere: `q`, `k`: `[batch, heads, length, key_dim]`; `v`: `[batch, heads, length, value_dim]`;
`log_decay` = log γ: `[batch, heads, length]` when gated, or `[heads]` when fixed; `state`: `[batch, heads, key_dim, value_dim]`
or None for an empty memory. Every form returns the outputs `[batch, heads, length, value_dim]` and the state after the last token.
A padded position is one with `k = 0` and `log_decay = 0`: it leaves the state untouched.

Precision: outputs come in the type of `v`; decays are cumulated and the state is kept in fp32 at least, because bf16 rounds `γ ≥ 1 − 2⁻⁹` to 1.
Measured against fp64 over 1,024 tokens with γ from 0.9 to 1 − 2⁻¹² (root mean squares; `python -m benchmarks.retention_precision`): fp32 is off
by 2e-7 to 2e-6; q, k and v in bf16 by 0.3 % in the outputs, 0.1 % in the state (0.4 and 0.24 % without an exact state to begin with) and 0.2 to
0.7 % in the gradients, in every form. With a state in bf16 too it would be 4, 6 and 3 to 9 %.
Every form raises `RetentionError` for values that do not fit (see `check`), unless `checked=False` or torch's inference mode is on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
"""Tokens a chunk: where the quadratic and the linear part of the chunkwise form cost about the same at head_dim 64."""


class RetentionError(ValueError):
    """A value given to retention does not fit: its shape, a decay outside (0, 1), or a state that is not finite."""


def fixed_log_decay(
    heads: int,
    schedule: Literal["paper", "release"] = "paper",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """log γ_h, one rate a head, `[heads]`, for one of the two published schedules.

    `paper`: `γ_h = 1 − 2^(−5−h)` (arXiv 2307.08621, equation 8; torchscale, flash-linear-attention). `release`: the authors' later
    `γ = 1 − exp(linspace(log 1/32, log 1/512, heads))`, which keeps the slowest head at 1 − 2⁻⁹ however many heads there are.
    """
    if schedule not in ("paper", "release"):
        raise RetentionError(f"the schedule of a fixed decay is 'paper' or 'release', not {schedule!r}")
    exponents = -5.0 - torch.arange(heads, dtype=torch.float64, device=device)
    if schedule == "release":
        exponents = torch.linspace(-5.0, -9.0, heads, dtype=torch.float64, device=device)
    return torch.log1p(-torch.exp2(exponents)).to(dtype)


def gated_log_decay(gate: Tensor, rate: Tensor, limit: float) -> Tensor:
    """log γ_{t,h} = −exp(rate_h + clamp(gate_{t,h})), always below 0, so that γ stays inside (0, 1).

    `gate`: the input's part `[..., heads]`; `rate`: the log of each head's resting log-decay, `[heads]`; `limit`: bound on the gate.
    """
    return -torch.exp(gate.clamp(-limit, limit) + rate)


def retention_parallel(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None, *, checked: bool = True
) -> tuple[Tensor, Tensor]:
    """Parallel form: `O = (Q Kᵀ ⊙ D) V + (c_n Q_n) S_0` with `D[n,m] = c_n / c_m` for n ≥ m, else 0, and `c_n = γ_1 … γ_n`.

    Quadratic in length. `S = c_N S_0 + Σ_m (c_N / c_m) K_mᵀ V_m`. Shapes as in the module's docstring.
    """
    if checked:
        check(q, k, v, log_decay, state)
    state = _given_or_empty(state, k, v)
    cumulated = _per_token(log_decay, q).cumsum(-1)
    within = ((q @ k.transpose(-1, -2)) * _decay_matrix(cumulated)).to(v.dtype) @ v
    before = (q * cumulated.exp().unsqueeze(-1)) @ state
    total = cumulated[..., -1:]
    remaining = (total - cumulated).exp().unsqueeze(-1)
    state = total.exp().unsqueeze(-1) * state + (k * remaining).transpose(-1, -2) @ v.to(state.dtype)
    return (within + before).to(v.dtype), state


def retention_recurrent(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None, *, checked: bool = True
) -> tuple[Tensor, Tensor]:
    """Recurrent form: `S_n = γ_n S_{n−1} + K_nᵀ V_n`, `O_n = Q_n S_n`, one token after the other.

    Linear in length, constant memory. Shapes as in the module's docstring.
    """
    if checked:
        check(q, k, v, log_decay, state)
    state = _given_or_empty(state, k, v)
    decay = _per_token(log_decay, q).exp()[..., None, None]
    q, k = q.to(state.dtype), k.to(state.dtype)
    outputs = []
    for n in range(q.shape[2]):
        state = decay[:, :, n] * state + k[:, :, n, :, None] * v[:, :, n, None, :]
        outputs.append((q[:, :, n, None, :] @ state).squeeze(-2))
    return torch.stack(outputs, 2).to(v.dtype), state


def retention_chunkwise(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None, *, chunk: int = CHUNK, checked: bool = True
) -> tuple[Tensor, Tensor]:
    """Chunkwise form: parallel within chunks of B tokens, all of them at once, recurrent from chunk to chunk.

    `S' = c_B S + Σ_j (c_B / c_j) K_jᵀ V_j`, `O = (Q Kᵀ ⊙ D) V + (c_j Q_j) S`, with `c_j` counted from the chunk's start
    (arXiv 2307.08621, equation 7). Linear in length. The last chunk may be shorter; chunks of 1 are the recurrent form, one chunk of
    the whole length is the parallel one. Shapes as in the module's docstring.
    """
    if checked:
        check(q, k, v, log_decay, state)
    length = q.shape[2]
    if length <= chunk:
        return retention_parallel(q, k, v, log_decay, state, checked=False)
    state = _given_or_empty(state, k, v)
    q, k, v, log_decay = (_in_chunks(part, chunk) for part in (q, k, v, _per_token(log_decay, q)))
    cumulated = log_decay.cumsum(-1)
    within = ((q @ k.transpose(-1, -2)) * _decay_matrix(cumulated)).to(v.dtype) @ v
    total = cumulated[..., -1:]
    remaining = (total - cumulated).exp().unsqueeze(-1)
    added = (k * remaining).transpose(-1, -2) @ v.to(state.dtype)
    states = []
    # Unbound, not indexed: the gradient of an index is a whole tensor of zeros, for every chunk.
    for kept_chunk, added_chunk in zip(total.exp().unsqueeze(-1).unbind(2), added.unbind(2), strict=True):
        states.append(state)
        state = kept_chunk * state + added_chunk
    before = (q * cumulated.exp().unsqueeze(-1)) @ torch.stack(states, 2)
    return (within + before).to(v.dtype).flatten(2, 3)[:, :, :length], state


def recurrent_step_(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    """One token of the recurrent form, for many conversations at once, *changing `state` in place*.

    `q`, `k`: `[batch, heads, key_dim]`; `v`: `[batch, heads, value_dim]`; `decay` = γ itself: `[batch, heads]`. Returns `[batch, heads, value_dim]`.
    """
    state.mul_(decay[..., None, None]).addcmul_(k.unsqueeze(-1), v.unsqueeze(-2))
    return torch.matmul(q.unsqueeze(-2), state).squeeze(-2)


def retention_normalised(
    form: Callable[..., tuple[Tensor, Tensor]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Any of the three forms with the paper's three normalisations (arXiv 2307.08621, section 2.2, "Retention Score Normalization").

    `Q Kᵀ` is scaled by `scale` (None: `1/√key_dim`), row n of D divided by `√d_n` with `d_n = Σ_m D[n,m]`, and row n of the scores
    `R = Q Kᵀ ⊙ D` divided by `max(|r_n|, 1)` with `r_n = Σ_m R[n,m]`. All three multiply the output of token n by one positive number
    `s_n = scale / (√d_n · max(|r_n|, 1))`. A norm of each head's output without eps is blind to that: outputs and gradients stay the
    same with and without. With eps, `O s / √(mean((O s)²) + eps) = O / √(mean(O²) + eps / s²)`: all that remains is a larger eps,
    which counts where `O s` is small (early in training), so a checkpoint trained with the normalisations wants them at that eps.

    `state`: `[batch, heads, key_dim + 1, value_dim + 1]`: S with `Σ_m D[N,m] k_m` as its last column, `d_N` in the corner, zeros
    beside it; so a sequence may be split anywhere. The state is not divided, and in bf16 `s_n` comes after the sums, not before them.
    """
    if state is None:
        state = k.new_zeros(*k.shape[:2], k.shape[-1] + 1, v.shape[-1] + 1, dtype=accumulation_type(k))
    # A padded position, known by its decay of 1, is no column of D.
    ones = (_per_token(log_decay, q) < 0).to(v.dtype).unsqueeze(-1)
    weighted, sums = form(
        q * (q.shape[-1] ** -0.5 if scale is None else scale), k, torch.cat((v, ones), -1), log_decay, state[..., :-1, :]
    )
    lengths, length = form(ones, ones, ones, log_decay, state[..., -1:, -1:])
    scores = weighted / lengths.clamp_min(1).sqrt()
    state = torch.cat((sums, F.pad(length, (v.shape[-1], 0))), -2)
    return scores[..., :-1] / scores[..., -1:].abs().clamp_min(1), state


def check(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> None:
    """Raise `RetentionError` for shapes that do not fit, decays outside (0, 1) (1 is for padding, where `k = 0`), and NaN or infinity in a state.

    Shapes are always compared. Values only on the CPU: elsewhere reading one back would make the device wait. Nothing at all in
    inference mode, where the engine runs on states that it made itself, and values never while a graph is compiled.
    """
    if torch.is_inference_mode_enabled():
        return
    if q.ndim != 4 or q.shape[2] < 1:
        raise RetentionError(f"q has the shape {tuple(q.shape)}; expected [batch, heads, length of at least 1, key_dim]")
    batch, heads, length, key_dim = q.shape
    value_dim = v.shape[-1] if v.ndim else 0
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
    expected["k"] = (k, (batch, heads, length, key_dim))
    expected["v"] = (v, (batch, heads, length, value_dim))
    if log_decay.ndim == 1:
        expected["log_decay (fixed)"] = (log_decay, (heads,))
    else:
        expected["log_decay (gated)"] = (log_decay, (batch, heads, length))
    if state is not None:
        expected["state"] = (state, (batch, heads, key_dim, value_dim))
    for name, (given, shape) in expected.items():
        if tuple(given.shape) != shape:
            raise RetentionError(f"{name} has the shape {tuple(given.shape)}; expected {shape} beside a q of {tuple(q.shape)}")
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_values(k.detach(), log_decay.detach(), None if state is None else state.detach())


def _check_values(k: Tensor, log_decay: Tensor, state: Tensor | None) -> None:
    lowest, highest = log_decay.aminmax()
    # So written that NaN fails as well.
    if not (lowest > -torch.inf and highest <= 0):
        place = (~((log_decay > -torch.inf) & (log_decay <= 0))).nonzero()[0].tolist()
        raise RetentionError(
            f"log_decay{place} is {float(log_decay[tuple(place)])}; a decay lies in (0, 1), so its logarithm below 0"
        )
    if highest == 0:
        still = log_decay == 0
        if log_decay.ndim == 1 or bool(k[still].any()):
            raise RetentionError(
                f"log_decay{still.nonzero()[0].tolist()} is 0; a decay of 1 is for padding, where k is 0, and only there"
            )
    # One sum finds out whether to look closer: NaN and infinity survive it.
    if state is not None and not math.isfinite(float(state.sum())) and not bool(state.isfinite().all()):
        place = (~state.isfinite()).nonzero()[0].tolist()
        raise RetentionError(f"state{place} is {float(state[tuple(place)])}; every value of a state is finite")


def _per_token(log_decay: Tensor, q: Tensor) -> Tensor:
    """A fixed decay repeated for every token; a gated one as it is: `[batch, heads, length]`, in fp32 at least."""
    log_decay = log_decay.to(accumulation_type(q))
    return log_decay[None, :, None].expand(q.shape[:3]) if log_decay.ndim == 1 else log_decay


def _in_chunks(values: Tensor, chunk: int) -> Tensor:
    """`[batch, heads, length, …]` to `[batch, heads, chunks, chunk, …]`, the last chunk padded with zeros, which leave the state untouched."""
    missing = -values.shape[2] % chunk
    if missing:
        values = F.pad(values, (0, 0) * (values.ndim - 3) + (0, missing))
    return values.unflatten(2, (-1, chunk))


def _given_or_empty(state: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    """The state in fp32 at least, zeros for None."""
    return (
        k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1], dtype=accumulation_type(k))
        if state is None
        else state.to(accumulation_type(k))
    )


def accumulation_type(values: Tensor) -> torch.dtype:
    """The type in which decays and states are kept: fp32, or fp64 where everything is."""
    return torch.promote_types(values.dtype, torch.float32)


def _decay_matrix(cumulated: Tensor) -> Tensor:
    """D of the parallel form, `[…, length, length]`, from cumulated log-decays `[…, length]`."""
    difference = cumulated.unsqueeze(-1) - cumulated.unsqueeze(-2)
    future = torch.ones(difference.shape[-2:], dtype=torch.bool, device=difference.device).triu_(1)
    # Masked before the exponential: above the diagonal the difference is positive and its exponential could overflow into NaN gradients.
    return difference.masked_fill(future, -torch.inf).exp()

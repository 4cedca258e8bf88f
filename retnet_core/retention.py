"""Retention in its three forms, side by side.

All three compute the same function (arXiv 2307.08621, section 2.1 and 2.2; gated decay: arXiv 2405.05254, section 3.2) with
`S_n = γ_n S_{n−1} + K_nᵀ V_n` and `O_n = Q_n S_n`. The decay `γ_n` of token n applies to the memory before the token is added.

Shapes everywhere: `q`, `k`: `[batch, heads, length, key_dim]`; `v`: `[batch, heads, length, value_dim]`;
`log_decay` = log γ: `[batch, heads, length]` when gated, or `[heads]` when fixed; `state`: `[batch, heads, key_dim, value_dim]`
or None for an empty memory. Every form returns the outputs `[batch, heads, length, value_dim]` and the state after the last token.
A padded position is one with `k = 0` and `log_decay = 0`: it leaves the state untouched.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64
"""Tokens a chunk: where the quadratic and the linear part of the chunkwise form cost about the same at head_dim 64."""


def fixed_log_decay(heads: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """log γ_h for `γ_h = 1 − 2^(−5−h)`, one rate a head, `[heads]` (arXiv 2307.08621, equation 8)."""
    return torch.log1p(-torch.exp2(-5.0 - torch.arange(heads, dtype=torch.float64))).to(dtype)


def gated_log_decay(gate: Tensor, rate: Tensor, limit: float) -> Tensor:
    """log γ_{t,h} = −exp(rate_h + clamp(gate_{t,h})), always below 0, so that γ stays inside (0, 1).

    `gate`: the input's part `[..., heads]`; `rate`: the log of each head's resting log-decay, `[heads]`; `limit`: bound on the gate.
    """
    return -torch.exp(gate.clamp(-limit, limit) + rate)


def retention_parallel(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Parallel form: `O = (Q Kᵀ ⊙ D) V + (c_n Q_n) S_0` with `D[n,m] = c_n / c_m` for n ≥ m, else 0, and `c_n = γ_1 … γ_n`.

    Quadratic in length. `S = c_N S_0 + Σ_m (c_N / c_m) K_mᵀ V_m`. Shapes as in the module's docstring.
    """
    cumulated = _per_token(log_decay, q).cumsum(-1)
    state = _given_or_empty(state, k, v)
    decay_matrix = _decay_matrix(cumulated)
    output = ((q @ k.transpose(-1, -2)) * decay_matrix) @ v + (q * cumulated.exp().unsqueeze(-1)) @ state
    total = cumulated[..., -1:]
    remaining = (total - cumulated).exp().unsqueeze(-1)
    return output, total.exp().unsqueeze(-1) * state + (k * remaining).transpose(-1, -2) @ v


def retention_recurrent(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Recurrent form: `S_n = γ_n S_{n−1} + K_nᵀ V_n`, `O_n = Q_n S_n`, one token after the other.

    Linear in length, constant memory. Shapes as in the module's docstring.
    """
    decay = _per_token(log_decay, q).exp()[..., None, None]
    state = _given_or_empty(state, k, v)
    outputs = []
    for n in range(q.shape[2]):
        state = decay[:, :, n] * state + k[:, :, n, :, None] * v[:, :, n, None, :]
        outputs.append((q[:, :, n, None, :] @ state).squeeze(-2))
    return torch.stack(outputs, 2), state


def retention_chunkwise(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Chunkwise form: parallel within a chunk of B tokens, recurrent from chunk to chunk.

    `S' = c_B S + Σ_j (c_B / c_j) K_jᵀ V_j`, `O = (Q Kᵀ ⊙ D) V + (c_j Q_j) S`, with `c_j` counted from the chunk's start
    (arXiv 2307.08621, equation 7). Linear in length. The last chunk may be shorter. Shapes as in the module's docstring.
    """
    log_decay = _per_token(log_decay, q)
    outputs = []
    for start in range(0, q.shape[2], chunk):
        part = slice(start, start + chunk)
        output, state = retention_parallel(q[:, :, part], k[:, :, part], v[:, :, part], log_decay[:, :, part], state)
        outputs.append(output)
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)), _given_or_empty(state, k, v)


def recurrent_step_(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    """One token of the recurrent form, for many conversations at once, *changing `state` in place*.

    `q`, `k`: `[batch, heads, key_dim]`; `v`: `[batch, heads, value_dim]`; `decay` = γ itself: `[batch, heads]`. Returns `[batch, heads, value_dim]`.
    """
    state.mul_(decay[..., None, None]).addcmul_(k.unsqueeze(-1), v.unsqueeze(-2))
    return torch.matmul(q.unsqueeze(-2), state).squeeze(-2)


def _per_token(log_decay: Tensor, q: Tensor) -> Tensor:
    """A fixed decay repeated for every token; a gated one as it is: `[batch, heads, length]`."""
    return log_decay[None, :, None].expand(q.shape[:3]) if log_decay.ndim == 1 else log_decay


def _given_or_empty(state: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    return k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state


def _decay_matrix(cumulated: Tensor) -> Tensor:
    """D of the parallel form, `[batch, heads, length, length]`, from cumulated log-decays `[batch, heads, length]`."""
    difference = cumulated.unsqueeze(-1) - cumulated.unsqueeze(-2)
    future = torch.ones(difference.shape[-2:], dtype=torch.bool, device=difference.device).triu_(1)
    # Masked before the exponential: above the diagonal the difference is positive and its exponential could overflow into NaN gradients.
    return difference.masked_fill(future, -torch.inf).exp()

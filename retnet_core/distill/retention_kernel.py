"""Retention over packed rows for training: on a GPU by hand-written kernels (retention_triton), elsewhere in torch's chunkwise form.

Both compute `S_t = γ_t S_{t−1} + k_tᵀ v_t`, `o_t = q_t S_t` (arXiv 2307.08621, equation 6) from a zero state, with γ_t of token and head.
A document begins anew where its first token's log decay is `RESET` lower: what was before is gone.
"""

from __future__ import annotations

import importlib.util
from functools import cache

from torch import Tensor

from retnet_core.retention import retention_chunkwise

CHUNK = 64
RESET = -40.0
"""Added to a log decay: e⁻⁴⁰ of the state stays, which fp32 adds to nothing."""


def retention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """`q` (scaled), `k`, `v`: `[batch, length, heads, head_dim]`; `log_decay`: fp32 `[batch, length, heads]`. Returns outputs like `v`."""
    if q.is_cuda and has_kernels():
        from retnet_core.distill.retention_triton import retention_kernels

        return retention_kernels(q, k, v, log_decay)
    return retention_reference(q, k, v, log_decay)


def retention_reference(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """The same by `retnet_core.retention`, on any device."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return retention_chunkwise(q, k, v, log_decay.transpose(1, 2), chunk=CHUNK, checked=False)[0].transpose(1, 2)


@cache
def has_kernels() -> bool:
    """Whether Triton is installed; it is looked for, not imported."""
    return importlib.util.find_spec("triton") is not None

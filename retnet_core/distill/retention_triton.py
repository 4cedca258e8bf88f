"""The chunkwise form of retention as Triton kernels, forward and backward by hand; import it only where Triton is installed.

One program a sequence and head walks over chunks of 64 tokens with the state in fp32; products are in the inputs' type with fp32 sums.
With `b_t` the log decays summed from the chunk's start to t, `D[t,s] = exp(b_t − b_s)` for s ≤ t:
`O = (Q Kᵀ ⊙ D) V + exp(b) Q S`, `S' = exp(b_C) S + (exp(b_C − b) K)ᵀ V` (arXiv 2307.08621, equation 7).
Gradients: of q the same walk with k and v changing places, of k and v the walk backwards; of the log decay at t,
`Σ_{s ≥ t} (dq_s · q_s − dk_s · k_s)`.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 64
WARPS = 4


@triton.jit
def _rows(pointer, base, start, stride, C: tl.constexpr, D: tl.constexpr):
    return tl.load(pointer + base + (start + tl.arange(0, C))[:, None] * stride + tl.arange(0, D)[None, :])


@triton.jit
def _forward(q, k, v, g, o, length, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr):
    program = tl.program_id(0)
    batch, head = (program // H).to(tl.int64), program % H
    stride = H * D
    base, decays = batch * length * stride + head * D, batch * length * H + head
    i = tl.arange(0, C)
    past = i[:, None] >= i[None, :]
    state = tl.zeros([D, D], tl.float32)
    for start in range(0, length, C):
        qc = _rows(q, base, start, stride, C, D)
        kc = _rows(k, base, start, stride, C, D)
        vc = _rows(v, base, start, stride, C, D)
        gc = tl.load(g + decays + (start + i) * H)
        b, total = tl.cumsum(gc, 0), tl.sum(gc, 0)
        decay = tl.exp(tl.where(past, b[:, None] - b[None, :], -1e30))
        scores = (tl.dot(qc, tl.trans(kc)) * decay).to(qc.dtype)
        before = (qc.to(tl.float32) * tl.exp(b)[:, None]).to(qc.dtype)
        out = tl.dot(scores, vc) + tl.dot(before, state.to(qc.dtype))
        tl.store(o + base + (start + i)[:, None] * stride + tl.arange(0, D)[None, :], out.to(o.dtype.element_ty))
        kept = (kc.to(tl.float32) * tl.exp(total - b)[:, None]).to(kc.dtype)
        state = state * tl.exp(total) + tl.dot(tl.trans(kept), vc)


@triton.jit
def _backward_q(q, k, v, g, do, dq, r, length, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr):
    program = tl.program_id(0)
    batch, head = (program // H).to(tl.int64), program % H
    stride = H * D
    base, decays = batch * length * stride + head * D, batch * length * H + head
    i = tl.arange(0, C)
    past = i[:, None] >= i[None, :]
    state = tl.zeros([D, D], tl.float32)  # transposed: values, then keys
    for start in range(0, length, C):
        qc = _rows(q, base, start, stride, C, D)
        kc = _rows(k, base, start, stride, C, D)
        vc = _rows(v, base, start, stride, C, D)
        dc = _rows(do, base, start, stride, C, D)
        gc = tl.load(g + decays + (start + i) * H)
        b, total = tl.cumsum(gc, 0), tl.sum(gc, 0)
        decay = tl.exp(tl.where(past, b[:, None] - b[None, :], -1e30))
        scores = (tl.dot(dc, tl.trans(vc)) * decay).to(qc.dtype)
        before = (dc.to(tl.float32) * tl.exp(b)[:, None]).to(qc.dtype)
        out = tl.dot(scores, kc) + tl.dot(before, state.to(qc.dtype))
        tl.store(dq + base + (start + i)[:, None] * stride + tl.arange(0, D)[None, :], out.to(dq.dtype.element_ty))
        tl.store(r + decays + (start + i) * H, tl.sum(out * qc.to(tl.float32), 1))
        kept = (kc.to(tl.float32) * tl.exp(total - b)[:, None]).to(kc.dtype)
        state = state * tl.exp(total) + tl.dot(tl.trans(vc), kept)


@triton.jit
def _backward_kv(q, k, v, g, do, dk, dv, r, length, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr):
    program = tl.program_id(0)
    batch, head = (program // H).to(tl.int64), program % H
    stride = H * D
    base, decays = batch * length * stride + head * D, batch * length * H + head
    i = tl.arange(0, C)
    future = i[:, None] <= i[None, :]  # rows are keys, columns queries
    state = tl.zeros([D, D], tl.float32)  # the gradient of the state after the chunk
    for step in range(0, length, C):
        start = length - C - step
        qc = _rows(q, base, start, stride, C, D)
        kc = _rows(k, base, start, stride, C, D)
        vc = _rows(v, base, start, stride, C, D)
        dc = _rows(do, base, start, stride, C, D)
        gc = tl.load(g + decays + (start + i) * H)
        b, total = tl.cumsum(gc, 0), tl.sum(gc, 0)
        decay = tl.exp(tl.where(future, b[None, :] - b[:, None], -1e30))
        scores = (tl.dot(kc, tl.trans(qc)) * decay).to(qc.dtype)
        changes = (tl.dot(vc, tl.trans(dc)) * decay).to(qc.dtype)
        rest = tl.exp(total - b)[:, None]
        after = state.to(qc.dtype)
        out_v = tl.dot(scores, dc) + tl.dot((kc.to(tl.float32) * rest).to(kc.dtype), after)
        out_k = tl.dot(changes, qc) + tl.dot((vc.to(tl.float32) * rest).to(vc.dtype), tl.trans(after))
        places = base + (start + i)[:, None] * stride + tl.arange(0, D)[None, :]
        tl.store(dv + places, out_v.to(dv.dtype.element_ty))
        tl.store(dk + places, out_k.to(dk.dtype.element_ty))
        tl.store(r + decays + (start + i) * H, tl.sum(out_k * kc.to(tl.float32), 1))
        before = (qc.to(tl.float32) * tl.exp(b)[:, None]).to(qc.dtype)
        state = state * tl.exp(total) + tl.dot(tl.trans(before), dc)


class _Retention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        q, k, v, g = q.contiguous(), k.contiguous(), v.contiguous(), g.contiguous()
        batch, length, heads, size = q.shape
        o = torch.empty_like(v)
        _forward[(batch * heads,)](q, k, v, g, o, length, heads, CHUNK, size, num_warps=WARPS, num_stages=2)
        ctx.save_for_backward(q, k, v, g)
        return o

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        q, k, v, g = ctx.saved_tensors
        do = gradients[0].contiguous()
        batch, length, heads, size = q.shape
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        of_q, of_k = torch.empty_like(g), torch.empty_like(g)
        grid, sizes = (batch * heads,), (length, heads, CHUNK, size)
        _backward_q[grid](q, k, v, g, do, dq, of_q, *sizes, num_warps=WARPS, num_stages=2)
        _backward_kv[grid](q, k, v, g, do, dk, dv, of_k, *sizes, num_warps=WARPS, num_stages=1)
        return dq, dk, dv, (of_q - of_k).flip(1).cumsum(1).flip(1)


def retention_kernels(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """As `retention_kernel.retention`. The length may be any; heads are of 16, 32, 64 or 128."""
    length = q.shape[1]
    missing = -length % CHUNK
    if missing:
        q, k, v = (F.pad(part, (0, 0, 0, 0, 0, missing)) for part in (q, k, v))
        log_decay = F.pad(log_decay, (0, 0, 0, missing))
    return _Retention.apply(q, k, v, log_decay)[:, :length]  # type: ignore[no-any-return]

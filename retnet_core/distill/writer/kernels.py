"""Attention over the writer's caches in Triton: many short conversations, each at its own length, grouped queries.

`decode` writes one token of every row, `extend` reads several tokens of some rows. Both are checked against `attention.plain_extend`
when the writer starts on a GPU. Caches are `[rows, key_value_heads, positions, head]`.
"""

# Triton is installed only beside a GPU, and what it compiles is called by `[grid]`, which no type says.
# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _decode(
    joined, cos, sin, keys, values, lengths, done, out, row_stride, cache_stride, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, GROUP: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row, kv = program // KV, program % KV
    if tl.load(done + row) != 0:
        return
    length = tl.load(lengths + row).to(tl.int32)
    group, half, at = tl.arange(0, 16), tl.arange(0, HALF), tl.arange(0, TILE)
    c, s = tl.load(cos + length * HALF + half), tl.load(sin + length * HALF + half)
    base = joined + row.to(tl.int64) * row_stride
    # Queries and the new key are rotated here; halves apart, because the rotation pairs the first half with the second.
    q_at = base + (kv * GROUP + group)[:, None] * (2 * HALF) + half[None, :]
    inside = (group < GROUP)[:, None]
    q1 = tl.load(q_at, mask=inside, other=0.0).to(tl.float32)
    q2 = tl.load(q_at + HALF, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    qa = (q1 * c[None, :] - q2 * s[None, :]).to(kind)
    qb = (q2 * c[None, :] + q1 * s[None, :]).to(kind)
    k_at = base + HEADS * 2 * HALF + kv * 2 * HALF + half
    k1, k2 = tl.load(k_at).to(tl.float32), tl.load(k_at + HALF).to(tl.float32)
    ka, kb = (k1 * c - k2 * s).to(kind), (k2 * c + k1 * s).to(kind)
    v_at = base + (HEADS + KV) * 2 * HALF + kv * 2 * HALF + half
    va, vb = tl.load(v_at), tl.load(v_at + HALF)
    cache = program.to(tl.int64) * cache_stride
    own = cache + length * 2 * HALF + half
    tl.store(keys + own, ka)
    tl.store(keys + own + HALF, kb)
    tl.store(values + own, va)
    tl.store(values + own + HALF, vb)
    # The new token from registers, the others from the cache.
    top = (
        tl.sum(qa.to(tl.float32) * ka.to(tl.float32)[None, :], 1) + tl.sum(qb.to(tl.float32) * kb.to(tl.float32)[None, :], 1)
    ) * scale
    total = tl.full([16], 1.0, tl.float32)
    acc_a = tl.zeros([16, HALF], tl.float32) + va.to(tl.float32)[None, :]
    acc_b = tl.zeros([16, HALF], tl.float32) + vb.to(tl.float32)[None, :]
    for start in range(0, length, TILE):
        there = (start + at) < length
        k_in = keys + cache + (start + at)[None, :] * (2 * HALF) + half[:, None]
        scores = tl.dot(qa, tl.load(k_in, mask=there[None, :], other=0.0))
        scores = (scores + tl.dot(qb, tl.load(k_in + HALF, mask=there[None, :], other=0.0))) * scale
        scores = tl.where(there[None, :], scores, -1e30)
        higher = tl.maximum(top, tl.max(scores, 1))
        weights, keep = tl.exp(scores - higher[:, None]), tl.exp(top - higher)
        v_in = values + cache + (start + at)[:, None] * (2 * HALF) + half[None, :]
        total = total * keep + tl.sum(weights, 1)
        acc_a = acc_a * keep[:, None] + tl.dot(weights.to(kind), tl.load(v_in, mask=there[:, None], other=0.0))
        acc_b = acc_b * keep[:, None] + tl.dot(weights.to(kind), tl.load(v_in + HALF, mask=there[:, None], other=0.0))
        top = higher
    out_at = out + row.to(tl.int64) * (HEADS * 2 * HALF) + (kv * GROUP + group)[:, None] * (2 * HALF) + half[None, :]
    tl.store(out_at, (acc_a / total[:, None]).to(kind), mask=inside)
    tl.store(out_at + HALF, (acc_b / total[:, None]).to(kind), mask=inside)


def decode(
    joined: Tensor, angles: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, lengths: Tensor, done: Tensor, heads: int
) -> Tensor:
    """One token a row: append its key and value at `lengths` and attend to all up to it. Rows that are `done` are left alone.

    `joined` [rows, (heads + 2 · key_value_heads) · head], not rotated; the result [rows, heads · head].
    """
    rows, kv, positions, head = keys.shape
    out = torch.empty(rows, heads * head, dtype=joined.dtype, device=joined.device)
    _decode[(rows * kv,)](
        joined, *angles, keys, values, lengths, done, out, joined.stride(0), positions * head, head**-0.5,
        HEADS=heads, KV=kv, GROUP=heads // kv, HALF=head // 2, TILE=64, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _extend(
    queries, keys, values, slots, past, widths, out, width, cache_stride, scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    text, head = tl.program_id(0), tl.program_id(1)
    first = tl.program_id(2) * ROWS
    wide = tl.load(widths + text).to(tl.int32)
    if first >= wide:
        return
    before, slot = tl.load(past + text).to(tl.int32), tl.load(slots + text).to(tl.int64)
    place, at, d = first + tl.arange(0, ROWS), tl.arange(0, TILE), tl.arange(0, HEAD)
    q_at = (text.to(tl.int64) * width + place)[:, None] * (HEADS * HEAD) + head * HEAD + d[None, :]
    q = tl.load(queries + q_at, mask=(place < wide)[:, None], other=0.0)
    kind = out.dtype.element_ty
    cache = (slot * (HEADS // GROUP) + head // GROUP) * cache_stride
    top, total = tl.full([ROWS], -1e30, tl.float32), tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD], tl.float32)
    last = before + tl.minimum(first + ROWS, wide)
    for start in range(0, last, TILE):
        column = start + at
        k = tl.load(keys + cache + column[None, :] * HEAD + d[:, None], mask=(column < last)[None, :], other=0.0)
        scores = tl.where(column[None, :] <= (before + place)[:, None], tl.dot(q, k) * scale, -1e30)
        higher = tl.maximum(top, tl.max(scores, 1))
        weights, keep = tl.exp(scores - higher[:, None]), tl.exp(top - higher)
        v = tl.load(values + cache + column[:, None] * HEAD + d[None, :], mask=(column < last)[:, None], other=0.0)
        total = total * keep + tl.sum(weights, 1)
        acc = acc * keep[:, None] + tl.dot(weights.to(kind), v)
        top = higher
    tl.store(out + q_at, (acc / total[:, None]).to(kind), mask=(place < wide)[:, None])


def extend(queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, past: Tensor, widths: Tensor) -> Tensor:
    """Causal attention of new tokens, whose keys and values stand in the caches already, to their row of the cache up to themselves.

    `queries` [texts, width, heads, head], rotated; text i is in row `slots[i]`, begins after `past[i]` tokens and has `widths[i]` of them.
    """
    texts, width, heads, head = queries.shape
    _, kv, positions, _ = keys.shape
    out = torch.empty_like(queries)
    rows = 64 if width > 32 else 32
    _extend[(texts, heads, triton.cdiv(width, rows))](
        queries, keys, values, slots, past, widths, out, width, positions * head, head**-0.5,
        HEADS=heads, GROUP=heads // kv, HEAD=head, ROWS=rows, TILE=64, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


@triton.jit
def _silu_product(joined, out, WIDE: tl.constexpr, TILE: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = at < WIDE
    gate = tl.load(joined + row * 2 * WIDE + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(joined + row * 2 * WIDE + WIDE + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * WIDE + at, (gate / (1 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=inside)


def silu_product(joined: Tensor) -> Tensor:
    """[rows, 2 · wide] (gate, up) → silu(gate) · up."""
    rows, wide = joined.shape[0], joined.shape[1] // 2
    out = torch.empty(rows, wide, dtype=joined.dtype, device=joined.device)
    _silu_product[(rows, triton.cdiv(wide, 2048))](joined, out, WIDE=wide, TILE=2048, num_warps=4)
    return out


@triton.jit
def _sample(logits, seed, chosen, inverse_temperature, log_min_p, VOCABULARY: tl.constexpr, TILE: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, TILE)
    base = logits + row.to(tl.int64) * VOCABULARY
    peak = tl.full([TILE], -1e30, tl.float32)
    for start in range(0, VOCABULARY, TILE):
        peak = tl.maximum(peak, tl.load(base + start + at, mask=start + at < VOCABULARY, other=-1e30).to(tl.float32))
    top = tl.max(peak, 0)
    number = tl.load(seed).to(tl.int32)
    best, index = tl.full([TILE], -1e30, tl.float32), tl.zeros([TILE], tl.int32)
    for start in range(0, VOCABULARY, TILE):
        x = (tl.load(base + start + at, mask=start + at < VOCABULARY, other=-1e30).to(tl.float32) - top) * inverse_temperature
        uniform = tl.rand(number, row * VOCABULARY + start + at)
        # Gumbel's trick: the largest of logit + noise is a sample; what min-p cuts off takes no part.
        noisy = tl.where(x >= log_min_p, x - tl.log(-tl.log(uniform * 0.9999998 + 1e-7)), -1e30)
        index = tl.where(noisy > best, start + at, index)
        best = tl.maximum(best, noisy)
    winner = tl.argmax(best, 0)
    tl.store(chosen + row, tl.sum(tl.where(tl.arange(0, TILE) == winner, index, 0), 0))


def sample(logits: Tensor, seed: Tensor, temperature: float, log_min_p: float) -> Tensor:
    """One id a row of `logits` [rows, vocabulary]; `seed` int64 [1] lies on the device, so that a CUDA graph can count it on."""
    chosen = torch.empty(logits.shape[0], dtype=torch.int32, device=logits.device)
    _sample[(logits.shape[0],)](
        logits, seed, chosen, 1 / temperature, log_min_p, VOCABULARY=logits.shape[1], TILE=4096, num_warps=8
    )
    return chosen.long()

"""What the kernels compute, in plain torch: for machines without Triton, and to check the kernels by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def append(keys: Tensor, values: Tensor, slots: Tensor, places: Tensor, new_keys: Tensor, new_values: Tensor) -> None:
    """Put `new_keys`, `new_values` [texts, width, key_value_heads, head] at `places` [texts, width] of the rows `slots` of the caches."""
    keys[slots[:, None], :, places] = new_keys
    values[slots[:, None], :, places] = new_values


def plain_extend(queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, past: Tensor, widths: Tensor) -> Tensor:
    """See `kernels.extend`; tokens beyond `widths` get some value or other."""
    width, heads = queries.shape[1:3]
    positions = int((past + widths).max())
    group = heads // keys.shape[1]
    k = keys[slots, :, :positions].repeat_interleave(group, dim=1)
    v = values[slots, :, :positions].repeat_interleave(group, dim=1)
    column = torch.arange(positions, device=queries.device)
    row = past[:, None] + torch.arange(width, device=queries.device)
    mask = column[None, None, :] <= row[:, :, None]
    out = functional.scaled_dot_product_attention(queries.transpose(1, 2), k, v, attn_mask=mask[:, None])
    return out.transpose(1, 2)


def plain_silu_product(joined: Tensor) -> Tensor:
    """[rows, 2 · wide] (gate, up) → silu(gate) · up."""
    gate, up = joined.chunk(2, dim=-1)
    return functional.silu(gate) * up


def plain_sample(logits: Tensor, temperature: float, log_min_p: float) -> Tensor:
    """See `kernels.sample`, from torch's own random numbers."""
    scaled = (logits.float() - logits.amax(-1, keepdim=True)) / temperature
    scaled = scaled.masked_fill(scaled < log_min_p, float("-inf"))
    return torch.multinomial(scaled.softmax(-1), 1)[:, 0]

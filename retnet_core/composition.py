"""Putting a text that was read by itself behind another: decays multiply, states add.

Retention is linear in the state: `S_n = γ_n S_{n−1} + K_nᵀ V_n` over a text B after a text A comes to `S_AB = γ_B S_A + S_B`, with
`γ_B = γ_1 … γ_n` over B, and `S_B` what B alone leaves in an empty state (arXiv 2307.08621, section 2.1: what the chunkwise form does from
chunk to chunk). B's keys carry rotary positions counted from its own beginning; a key's row of S turns with the key, so the whole of S_B
turns on by the length of A.

What is exact, given the same q, k, v and γ: all of this, in any layer and any head. Whether they are the same is the question:

- In the first layer they depend on the tokens alone and, through the short convolution, on the few tokens before. The first
  `conv_width − 1` tokens of B, its *opening*, therefore are no part of what is added but are truly read when B is put behind A. The first
  layer's state, and all of a network with one layer, is exact.
- In deeper layers they depend on what the layers below read out of their states, which for B alone was without A. This is an
  approximation, and nothing bounds it; docs/model.md says what it costs the shipped model.

A longer opening costs its reading, and brings the rest nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from retnet_core.errors import EmptyPrompt
from retnet_core.lanes import Lanes
from retnet_core.model import Model, Span, _rms_norm
from retnet_core.retention import CHUNK, gated_log_decay
from retnet_core.state import State, StateMismatch


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A text that was read by itself, to be put behind others. A value, like a state.

    `state`: what the text after the opening leaves in an empty state (`tokens` and window: of the whole text). `log_decay`: the logarithm of
    what that text leaves of any state before it, fp32 `[layers, heads]`, below 0. `opening`: ids that are read truly, again each time.
    """

    state: State
    log_decay: Tensor
    opening: tuple[int, ...]

    @property
    def added(self) -> int:
        """How many tokens need no reading any more."""
        return self.state.tokens - len(self.opening)


@torch.inference_mode()
def read_segment(model: Model, ids: Sequence[int], *, opening: int | None = None) -> Segment:
    """Read a text by itself. `opening`: how many of its first tokens will be read again behind each text; None: what the convolution reaches.
    0 costs nothing later, but then those tokens are the model's first ones, as if nothing came before.

    Takes the readable way through the layers, which gives the decays away and is slower than the kernels. Any thread may call it.
    Raises `EmptyPrompt` without ids.
    """
    if not ids:
        raise EmptyPrompt("a segment without ids is no text: give at least one")
    ids = tuple(ids)
    count = min(len(ids), model.config.window if opening is None else opening)
    lanes = Lanes(model.config, 1, model.device)
    _read(model, ids[:count], lanes)
    begun = model.state_of(lanes, 0)
    log_decay = _read(model, ids[count:], lanes).float()
    whole = model.state_of(lanes, 0)
    with torch.inference_mode(False):
        log_decay = log_decay.clone()
        # What the opening left is taken off again: it will be there anew, as read behind the other text.
        rest = whole.retention.clone() - log_decay.exp()[..., None, None] * begun.retention.clone()
        return Segment(replace(whole, retention=rest, window=whole.window.clone()), log_decay, ids[:count])


def compose(before: State, segment: Segment, *, model: Model) -> State:
    """The state after the text of `before` and then the segment's; see above for what is exact in it. Neither is changed.

    Reads the opening. Raises `StateMismatch` when the two, or the model, do not belong together.
    """
    for state in (before, segment.state):
        if (state.model_fingerprint, state.tokenizer_fingerprint) != (model.fingerprint, model.tokenizer_fingerprint):
            raise StateMismatch("a state and a segment can be put together by the model that read both")
    shift = before.tokens
    if segment.opening:
        before = model.read(segment.opening, before)[1]
    return _behind(before, segment, shift, model)


def join(first: Segment, second: Segment, *, model: Model) -> Segment:
    """Two segments as one, the second without an opening. Raises `ValueError` when it has one: that has to be read behind a state."""
    if second.opening:
        raise ValueError(
            f"the second segment has an opening of {len(second.opening)} ids: read it with opening=0, or compose it with a state"
        )
    return Segment(_behind(first.state, second, first.state.tokens, model), first.log_decay + second.log_decay, first.opening)


def _behind(before: State, segment: Segment, shift: int, model: Model) -> State:
    """`γ_B S_A` plus `S_B` turned on by `shift` tokens; the window's newest rows are the segment's own."""
    kept = segment.log_decay.exp()[..., None, None] * before.retention
    own = min(segment.added, model.config.window)
    window = torch.cat((before.window[:, own:], segment.state.window[:, segment.state.window.shape[1] - own :]), 1)
    return replace(
        before,
        retention=kept + turned(segment.state.retention, shift, model.config.rotary_base),
        window=window,
        tokens=before.tokens + segment.added,
    )


def turned(retention: Tensor, tokens: int, rotary_base: float) -> Tensor:
    """A state `[…, key_dim, value_dim]` whose keys came so many tokens later: each pair of rows turned by its angle, as the keys themselves."""
    key_dim = retention.shape[-2]
    # fp64, as positions are everywhere: fp32 angles lose whole turns after some 10,000 tokens.
    frequencies = rotary_base ** (-torch.arange(0, key_dim, 2, dtype=torch.float64) / key_dim)
    angle = (tokens * frequencies).remainder(2 * torch.pi).to(retention.dtype)[:, None]
    first, second = retention[..., ::2, :], retention[..., 1::2, :]
    pairs = (first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos())
    return torch.stack(pairs, -2).flatten(-3, -2)


def _read(model: Model, ids: Sequence[int], lanes: Lanes) -> Tensor:
    """Read ids on the readable way, a chunk at a time. Returns the sum of the log-decays, fp64 `[layers, heads]`."""
    config = model.config
    total = torch.zeros(config.layers, config.heads, dtype=torch.float64)
    for start in range(0, len(ids), CHUNK):
        part = torch.tensor(ids[start : start + CHUNK])
        spans = [Span(lanes, 0, len(part))]
        rotation = model._rotation(model._positions(None, 0, spans).to(model.device))[:, None] * model._rotary_scale
        x = model._embed(part.to(model.device))
        for number, layer in enumerate(model._layers):
            normed = _rms_norm(x, config.norm_eps, layer.retention_norm)
            gate = F.linear(normed, layer.gate_weight, layer.gate_bias)
            total[number] += gated_log_decay(gate, layer.rate, config.gate_limit).double().sum(0).cpu()
            x = x + model._retention(number, layer, x, rotation, None, 0, spans)
            x = x + model._feed_forward(layer, x)
        lanes.tokens[0] += len(part)
    return total

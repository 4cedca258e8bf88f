"""The RetNet to train and to read: plain modules, ids and memory in, logits and memory out, in any of the three forms of retention.

    x = embedding(ids)
    x = x + MSR(norm(x)) and x = x + FFN(norm(x)), layer by layer          (arXiv 2307.08621, section 2.3)
    MSR(x) = (swish(x W_G) ⊙ norm_h(retention(Q, K, V))) W_O              (equation 8)
    FFN(x) = (act(x W_gate) ⊙ x W_up) W_down
    logits = norm(x) W_head

with `[Q, K, V] = conv(x [W_Q, W_K, W_V])`, Q and K turned by their position, and norm without means (RMS). What `RetNetConfig` names as an option
is one line here. The engine (`retnet_core.model`) computes the same function for serving: without gradients, in place, on quantised weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retnet_core.checkpoint import CheckpointError
from retnet_core.config import RetNetConfig
from retnet_core.retention import (
    CHUNK,
    RetentionError,
    accumulation_type,
    fixed_log_decay,
    gated_log_decay,
    retention_chunkwise,
    retention_normalised,
    retention_parallel,
    retention_recurrent,
)

Form = Literal["chunkwise", "parallel", "recurrent"]
Retention = Callable[..., tuple[Tensor, Tensor]]

LAYER_NAMES = {
    "retention_norm": "retention_norm.weight",
    "projection": "retention.projection.weight",
    "convolution": "retention.convolution",
    "gate_weight": "retention.gate.weight",
    "gate_bias": "retention.gate.bias",
    "rate": "retention.rate",
    "group_norm": "retention.head_norm",
    "output": "retention.output.weight",
    "feed_forward_norm": "feed_forward_norm.weight",
    "gate": "feed_forward.gate.weight",
    "up": "feed_forward.up.weight",
    "down": "feed_forward.down.weight",
}
"""The names of a layer's tensors in `checkpoint.pack_layer` and here."""


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What a batch of sequences leaves behind, all that the next tokens need. A value: a forward pass returns a new one.

    `retention`: `[layers, batch, heads, key_dim, value_dim]` (both one larger with the paper's normalisations), fp32 or fp64. `window`:
    `[layers, batch, conv_width − 1, convolved]`, the last projections ahead of the convolution, oldest first. `tokens`: int64 `[batch]`, how
    many each row has read, which is the position of its next one.
    """

    retention: Tensor
    window: Tensor
    tokens: Tensor

    def detached(self) -> Memory:
        """The same values without their history: for training over consecutive pieces of a long text."""
        return Memory(self.retention.detach(), self.window.detach(), self.tokens)


class RMSNorm(nn.Module):
    """`x / √(mean(x²) + eps) · weight` over the last dimension `[…, size]`, computed in fp32 at least."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return _rms_norm(x, self.eps, self.weight)


class MultiScaleRetention(nn.Module):
    """`(swish(x W_G) ⊙ norm_h(retention(Q, K, V))) W_O`, with a decay of its own for each head: `[batch, length, width]` to the same."""

    def __init__(self, config: RetNetConfig) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(config.width, config.convolved + config.value_inner, bias=False)
        """W_Q, W_K, W_V and W_G on top of each other."""
        self.output = nn.Linear(config.value_inner, config.width, bias=False)
        if config.conv_width:
            self.convolution = nn.Parameter(torch.zeros(config.convolved, config.conv_width))
            """Causal and depthwise; the last tap is for the token itself."""
        if config.decay == "gated":
            self.gate = nn.Linear(config.width, config.heads)
            self.rate = nn.Parameter(torch.empty(config.heads))
        if config.head_norm != "none":
            self.head_norm = nn.Parameter(
                torch.ones(config.value_inner if config.head_norm == "channel" else config.head_value_dim)
            )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Small projections as in torchscale, a convolution that changes nothing, decays that start at the paper's."""
        nn.init.xavier_uniform_(self.projection.weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.output.weight)
        if self.config.conv_width:
            self.convolution[:, -1] = 1
        if self.config.decay == "gated":
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)
            # On the CPU by name: on the meta device, where weights are about to be replaced, this arithmetic would load torch's compiler.
            self.rate.copy_(fixed_log_decay(self.config.heads, device=torch.device("cpu")).neg().log())

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], form: Retention, state: Tensor, window: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`rotation`: cosine and sine `[batch, 1, length, head_dim / 2]`; `state`, `window`: this layer's part of a `Memory`. Returns them new."""
        config = self.config
        projected, gate = self.projection(x).split([config.convolved, config.value_inner], -1)
        convolved, window = self._convolve(projected, window)
        q, k, v = (
            part.unflatten(-1, (config.heads, -1)).transpose(1, 2)
            for part in convolved.split([config.inner, config.inner, config.value_inner], -1)
        )
        q = _turn(q, rotation, config) * config.head_query_scale
        k = _turn(k, rotation, config)
        # Matrix products in the type that the projections came in, sums in fp32: autocast would take the state to bf16.
        with torch.autocast(x.device.type, enabled=False):
            heads, state = self._retain(q, k, v, self._log_decay(x), form, state)
        normed = _rms_norm(heads.transpose(1, 2), config.norm_eps, self._head_weight())
        return self.output(normed.flatten(-2) * F.silu(gate)), state, window

    def _retain(
        self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, form: Retention, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.config.normalisation == "paper":
            return retention_normalised(form, q, k, v, log_decay, state, scale=1.0)
        return form(q, k, v, log_decay, state)

    def _convolve(self, projected: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, length, convolved]` to the same, and the new window."""
        config, length = self.config, projected.shape[1]
        if not config.conv_width:
            return projected, window
        seen = torch.cat((window.to(projected.dtype), projected), 1)
        taps = (seen[:, place : place + length] * self.convolution[:, place] for place in range(config.conv_width))
        convolved = sum(taps, torch.zeros_like(projected)).to(projected.dtype)
        return (F.silu(convolved) if config.conv_activation == "silu" else convolved), seen[:, length:].to(window.dtype)

    def _log_decay(self, x: Tensor) -> Tensor:
        """Gated `[batch, heads, length]`, or fixed `[heads]`; in fp32 at least."""
        config, wide = self.config, accumulation_type(x)
        if config.decay != "gated":
            return fixed_log_decay(config.heads, config.decay, dtype=wide, device=x.device)
        gate = F.linear(x.to(wide), self.gate.weight.to(wide), self.gate.bias.to(wide))
        return gated_log_decay(gate, self.rate.to(wide), config.gate_limit).transpose(1, 2)

    def _head_weight(self) -> Tensor | None:
        if self.config.head_norm == "none":
            return None
        return self.head_norm.view(-1, self.config.head_value_dim)


class FeedForward(nn.Module):
    """`down(act(gate x) ⊙ up x)`, `[…, width]` to the same."""

    def __init__(self, config: RetNetConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.feed_forward, bias=False)
        self.up = nn.Linear(config.width, config.feed_forward, bias=False)
        self.down = nn.Linear(config.feed_forward, config.width, bias=False)
        self.activation = {"swish": F.silu, "gelu": F.gelu}[config.feed_forward_activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Retention and feed-forward, each after a norm and added to what came in."""

    def __init__(self, config: RetNetConfig) -> None:
        super().__init__()
        self.retention_norm = RMSNorm(config.width, config.norm_eps)
        self.retention = MultiScaleRetention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], form: Retention, state: Tensor, window: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `MultiScaleRetention.forward`."""
        retained, state, window = self.retention(self.retention_norm(x), rotation, form, state, window)
        x = x + retained
        return x + self.feed_forward(self.feed_forward_norm(x)), state, window


class RetNet(nn.Module):
    """A RetNet of any `RetNetConfig`, its weights drawn at random."""

    def __init__(self, config: RetNetConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding.from_pretrained(torch.empty(config.vocabulary, config.width), freeze=False)
        # Of variance 1/width, so that the tied logits begin near 1. Uniform: normal numbers on the meta device would load torch's compiler.
        nn.init.uniform_(self.embedding.weight, -((3 / config.width) ** 0.5), (3 / config.width) ** 0.5)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = RMSNorm(config.width, config.norm_eps)
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(
        self, ids: Tensor, memory: Memory | None = None, *, form: Form = "chunkwise", chunk: int = CHUNK
    ) -> tuple[Tensor, Memory]:
        """Logits after each id, `[batch, length, vocabulary]`, and what to remember.

        `ids`: int64 `[batch, length]`, read after `memory` (None: nothing). The form changes speed and memory, not the result: `parallel` is
        quadratic in length, `chunkwise` goes `chunk` tokens at a time, `recurrent` one. Shorter rows are filled up on the right, and their
        memory is then that of the filled row. Raises `RetentionError` for a memory, id, form or chunk that does not fit.
        """
        x, memory = self.hidden(ids, memory, form=form, chunk=chunk)
        return self.logits(x), memory

    def hidden(
        self, ids: Tensor, memory: Memory | None = None, *, form: Form = "chunkwise", chunk: int = CHUNK
    ) -> tuple[Tensor, Memory]:
        """As `forward`, but the states after the final norm, `[batch, length, width]`: where all logits at once would be too large."""
        self._check(ids, memory, form, chunk)
        forms: dict[str, Retention] = {
            "chunkwise": partial(retention_chunkwise, chunk=chunk, checked=False),
            "parallel": partial(retention_parallel, checked=False),
            "recurrent": partial(retention_recurrent, checked=False),
        }
        x = self.embedding(ids) * self.config.embedding_scale
        if memory is None:
            memory = self.empty_memory(ids.shape[0])
        rotation = self._rotation(memory.tokens, ids.shape[1], accumulation_type(x))
        states, windows = [], []
        for number, layer in enumerate(self.layers):
            x, state, window = layer(x, rotation, forms[form], memory.retention[number], memory.window[number])
            states.append(state)
            windows.append(window)
        return self.final_norm(x), Memory(torch.stack(states), torch.stack(windows), memory.tokens + ids.shape[1])

    def logits(self, hidden: Tensor) -> Tensor:
        """`[…, width]` to `[…, vocabulary]`."""
        return F.linear(hidden, self.embedding.weight if self.config.tied else self.head.weight)

    def empty_memory(self, batch: int) -> Memory:
        """The memory of `batch` sequences that have read nothing."""
        retention, window = self._memory_shapes(batch)
        weight = self.embedding.weight
        tokens = torch.zeros(batch, dtype=torch.int64, device=weight.device)
        zeros = partial(torch.zeros, dtype=accumulation_type(weight), device=weight.device)
        return Memory(zeros(retention), zeros(window), tokens)

    @classmethod
    def from_tensors(
        cls,
        config: RetNetConfig,
        layers: Iterable[Mapping[str, Tensor]],
        embedding: Tensor,
        final_norm: Tensor,
        head: Tensor | None = None,
    ) -> RetNet:
        """A RetNet with these weights, which it takes over without a copy. `layers`: the tensors of each layer under the names and in the shapes
        of `checkpoint.pack_layer`; `embedding`: `[vocabulary, width]`; `head`: the same shape, for a configuration that is not `tied`.

        Raises `CheckpointError` for tensors that are missing, not expected, or of another shape.
        """
        named = {"embedding.weight": embedding, "final_norm.weight": final_norm}
        if head is not None:
            named["head.weight"] = head
        for number, tensors in enumerate(layers):
            for name, tensor in tensors.items():
                named[f"layers.{number}.{LAYER_NAMES.get(name, name)}"] = tensor
        return cls.from_state(config, named)

    @classmethod
    def from_state(cls, config: RetNetConfig, tensors: Mapping[str, Tensor]) -> RetNet:
        """A RetNet with the tensors of a `state_dict`, which it takes over without a copy. Raises `CheckpointError` as `from_tensors` does."""
        # Shapes without memory: the weights are about to be replaced.
        with torch.device("meta"):
            network = cls(config)
        expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        for what, names in (("lack", expected.keys() - tensors.keys()), ("have an unexpected", tensors.keys() - expected.keys())):
            if names:
                raise CheckpointError(f"the weights {what} {', '.join(sorted(names))}")
        for name, shape in expected.items():
            if tuple(tensors[name].shape) != shape:
                raise CheckpointError(f"{name} has the shape {tuple(tensors[name].shape)} instead of {shape}")
        network.load_state_dict(tensors, assign=True)
        return network

    def layer_tensors(self, number: int) -> dict[str, Tensor]:
        """A layer's weights under the names of `checkpoint.pack_layer`, to be packed for the engine or stored."""
        tensors = self.layers[number].state_dict()
        return {name: tensors[here] for name, here in LAYER_NAMES.items() if here in tensors}

    def _memory_shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        config = self.config
        extra = int(config.normalisation == "paper")
        retention = (config.layers, batch, config.heads, config.head_dim + extra, config.head_value_dim + extra)
        return retention, (config.layers, batch, config.window, config.convolved if config.conv_width else 0)

    def _rotation(self, tokens: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each pair's angle, `[batch, 1, length, head_dim / 2]`."""
        pairs = self.config.head_dim // 2
        # fp64, because positions grow for ever and fp32 angles lose whole turns after some 10,000 tokens.
        places = torch.arange(pairs, dtype=torch.float64, device=tokens.device)
        steps = pairs if self.config.rotary_spacing == "open" else max(pairs - 1, 1)
        positions = tokens[:, None] + torch.arange(length, device=tokens.device)
        angle = positions[:, None, :, None] * self.config.rotary_base ** (-places / steps)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def _check(self, ids: Tensor, memory: Memory | None, form: str, chunk: int) -> None:
        """Values are read back on the CPU only, as in `retention.check`."""
        if form not in ("chunkwise", "parallel", "recurrent"):
            raise RetentionError(f"form is 'chunkwise', 'parallel' or 'recurrent', not {form!r}")
        if chunk < 1:
            raise RetentionError(f"chunk must be at least 1, not {chunk}")
        if ids.ndim != 2 or not ids.numel():
            raise RetentionError(f"ids have the shape {tuple(ids.shape)}; expected [batch, length], each at least 1")
        readable = ids.device.type == "cpu" and not torch.compiler.is_compiling()
        if readable and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocabulary:
            raise RetentionError(
                f"ids lie between {int(ids.min())} and {int(ids.max())}; expected 0 to {self.config.vocabulary - 1}"
            )
        if memory is None:
            return
        expected = dict(zip(("retention", "window"), self._memory_shapes(ids.shape[0]), strict=True)) | {
            "tokens": (ids.shape[0],)
        }
        for name, shape in expected.items():
            given: Tensor = getattr(memory, name)
            if tuple(given.shape) != shape:
                raise RetentionError(f"the memory's {name} has the shape {tuple(given.shape)}; expected {shape}")
            if readable and not bool(given.isfinite().all()):
                raise RetentionError(f"the memory's {name} is not finite at {(~given.isfinite()).nonzero()[0].tolist()}")


def _rms_norm(x: Tensor, eps: float, weight: Tensor | None) -> Tensor:
    values = x.to(accumulation_type(x))
    normed = values * (values.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (normed if weight is None else normed * weight).to(x.dtype)


def _turn(heads: Tensor, rotation: tuple[Tensor, Tensor], config: RetNetConfig) -> Tensor:
    """Pairs of channels turned by their position's angle (rotary embedding, arXiv 2104.09864): `[batch, heads, length, head_dim]` to the same."""
    cosine, sine = rotation
    interleaved = config.rotary_pairs == "interleaved"
    first, second = (heads[..., ::2], heads[..., 1::2]) if interleaved else heads.chunk(2, -1)
    turned = first * cosine - second * sine, second * cosine + first * sine
    return (torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)).to(heads.dtype)

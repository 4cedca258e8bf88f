"""The gated RetNet as a function: ids and memory in, hidden states and changed memory out.

A forward pass takes *rows*: one token each of several conversations that are writing, then whole spans of conversations that are reading.
All rows share the matrix products; only retention and the short convolution look at who is who.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from retnet_core import native
from retnet_core.config import RetNetConfig
from retnet_core.lanes import Lanes
from retnet_core.quantize import Linear, bytes_held
from retnet_core.retention import CHUNK, gated_log_decay, recurrent_step_, retention_chunkwise
from retnet_core.state import State, shapes_of
from retnet_core.tokenizer import Tokenizer


class Lookup(Protocol):
    """The embedding: int64 ids `[rows]` to fp32 `[rows, width]`."""

    def __call__(self, ids: Tensor, /) -> Tensor: ...


@dataclass(slots=True)
class Layer:
    """The weights of one layer; norms, convolution and gate in fp32, the four large matrices as `Linear`s.

    `projection`: q, k, v and g stacked; `expand`: the feed-forward's gate and up stacked; `convolution`: `[conv_width, 3 · inner]`, oldest first.
    """

    retention_norm: Tensor
    projection: Linear
    convolution: Tensor
    gate_weight: Tensor
    gate_bias: Tensor
    rate: Tensor
    group_norm: Tensor
    output: Linear
    feed_forward_norm: Tensor
    expand: Linear
    contract: Linear


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one reading conversation: `length` rows, in lane `lane` of `lanes`."""

    lanes: Lanes
    lane: int
    length: int


class Model:
    """A RetNet of the shipped kind, ready to run (`ValueError` for other options), on the device that its weights are on.

    Its weights never change; any number of threads may call it, each with its own lanes.
    """

    def __init__(
        self,
        config: RetNetConfig,
        layers: Sequence[Layer],
        embed: Lookup,
        final_norm: Tensor,
        head: Linear,
        *,
        fingerprint: str,
        precision: str,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        if config.changed_options or not config.conv_width:
            other = config.changed_options or {"conv_width": 0}
            raise ValueError(
                f"the engine runs RetNets of the shipped kind; this one differs in {other}: run it as a retnet_core.RetNet"
            )
        self.config = config
        self.precision = precision
        self.device = final_norm.device
        self.fingerprint = fingerprint
        self._tokenizer = tokenizer
        self._layers = list(layers)
        self._embed, self._final_norm, self._head = embed, final_norm, head
        # fp64, because positions grow for ever and fp32 angles lose whole turns after some 10,000 tokens.
        pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device=self.device)
        self._frequencies = config.rotary_base ** (-pairs / config.head_dim)
        # Queries carry the 1/√head_dim of the attention they came from.
        self._rotary_scale = torch.ones(2 * config.heads, 1, dtype=torch.float32, device=self.device)
        self._rotary_scale[: config.heads] = config.head_dim**-0.5
        self._network = _network(config, self._layers)

    @property
    def kernels(self) -> str:
        """What computes a pass: the name of a target of `retnet_core.native`, or torch."""
        kernels = native.library() if self._network is not None else None
        return kernels.target if kernels is not None else "torch"

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes that the weights take, by what they are for. An embedding that is the head's own matrix counts as the head."""
        small = ("retention_norm", "convolution", "gate_weight", "gate_bias", "rate", "group_norm", "feed_forward_norm")
        return {
            "embedding": getattr(self._embed, "nbytes", 0),
            "head": bytes_held(self._head),
            "retention": sum(bytes_held(matrix) for layer in self._layers for matrix in (layer.projection, layer.output)),
            "feed-forward": sum(bytes_held(matrix) for layer in self._layers for matrix in (layer.expand, layer.contract)),
            "norms, convolutions and decays": self._final_norm.nbytes
            + sum(getattr(layer, name).nbytes for layer in self._layers for name in small),
        }

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of this model. Raises `LookupError` for a model that was built without one."""
        if self._tokenizer is None:
            raise LookupError("this model was built without a tokenizer")
        return self._tokenizer

    @property
    def tokenizer_fingerprint(self) -> str:
        """The tokenizer's fingerprint, or empty without one."""
        return self._tokenizer.fingerprint if self._tokenizer else ""

    def use_threads(self, count: int) -> None:
        """From now on, passes that this thread makes run on so many threads of the processor."""
        native.use_threads(count)
        # What torch does beside the kernels is small. Threads of its own would save little there, and wait for more work, spinning, on the
        # very cores that the kernels' threads want next.
        torch.set_num_threads(1 if self._network is not None else count)

    def new_state(self) -> State:
        """The memory of a conversation that has consumed nothing."""
        retention, window = shapes_of(self.config)
        return State(torch.zeros(retention), torch.zeros(window), 0, self.fingerprint, self.tokenizer_fingerprint)

    def state_of(self, lanes: Lanes, lane: int) -> State:
        """The content of a lane as a value."""
        return lanes.read(lane, self.fingerprint, self.tokenizer_fingerprint)

    @torch.inference_mode()
    def read(self, ids: Sequence[int], state: State | None = None, *, chunk: int = CHUNK) -> tuple[Tensor, State]:
        """Feed ids after a state, `chunk` at a time (1 is the recurrent form), without an engine.

        Returns the fp32 logits `[len(ids), vocabulary]` after each id, on the host, and the new state; the given one stays as it is.
        """
        lanes = Lanes(self.config, 1, self.device)
        if state is not None:
            lanes.write(0, state)
        logits = [torch.empty(0, self.config.vocabulary)]
        for start in range(0, len(ids), chunk):
            part = torch.tensor(ids[start : start + chunk])
            hidden = self.forward(part, lanes, 1, []) if chunk == 1 else self.forward(part, None, 0, [Span(lanes, 0, len(part))])
            logits.append(self.logits(hidden).cpu())
        with torch.inference_mode(False):
            # So that the caller may change them: torch forbids that for tensors made in inference mode.
            return torch.cat(logits).clone(), self.state_of(lanes, 0)

    @torch.inference_mode()
    def forward(self, ids: Tensor, writing: Lanes | None, writers: int, reading: Sequence[Span]) -> Tensor:
        """One pass over rows: one id for each of the first `writers` lanes of `writing`, then the ids of every span in `reading`.

        `ids`: int64 `[writers + sum of span lengths]`, on the host or on the device. Changes the lanes, which are on the model's device, in
        place. Returns the hidden states after the final norm `[rows, width]`, on that device, for whose work nothing here waits.
        """
        rotation = self._rotation(self._positions(writing, writers, reading).to(self.device, non_blocking=True))
        x = self._embed(ids.to(self.device, non_blocking=True))
        if self._network is not None:
            x = x.contiguous()
            self._network.forward(x, rotation, _sequences(writing, writers, reading))
        else:
            # q carries its scale in the rotation.
            rotation = rotation[:, None] * self._rotary_scale
            for number, layer in enumerate(self._layers):
                x = x + self._retention(number, layer, x, rotation, writing, writers, reading)
                x = x + self._feed_forward(layer, x)
        if writing is not None:
            writing.tokens[:writers] += 1
        for span in reading:
            span.lanes.tokens[span.lane] += span.length
        return _rms_norm(x, self.config.norm_eps, self._final_norm)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits `[rows, vocabulary]` of hidden states `[rows, width]`, both on the model's device."""
        return self._head(hidden)

    def _positions(self, writing: Lanes | None, writers: int, reading: Sequence[Span]) -> Tensor:
        """Of every row, on the host: int64 `[rows]`."""
        parts = [writing.tokens[:writers]] if writing is not None else []
        parts += [torch.arange(span.length) + span.lanes.tokens[span.lane] for span in reading]
        return torch.cat(parts)

    def _rotation(self, positions: Tensor) -> Tensor:
        """Unit complex numbers that turn the interleaved pairs of q and k: complex64 `[rows, head_dim / 2]`."""
        angle = (positions[:, None].double() * self._frequencies).remainder_(2 * torch.pi).float()
        return torch.polar(torch.ones_like(angle), angle)

    def _retention(
        self, number: int, layer: Layer, x: Tensor, rotation: Tensor, writing: Lanes | None, writers: int, reading: Sequence[Span]
    ) -> Tensor:
        """Multi-scale gated retention, `(GroupNorm(O) ⊙ swish(X W_G)) W_O` (arXiv 2307.08621, equation 8): `[rows, width]` to the same."""
        config = self.config
        normed = _rms_norm(x, config.norm_eps, layer.retention_norm)
        projected, gate = layer.projection(normed).split([config.convolved, config.inner], -1)
        log_decay = gated_log_decay(F.linear(normed, layer.gate_weight, layer.gate_bias), layer.rate, config.gate_limit)
        parts = []
        if writing is not None:
            part = slice(0, writers)
            convolved = _convolve_step_(projected[part], layer.convolution, writing.window[number, :writers])
            q, k, v = self._heads(convolved, rotation[part])
            parts.append(recurrent_step_(q, k, v, log_decay[part].exp(), writing.retention[number, :writers]))
        start = writers
        for span in reading:
            part = slice(start, start + span.length)
            start += span.length
            convolved = _convolve_span_(projected[part], layer.convolution, span.lanes.window[number, span.lane])
            q, k, v = (heads.transpose(0, 1).unsqueeze(0) for heads in self._heads(convolved, rotation[part]))
            memory = span.lanes.retention[number, span.lane]
            output, state = retention_chunkwise(q, k, v, log_decay[part].T.unsqueeze(0), memory.unsqueeze(0))
            memory.copy_(state[0])
            parts.append(output[0].transpose(0, 1))
        heads = _rms_norm(parts[0] if len(parts) == 1 else torch.cat(parts), config.norm_eps)
        return layer.output(heads.reshape(-1, config.inner).mul_(layer.group_norm).mul_(F.silu(gate)))

    def _heads(self, convolved: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q and k turned, and v, each `[rows, heads, head_dim]`, from `[rows, 3 · inner]`."""
        config = self.config
        stacked = convolved.view(-1, 3 * config.heads, config.head_dim)
        pairs = torch.view_as_complex(stacked[:, : 2 * config.heads].unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * rotation).flatten(-2)
        return turned[:, : config.heads], turned[:, config.heads :], stacked[:, 2 * config.heads :]

    def _feed_forward(self, layer: Layer, x: Tensor) -> Tensor:
        """`down(swish(gate x) · up x)`, `[rows, width]` to the same."""
        normed = _rms_norm(x, self.config.norm_eps, layer.feed_forward_norm)
        gate, up = layer.expand(normed).chunk(2, -1)
        return layer.contract(F.silu(gate).mul_(up))


def _network(config: RetNetConfig, layers: Sequence[Layer]) -> native.Network | None:
    """The layers as one call, if every matrix is the kernels' own and the heads divide into their groups."""
    matrices = [matrix for layer in layers for matrix in (layer.projection, layer.output, layer.expand, layer.contract)]
    kernels = native.library() if matrices and all(isinstance(matrix, native.Matrix) for matrix in matrices) else None
    if kernels is None or config.head_dim % native.GROUP or config.head_dim > native.LARGEST_HEAD:
        return None
    return native.Network(config, layers, kernels)


def _sequences(writing: Lanes | None, writers: int, reading: Sequence[Span]) -> list[tuple[Tensor, Tensor, int]]:
    """Whose rows are whose: each writer's and reader's retention, window and number of rows."""
    places = [(writing, lane, 1) for lane in range(writers)] if writing is not None else []
    places += [(span.lanes, span.lane, span.length) for span in reading]
    return [(lanes.retention[:, lane], lanes.window[:, lane], length) for lanes, lane, length in places]


def _rms_norm(x: Tensor, eps: float, weight: Tensor | None = None) -> Tensor:
    """`x / √(mean(x²) + eps)` over the last dimension, times a weight if there is one."""
    if x.is_cuda:
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    # Half the time of torch's own, which is no single kernel on a CPU.
    normed = x * torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
    return normed if weight is None else normed.mul_(weight)


def _convolve_step_(projected: Tensor, kernel: Tensor, window: Tensor) -> Tensor:
    """The causal depthwise convolution at one new token of each lane; moves `window` `[lanes, width − 1, channels]` on in place.

    `projected`: `[lanes, channels]`; `kernel`: `[width, channels]`, oldest first. Returns `[lanes, channels]`.
    """
    seen = torch.cat((window, projected.unsqueeze(1)), 1)
    window.copy_(seen[:, 1:])
    return (seen * kernel).sum(1)


def _convolve_span_(projected: Tensor, kernel: Tensor, window: Tensor) -> Tensor:
    """The same at every token of a span: `projected` `[length, channels]`, `window` `[width − 1, channels]` of its lane, changed in place."""
    length = projected.shape[0]
    seen = torch.cat((window, projected))
    window.copy_(seen[length:])
    convolved = seen[:length] * kernel[0]
    for place in range(1, kernel.shape[0]):
        convolved.addcmul_(seen[place : place + length], kernel[place])
    return convolved

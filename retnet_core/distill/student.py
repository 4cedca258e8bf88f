"""The gated RetNet in the form that is trained: the shipped weights in fp32, or the teacher's own as a beginning.

Of all layers together each kind of weight is one tensor `[layers, …]` under the name of the files (`retnet_core.delta`): optimisers, clipping
and the exchange of gradients then have some twenty tensors instead of hundreds. The base's feed-forward and embedding stay frozen, for only
what is trained is shipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retnet_core.delta import FINAL_NORM, LOW_RANK, STORED, Delta, layer_shapes
from retnet_core.distill import DistillError
from retnet_core.distill.retention_kernel import RESET, retention
from retnet_core.distill.teacher import Base, Teacher, feed_forward, rms_norm, rotation, turn

LOOK_BACK = (1.0, 4000.0)
"""Tokens; a head's half-life begins within these."""
RATES = (2**-11, -math.log(1 - 2**-4.5))
"""−log γ at the beginning lies within these: γ between 1 − 2^−4.5 and 1 − 2^−11."""
_FROZEN = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
_MATRICES = ("wi", "cw", "wo")
"""What is cast to the type of the computation as a whole; norms and decays stay fp32."""
_SMALL = ("n1", "n2", "gn", "wa", "ba", "ll")


class Student(nn.Module):
    """Parameters under the names of the files; `hidden` computes over packed rows."""

    def __init__(self, base: Base, tensors: Mapping[str, Tensor], dtype: torch.dtype, *, compiled: bool = False) -> None:
        super().__init__()
        self.config, self.dtype = base.config, dtype
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor.float().contiguous()))
        self.register_buffer("embedding", base.tensors["token_embd.weight"].to(dtype))
        for name, stored in _FROZEN.items():
            rows = [base.tensors[f"blk.{number}.{stored}.weight"] for number in range(base.config.layers)]
            self.register_buffer(name, torch.stack(rows).float())
        wrap: Any = torch.compile if compiled else lambda made, **_: made
        self._before: Callable[..., tuple[Tensor, ...]] = wrap(self._before_retention, dynamic=False)  # type: ignore[assignment]
        self._after = wrap(self._after_retention, dynamic=False)

    @classmethod
    def from_weights(cls, base: Base, place: Path, dtype: torch.dtype = torch.float32, *, compiled: bool = False) -> Student:
        """From a folder of weights as shipped. Raises `CheckpointError` for what does not fit."""
        config = base.config
        with Delta(place) as delta:
            delta.check(config)
            low = [letter + side for letter in LOW_RANK.values() for side in "AB"]
            names = [*STORED.values(), *(name for name in low if f"0.{name}" in delta)]
            tensors = {name: torch.stack([delta.tensor(f"{number}.{name}") for number in range(config.layers)]) for name in names}
            tensors[FINAL_NORM] = delta.tensor(FINAL_NORM)
        return cls(base, tensors, dtype, compiled=compiled)

    @classmethod
    def from_teacher(
        cls,
        base: Base,
        look_back: Tensor,
        rank: int,
        dtype: torch.dtype = torch.float32,
        *,
        seed: int = 0,
        compiled: bool = False,
    ) -> Student:
        """The teacher's weights, key and value heads repeated; each head's half-life is its look-back `[layers, heads]` in tokens."""
        config, drawn = base.config, torch.Generator().manual_seed(seed)
        shared = config.heads // base.key_heads

        def every(stored: str) -> list[Tensor]:
            return [base.tensors[f"blk.{number}.{stored}.weight"].float() for number in range(config.layers)]

        def repeated(weight: Tensor) -> Tensor:
            return weight.unflatten(0, (base.key_heads, -1)).repeat_interleave(shared, 0).flatten(0, 1)

        gates = torch.randn(config.layers, config.inner, config.width, generator=drawn) * config.width**-0.5
        stacked = zip(every("attn_q"), every("attn_k"), every("attn_v"), gates, strict=True)
        projections = [torch.cat((q, repeated(k), repeated(v), g)) for q, k, v, g in stacked]
        tensors = _plain(config.layers, layer_shapes(config))
        tensors |= {
            "n1": torch.stack(every("attn_norm")),
            "n2": torch.stack(every("ffn_norm")),
            "wi": torch.stack(projections),
            "wo": torch.stack(every("attn_output")),
            "ll": (math.log(2) / look_back.clamp(*LOOK_BACK)).clamp(*RATES).log(),
            FINAL_NORM: base.tensors["output_norm.weight"].float().clone(),
        }
        student = cls(base, tensors, dtype, compiled=compiled)
        student.add_low_rank(rank, seed)
        return student

    def add_low_rank(self, rank: int, seed: int = 0) -> None:
        """Corrections of the feed-forward that begin at nothing, `W + B A`; 0: none."""
        if not rank:
            return
        drawn, device = torch.Generator().manual_seed(seed + 1), self.get_parameter("wi").device
        for name, letter in LOW_RANK.items():
            layers, out, width = self.get_buffer(name).shape
            first = torch.randn(layers, rank, width, generator=drawn) * width**-0.5
            self.register_parameter(f"{letter}A", nn.Parameter(first.to(device)))
            self.register_parameter(f"{letter}B", nn.Parameter(torch.zeros(layers, out, rank, device=device)))

    def train_only(self, prefixes: Sequence[str]) -> None:
        """Freeze every weight whose name is not among `prefixes`; none given: all are trained. Raises `DistillError` for an unknown name."""
        names = {name for name, _ in self.named_parameters()}
        if unknown := set(prefixes) - names:
            raise DistillError(f"trained: {', '.join(sorted(unknown))} is unknown; known are {', '.join(sorted(names))}")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not prefixes or name in prefixes)

    def hidden(self, ids: Tensor, since: Tensor | None = None) -> Tensor:
        """The states after the final norm, `[batch, length, width]`, in the type of the computation.

        `ids`: int64 `[batch, length]`; `since`: int64 of the same shape, how many tokens of the same document stand before each (None: one
        document a row). Nothing of another document is seen.
        """
        x = F.embedding(ids, self.get_buffer("embedding"))
        for given in self._inputs(ids, since):
            q, k, v, gate, log_decay = self._before(x, *given[0])
            x = self._after(x, retention(q, k, v, log_decay), gate, *given[1])
        return rms_norm(x, self.get_parameter(FINAL_NORM), self.config.norm_eps)

    def retained(self, ids: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What each layer's retention adds to the given input `[batch, length, width]`, as the teacher's attention would."""
        found = []
        for x, (before, after) in zip(inputs, self._inputs(ids, None), strict=True):
            q, k, v, gate, log_decay = self._before(x, *before)
            found.append(self._combine(retention(q, k, v, log_decay), gate, *after[:2]))
        return found

    def _inputs(self, ids: Tensor, since: Tensor | None) -> list[tuple[list[Tensor], list[Tensor]]]:
        """What the two halves of each layer take beside x."""
        length = ids.shape[1]
        if since is None:
            since = torch.arange(length, device=ids.device).expand_as(ids)
        turned = rotation(length, self.config, ids.device)
        # Cast and merged for all layers at once.
        matrices = {name: self.get_parameter(name).to(self.dtype).unbind() for name in _MATRICES}
        small = {name: self.get_parameter(name).unbind() for name in _SMALL}
        merged = [self._merged(name).unbind() for name in LOW_RANK]
        return [
            (
                [*turned, since, small["n1"][i], matrices["wi"][i], matrices["cw"][i]]
                + [small[name][i] for name in ("wa", "ba", "ll")],
                [small["gn"][i], matrices["wo"][i], small["n2"][i], *(part[i] for part in merged)],
            )
            for i in range(self.config.layers)
        ]

    def _merged(self, name: str) -> Tensor:
        weight, letter = self.get_buffer(name), LOW_RANK[name]
        if f"{letter}A" in self._parameters:
            weight = torch.baddbmm(weight, self.get_parameter(f"{letter}B"), self.get_parameter(f"{letter}A"))
        return weight.to(self.dtype)

    def _before_retention(
        self, x: Tensor, cosine: Tensor, sine: Tensor, since: Tensor, norm: Tensor, projection: Tensor, taps: Tensor,
        gate_weight: Tensor, gate_bias: Tensor, rate: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        config = self.config
        normed = rms_norm(x, norm, config.norm_eps)
        projected, gate = F.linear(normed, projection).split([config.convolved, config.inner], -1)
        heads = _convolved(projected, taps, since).unflatten(-1, (-1, config.head_dim))
        q, k, v = heads.split([config.heads] * 3, 2)
        q, k = turn(q, cosine, sine) * config.head_query_scale, turn(k, cosine, sine)
        opening = F.linear(normed.float(), gate_weight, gate_bias).clamp(-config.gate_limit, config.gate_limit)
        log_decay = -torch.exp(opening + rate) + RESET * (since == 0).unsqueeze(-1)
        return q, k, v.contiguous(), gate, log_decay

    def _combine(self, heads: Tensor, gate: Tensor, group_norm: Tensor, output: Tensor) -> Tensor:
        normed = rms_norm(heads, None, self.config.norm_eps).flatten(2)
        return F.linear((normed * group_norm * F.silu(gate)).to(self.dtype), output)

    def _after_retention(
        self, x: Tensor, heads: Tensor, gate: Tensor, group_norm: Tensor, output: Tensor, norm: Tensor, *matrices: Tensor
    ) -> Tensor:
        x = x + self._combine(heads, gate, group_norm, output)
        return x + feed_forward(rms_norm(x, norm, self.config.norm_eps), *matrices)


def _plain(layers: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Layers whose convolution changes nothing and whose decays do not depend on the input."""
    stored = {STORED[name]: torch.zeros(layers, *shape) for name, shape in shapes.items() if name in STORED}
    stored["cw"][:, :, -1] = 1
    stored["gn"].fill_(1)
    return stored


def _convolved(projected: Tensor, taps: Tensor, since: Tensor) -> Tensor:
    """The causal depthwise convolution, `[batch, length, channels]`; taps `[channels, width]`, the last for the token itself."""
    length, width = projected.shape[1], taps.shape[1]
    out = projected * taps[:, -1]
    for back in range(1, width):
        earlier = F.pad(projected, (0, 0, back, 0))[:, :length]
        out = out + earlier * (since >= back).unsqueeze(-1) * taps[:, width - 1 - back]
    return out


def begin(
    base: Base, weights: str, rank: int, ids: Tensor, device: torch.device, dtype: torch.dtype, *, compiled: bool
) -> Student:
    """The student of a run: from the folder `weights`, or where it is "teacher" from the teacher, decays by its look-back over `ids`."""
    if weights != "teacher":
        return Student.from_weights(base, Path(weights), dtype, compiled=compiled).to(device)
    look_back = Teacher(base, device, torch.float32).look_back(ids.to(device))
    return Student.from_teacher(base, look_back, rank, dtype, compiled=compiled).to(device)

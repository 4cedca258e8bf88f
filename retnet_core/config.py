"""The shape of a RetNet: every number and option that the layers, the state and the checkpoint agree on."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Literal, get_args

Decay = Literal["gated", "paper", "release"]
RotaryPairs = Literal["interleaved", "halves"]
RotarySpacing = Literal["open", "closed"]
HeadNorm = Literal["channel", "shared", "none"]
ConvActivation = Literal["none", "silu"]
FeedForwardActivation = Literal["swish", "gelu"]
Normalisation = Literal["none", "paper"]
_CHOICES = {
    "decay": Decay,
    "rotary_pairs": RotaryPairs,
    "rotary_spacing": RotarySpacing,
    "head_norm": HeadNorm,
    "conv_activation": ConvActivation,
    "feed_forward_activation": FeedForwardActivation,
    "normalisation": Normalisation,
}
_SIZES = ("layers", "width", "heads", "head_dim", "feed_forward", "vocabulary")
_ALWAYS = (*_SIZES, "rotary_base", "norm_eps", "conv_width", "gate_limit")
"""What `to_json` always writes."""


@dataclass(frozen=True, slots=True)
class RetNetConfig:
    """Sizes and options of a RetNet; the defaults are those of the shipped checkpoint.

    The first block are sizes; the second are options, which also describe the RetNets of torchscale and flash-linear-attention.
    `retnet_core.network` trains and runs all of them; the inference engine those with a convolution whose options are all at their default
    (`changed_options` is empty).
    Raises `ValueError` for a value that does not fit, naming it.
    """

    layers: int = 30
    width: int = 576
    heads: int = 9
    head_dim: int = 64
    """Size of a head's queries and keys, and of its values unless `value_dim` says otherwise."""
    feed_forward: int = 1536
    vocabulary: int = 49152
    rotary_base: float = 1e5
    norm_eps: float = 1e-5
    conv_width: int = 4
    """Taps of the short causal convolution on q, k and v; 0 for none."""
    gate_limit: float = 5.0
    """Bound on the input-dependent part of the log-log decay, both sides (as trained)."""

    value_dim: int | None = None
    """Size of a head's values; None: as large as its keys."""
    decay: Decay = "gated"
    """`gated`: from the input (arXiv 2405.05254); `paper`, `release`: the fixed schedules of `retnet_core.retention.fixed_log_decay`."""
    conv_activation: ConvActivation = "none"
    """After the convolution."""
    rotary_pairs: RotaryPairs = "interleaved"
    """Which channels of a head turn together: 0 and 1, 2 and 3 …, or each of the first half with its own in the second."""
    rotary_spacing: RotarySpacing = "open"
    """Turns a token of pair i of n: `base^(−i/n)`, or `closed` as in torchscale, `base^(−i/(n−1))`, so that the last is 1/base itself."""
    query_scale: float | None = None
    """Factor on q; None: `1/√head_dim`."""
    normalisation: Normalisation = "none"
    """`paper`: rows of D and row sums as well (arXiv 2307.08621, section 2.1); see `retnet_core.retention.retention_normalised`."""
    head_norm: HeadNorm = "channel"
    """Weight after the norm of each head: one a channel of all heads, one a channel shared by all heads, or none."""
    feed_forward_activation: FeedForwardActivation = "swish"
    tied: bool = True
    """Whether the output projection is the embedding's own matrix."""
    embedding_scale: float = 1.0
    """Factor on the embedding of an id, not on the output projection."""

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary pairs, not {self.head_dim}")
        if self.conv_width < 0 or self.conv_width == 1:
            raise ValueError(f"conv_width must be at least 2, or 0 for no convolution, not {self.conv_width}")
        if self.value_dim is not None and self.value_dim < 1:
            raise ValueError(f"value_dim must be at least 1, or None for head_dim, not {self.value_dim}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, not {getattr(self, name)!r}")

    @property
    def inner(self) -> int:
        """Width of q and of k."""
        return self.heads * self.head_dim

    @property
    def head_value_dim(self) -> int:
        """Size of a head's values."""
        return self.head_dim if self.value_dim is None else self.value_dim

    @property
    def value_inner(self) -> int:
        """Width of v and of the output gate."""
        return self.heads * self.head_value_dim

    @property
    def convolved(self) -> int:
        """Width of what the short convolution sees: q, k and v side by side."""
        return 2 * self.inner + self.value_inner

    @property
    def window(self) -> int:
        """How many earlier projections the short convolution remembers."""
        return max(self.conv_width - 1, 0)

    @property
    def head_query_scale(self) -> float:
        """Factor on q."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

    @property
    def changed_options(self) -> dict[str, object]:
        """The options that differ from the shipped model's, by name; a value spelt out that is the default's own does not differ."""
        options = {field.name: (getattr(self, field.name), field.default) for field in fields(self) if field.name not in _ALWAYS}
        same = {"value_dim": self.head_value_dim == self.head_dim, "query_scale": self.head_query_scale == self.head_dim**-0.5}
        return {name: value for name, (value, default) in options.items() if value != default and not same.get(name, False)}

    def to_json(self) -> str:
        """The same text for the same sizes and options, so that it can be hashed. Options at their default are left out: a state stored
        before an option existed keeps its model's hash."""
        return json.dumps(
            {**{name: getattr(self, name) for name in _ALWAYS}, **self.changed_options}, sort_keys=True, separators=(",", ":")
        )

    @classmethod
    def from_json(cls, text: str) -> RetNetConfig:
        """The configuration that `to_json` wrote. Raises `ValueError` for a text that is none, naming what is unknown."""
        given = json.loads(text)
        if not isinstance(given, dict):
            raise ValueError("a configuration is an object of names and values")
        unknown = sorted(set(given) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"a configuration has no {', '.join(unknown)}")
        return cls(**given)

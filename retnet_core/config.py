"""The shape of a RetNet: every number that the layers, the state and the checkpoint agree on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class RetNetConfig:
    """Sizes of a gated RetNet with short convolutions; the defaults are those of the shipped checkpoint.

    The heads' keys and values have the same size, `head_dim`; `heads * head_dim` is the inner width of retention.
    """

    layers: int = 30
    width: int = 576
    heads: int = 9
    head_dim: int = 64
    feed_forward: int = 1536
    vocabulary: int = 49152
    rotary_base: float = 1e5
    norm_eps: float = 1e-5
    conv_width: int = 4
    gate_limit: float = 5.0
    """Bound on the input-dependent part of the log-log decay, both sides (as trained)."""

    def __post_init__(self) -> None:
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary pairs, not {self.head_dim}")
        if self.conv_width < 2:
            raise ValueError(f"conv_width must be at least 2, not {self.conv_width}")

    @property
    def inner(self) -> int:
        """Width of q, of k, of v and of the output gate."""
        return self.heads * self.head_dim

    @property
    def convolved(self) -> int:
        """Width of what the short convolution sees: q, k and v side by side."""
        return 3 * self.inner

    @property
    def window(self) -> int:
        """How many earlier projections the short convolution remembers."""
        return self.conv_width - 1

    def to_json(self) -> str:
        """The same text for the same sizes, so that it can be hashed."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

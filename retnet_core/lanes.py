"""Memory in which conversations run, lane by lane, changed in place."""

from __future__ import annotations

import torch
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.state import State


class Lanes:
    """Preallocated memory in which conversations run: lane by lane the same content as a `State`, but changed in place.

    `retention`: `[layers, lanes, heads, head_dim, head_dim]`; `window`: `[layers, lanes, conv_width − 1, 3 · inner]`; `tokens`: int64 `[lanes]`.
    Layers come first, so that the first n lanes of a layer are one contiguous block. They live on `device`, where the model's weights are;
    the counts of tokens stay on the host, which would otherwise wait for the device before every pass.
    """

    def __init__(self, config: RetNetConfig, lanes: int, device: torch.device | None = None) -> None:
        self.retention = torch.zeros(config.layers, lanes, config.heads, config.head_dim, config.head_dim, device=device)
        self.window = torch.zeros(config.layers, lanes, config.window, config.convolved, device=device)
        self.tokens = torch.zeros(lanes, dtype=torch.int64)

    def write(self, lane: int, state: State) -> None:
        """Continue from a state in this lane; the state itself is copied, never touched."""
        self.retention[:, lane] = state.retention
        self.window[:, lane] = state.window
        self.tokens[lane] = state.tokens

    def clear(self, lane: int) -> None:
        """Forget everything in this lane."""
        self.retention[:, lane].zero_()
        self.window[:, lane].zero_()
        self.tokens[lane] = 0

    def copy(self, source: Lanes, source_lane: int, lane: int) -> None:
        """Take over the content of another lane."""
        self.retention[:, lane] = source.retention[:, source_lane]
        self.window[:, lane] = source.window[:, source_lane]
        self.tokens[lane] = source.tokens[source_lane]

    def read(self, lane: int, model_fingerprint: str, tokenizer_fingerprint: str) -> State:
        """The lane's content as a value of its own, on the host."""
        retention, window = (_copied(part[:, lane]) for part in (self.retention, self.window))
        return State(retention, window, int(self.tokens[lane]), model_fingerprint, tokenizer_fingerprint)


def _copied(part: Tensor) -> Tensor:
    """A contiguous copy on the host: a view would keep all lanes alive and change with them."""
    return torch.empty(part.shape).copy_(part)

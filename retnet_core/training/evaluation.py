"""What a model makes of text that it has not seen: its loss, by position in the context, and by how far back a pair of ids was seen before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from retnet_core.training.configuration import TrainingConfig
from retnet_core.training.data import Windows
from retnet_core.training.objective import Objective

POSITIONS = 16
"""Parts that a context is divided into for the loss by position."""
DISTANCES = (1, 32, 128, 512, 2048)
"""Bounds of the distances of `by_repetition`, in tokens."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The mean loss, in nats, of those of the ids that something is true for (None: of none), and how many they are."""

    name: str
    ids: int
    loss: float | None


@torch.no_grad()
def held_out_losses(objective: Objective, windows: Windows, config: TrainingConfig, count: int | None = None) -> Tensor:
    """The loss of every id of `count` held-out windows (None: all), fp32 on the CPU, `[windows, context]`."""
    device = next(objective.parameters()).device
    parts = windows.held_out(count).split(config.training.micro_batch)
    with uncompiled():
        return torch.cat([objective.losses(part.to(device)).float().cpu() for part in parts])


def uncompiled() -> AbstractContextManager[None]:
    """Evaluations have many shapes, and compiling for each would take longer than they do."""
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


def by_position(losses: Tensor, parts: int = POSITIONS) -> list[Slice]:
    """Of equal parts of the context. `losses`: `[windows, context]`."""
    bounds = torch.linspace(0, losses.shape[1], parts + 1).round().int().tolist()
    return [_slice(f"{low}–{high - 1}", losses[:, low:high]) for low, high in pairwise(bounds) if high > low]


def by_repetition(windows: Tensor, losses: Tensor, distances: Sequence[int] = DISTANCES) -> list[Slice]:
    """Of the ids that end a pair which the window already had, by how far back it was last, and of all others.

    Where a pair comes again, a reader that recalls the first one knows how it ends: most of what separates recurrent models from Transformers
    of equal size is in these ids (Zoology, arXiv 2312.04927, section 3). `windows`: `[windows, context + 1]`, `losses`: `[windows, context]`.
    """
    back = torch.zeros_like(losses, dtype=torch.int64)
    for row, ids in enumerate(windows.tolist()):
        last: dict[tuple[int, int], int] = {}
        for place in range(len(ids) - 1):
            pair = ids[place], ids[place + 1]
            back[row, place] = place - last.get(pair, place)
            last[pair] = place
    slices = [_slice("no pair seen before", losses[back == 0])]
    for low, high in pairwise(distances):
        slices.append(_slice(f"pair seen {low}–{high - 1} back", losses[(back >= low) & (back < high)]))
    return slices


def _slice(name: str, losses: Tensor) -> Slice:
    return Slice(name, losses.numel(), float(losses.double().mean()) if losses.numel() else None)

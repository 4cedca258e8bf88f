"""What a trained model recalls of its context: a passage that comes again, and values by their keys.

Both are put to a model as it is, without training on them. They are about reading far back, where a state of constant size has to choose what
it keeps and attention has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retnet_core.training.objective import Objective

PASSAGE = 64
"""Ids of the passage that is read twice."""
LEAD = 8
"""Ids at the beginning of the second reading that do not count: nobody knows yet that it is one."""
PASSAGE_DISTANCES = (64, 128, 256, 512, 1024, 1920)
"""Ids from the passage's beginning to its second reading's."""
PAIRS = (4, 8, 16, 32, 64, 128)
"""How many keys and values are read before the first is asked for."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """A passage after other text, and the same passage read before it at that distance: mean losses in nats."""

    distance: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """`correct`: the share of keys whose value is the likeliest of all values there were; `chance` is the share for guessing among them."""

    pairs: int
    correct: float
    chance: float


@torch.no_grad()
def repeated_passages(
    objective: Objective, windows: Tensor, *, batch: int, distances: Sequence[int] = PASSAGE_DISTANCES
) -> list[Repeated]:
    """The loss of a passage of 64 ids when it was read `distance` ids before, and when other text was there instead.

    `windows`: int64 `[windows, context + 1]`; each is the passage and what follows it, and lends the passage to be read before to nobody. A
    distance that the context has no room for is left out.
    """
    found = []
    for distance in distances:
        if distance + PASSAGE > windows.shape[1]:
            continue
        passage, between = windows[:, :PASSAGE], windows[:, PASSAGE:distance]
        other = passage.roll(1, 0)  # of another window, so that the lengths are the same
        found.append(
            Repeated(
                distance,
                first=_second_loss(objective, torch.cat((other, between, passage), 1), batch),
                second=_second_loss(objective, torch.cat((passage, between, passage), 1), batch),
            )
        )
    return found


def _second_loss(objective: Objective, ids: Tensor, batch: int) -> float:
    device = next(objective.parameters()).device
    parts = [objective.losses(part.to(device))[:, LEAD - PASSAGE :] for part in ids.split(batch)]
    return float(torch.cat(parts).double().mean())


@torch.no_grad()
def key_values(
    objective: Objective, vocabulary: Sequence[int], *, batch: int, counts: Sequence[int] = PAIRS, rows: int = 128
) -> list[Pairs]:
    """Multi-query associative recall (Zoology, arXiv 2312.04927, section 4) in a list: `k1 v1 k2 v2 … kn vn`, and then all keys again in
    another order, each followed by its value. Keys and values are ids drawn from `vocabulary`, no id twice; counts that it is too small for are
    left out.
    """
    device = next(objective.parameters()).device
    found = []
    for count in counts:
        if 2 * count > len(vocabulary):
            continue
        drawn = torch.Generator().manual_seed(count)
        ids, values = _lists(torch.tensor(vocabulary), count, rows, drawn)
        correct = 0.0
        for part, allowed in zip(ids.split(batch), values.split(batch), strict=True):
            with objective.precision(device):
                asked = objective.hidden(part.to(device))[:, 2 * count :: 2]
                logits = objective.network.logits(asked).float().cpu()
            # Among the values that there were: a model that has never seen such a list need not know that only they can follow.
            scores = logits.gather(2, allowed[:, None].expand(-1, count, -1))
            best = allowed.gather(1, scores.argmax(2))
            correct += float((best == part[:, 2 * count + 1 :: 2]).sum())
        found.append(Pairs(count, correct / (rows * count), 1 / count))
    return found


def _lists(vocabulary: Tensor, count: int, rows: int, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lists `[rows, 4 · count]` and their values in the order of the first reading `[rows, count]`."""
    chosen = torch.stack([vocabulary[torch.randperm(len(vocabulary), generator=drawn)[: 2 * count]] for _ in range(rows)])
    order = torch.stack([torch.randperm(count, generator=drawn) for _ in range(rows)])
    keys, values = chosen[:, :count], chosen[:, count:]
    again = torch.stack((keys.gather(1, order), values.gather(1, order)), 2).flatten(1)
    return torch.cat((torch.stack((keys, values), 2).flatten(1), again), 1), values

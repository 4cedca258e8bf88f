"""Losses over a large vocabulary with their gradient by hand: logits exist for a few thousand tokens at a time, and never for autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 8192
"""Tokens whose logits are held at once: 1.6 GB of fp32 at 49,152 ids."""


def _piece(
    hidden: Tensor, table: Tensor, wanted: Tensor, answer_weight: Tensor, taught: Tensor, teacher_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(cross-entropy, KL, gradient of the logits) of some tokens; cross-entropy and KL `[tokens]` unweighted."""
    student = F.linear(hidden, table).float().log_softmax(-1)
    teacher = F.linear(taught, table).float().log_softmax(-1)
    sought = teacher.exp()
    entropy = -student.gather(1, wanted[:, None])[:, 0]
    divergence = (sought * (teacher - student)).sum(-1)
    one = torch.arange(student.shape[1], device=wanted.device) == wanted[:, None]
    both = (answer_weight + teacher_weight)[:, None]
    gradient = student.exp() * both - sought * teacher_weight[:, None] - one * answer_weight[:, None]
    return entropy, divergence, gradient.to(hidden.dtype)


class Losses:
    """Cross-entropy where `answer_weight`, KL to the teacher where `teacher_weight` is above 0, through one frozen embedding."""

    def __init__(self, table: Tensor, *, compiled: bool = False, rows: int = ROWS) -> None:
        self.table, self.rows = table, rows
        self._piece: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.compile(_piece, dynamic=False) if compiled else _piece

    @torch.no_grad()
    def __call__(
        self, hidden: Tensor, wanted: Tensor, answer_weight: Tensor, taught: Tensor, teacher_weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`hidden`, `taught` `[tokens, width]`, `wanted` int64 and the weights fp32 `[tokens]`.

        Returns cross-entropy and KL `[tokens]`, unweighted, and the gradient of the weighted sum of both with respect to `hidden`.
        """
        entropies, divergences, gradients = [], [], []
        for start in range(0, hidden.shape[0], self.rows):
            part = slice(start, start + self.rows)
            entropy, divergence, logits = self._piece(
                hidden[part], self.table, wanted[part], answer_weight[part], taught[part], teacher_weight[part]
            )
            entropies.append(entropy)
            divergences.append(divergence)
            gradients.append(logits @ self.table)
        return torch.cat(entropies), torch.cat(divergences), torch.cat(gradients)

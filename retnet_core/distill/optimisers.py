"""Muon for the projections of retention, AdamW for everything else; both over stacks of all layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retnet_core.distill import DistillError
from retnet_core.distill.student import Student

MUON = ("wi", "wo")
MOMENTUM = 0.95
BETAS = (0.9, 0.95)
# The quintic iteration's coefficients (Jordan et al., Muon, 2024), and the scale that makes its step like AdamW's (arXiv 2502.16982).
ITERATIONS, COEFFICIENTS, SCALE = 5, (3.4445, -4.7750, 2.0315), 0.2


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """`decay`: the last share of a run, over which the rate falls to `final` of its height in a line."""

    rate: float = 7e-4
    convolution: float = 3.0  # times the rate
    warm_up: int = 50
    decay: float = 0.5
    final: float = 0.02
    clip: float = 1.0
    muon: int = 1  # 0: AdamW for everything

    def at(self, step: int, done: float) -> float:
        """The rate of step 1, 2, … when the share `done` of the run is over."""
        left = 1.0 if done < 1 - self.decay else max(self.final, (1 - done) / self.decay)
        return self.rate * min(1.0, step / max(self.warm_up, 1)) * left


def orthogonal(gradients: Tensor) -> Tensor:
    """Newton–Schulz: about U Vᵀ of each matrix of `[matrices, out, in]`, in bf16."""
    first, second, third = COEFFICIENTS
    values = gradients.bfloat16()
    tall = values.shape[-2] > values.shape[-1]
    values = values.mT if tall else values
    values = values / (values.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = values @ values.mT
        values = first * values + (second * square + third * (square @ square)) @ values
    return values.mT if tall else values


class Optimisers:
    """Both, over the weights of a student that are trained."""

    def __init__(self, student: Student, config: OptimiserConfig) -> None:
        self.config = config
        self.named = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
        self._inner = student.config.inner
        self.momentum = {name: torch.zeros_like(weight) for name, weight in self.named.items() if config.muon and name in MUON}
        others = {name: weight for name, weight in self.named.items() if name not in self.momentum}
        groups = [
            {"params": [weight for name, weight in others.items() if name != "cw"], "factor": 1.0},
            {"params": [weight for name, weight in others.items() if name == "cw"], "factor": config.convolution},
        ]
        self.adam = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.rate, betas=BETAS, weight_decay=0.0,
            fused=all(weight.is_cuda for weight in self.named.values()),
        )  # fmt: skip
        self._others = list(others.values())

    def step(self, rate: float) -> Tensor:
        """Clip, step and forget the gradients. Returns the norm of AdamW's gradients before clipping; what Muon takes has its own length."""
        norm = torch.nn.utils.clip_grad_norm_(self._others, self.config.clip)
        for group in self.adam.param_groups:
            group["lr"] = rate * group["factor"]
        self.adam.step()
        for name, momentum in self.momentum.items():
            self._muon(self.named[name], momentum, rate)
        for weight in self.named.values():
            weight.grad = None
        return norm

    @torch.no_grad()
    def _muon(self, weight: Tensor, momentum: Tensor, rate: float) -> None:
        assert weight.grad is not None
        momentum.mul_(MOMENTUM).add_(weight.grad)
        sought = weight.grad.add(momentum, alpha=MOMENTUM)
        # q, k, v and the gate are matrices of their own.
        parts = sought.unflatten(1, (-1, self._inner)).flatten(0, 1) if sought.shape[1] % self._inner == 0 else sought
        scale = SCALE * max(parts.shape[-2:]) ** 0.5
        weight.sub_(orthogonal(parts).float().view_as(weight), alpha=rate * scale)

    def state(self) -> dict[str, Tensor]:
        """Tensors by name, to be put back by `restore`."""
        found = {f"momentum/{name}": tensor for name, tensor in self.momentum.items()}
        for name, weight in self.named.items():
            found |= {f"{kind}/{name}": value for kind, value in self.adam.state.get(weight, {}).items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Raises `DistillError` for tensors of other weights."""
        for name, tensor in tensors.items():
            kind, _, own = name.partition("/")
            if own not in self.named or (kind == "momentum" and own not in self.momentum):
                raise DistillError(f"the checkpoint's optimiser has {name}, which is not trained here")
            if kind == "momentum":
                self.momentum[own].copy_(tensor)
                continue
            weight = self.named[own]
            on_host = kind == "step" and not self.adam.defaults["fused"]
            self.adam.state[weight][kind] = tensor.clone() if on_host else tensor.to(weight.device)

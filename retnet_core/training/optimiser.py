"""AdamW with decay on matrices alone, and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from retnet_core.training.configuration import Optimiser


def build_optimiser(network: nn.Module, config: Optimiser) -> torch.optim.AdamW:
    """AdamW over all weights of the network, fused where they are on a GPU."""
    named = dict(network.named_parameters())
    decayed = [name for name, weight in named.items() if decays(name, weight)]
    groups = [
        {"params": [named[name] for name in decayed], "weight_decay": config.weight_decay},
        {"params": [weight for name, weight in named.items() if name not in set(decayed)], "weight_decay": 0.0},
    ]
    on_gpu = all(weight.is_cuda for weight in named.values())
    return torch.optim.AdamW(groups, lr=config.rate, betas=(config.beta1, config.beta2), eps=config.eps, fused=on_gpu)


def decays(name: str, weight: torch.Tensor) -> bool:
    """Whether weight decay pulls it towards 0: matrices, and not the taps of a convolution, each of which scales a channel as a norm does."""
    return weight.ndim >= 2 and not name.endswith("convolution")


def learning_rate(step: int, steps: int, config: Optimiser) -> float:
    """At step 1, 2, …, `steps`: rising in a line for `warm_up` steps, then half a cosine down to `final_share` at the last."""
    if step <= config.warm_up:
        return config.rate * step / config.warm_up
    done = (step - config.warm_up) / max(steps - config.warm_up, 1)
    return config.rate * (config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * min(done, 1))) / 2)

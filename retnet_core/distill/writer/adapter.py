"""Tuning the writer on hand-written rows with low-rank adapters (LoRA, arXiv 2106.09685), which are then added into its weights.

The writer knows the language already; what it is to learn is what visitors ask and how, and which sentence answers. A few thousand rows are
enough for that and too few for all of its weights.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from retnet_core.distill.writer.qwen import Layer, Qwen, QwenConfig, rotate
from retnet_core.training.processes import Processes

MATRICES = ("queries_keys_values", "out", "gate_up", "down")


@dataclass(frozen=True, slots=True)
class Sample:
    """Ids of a prompt and of what is to be written after it; the loss is on the latter alone, each sample's mean counted `weight` times."""

    prompt: list[int]
    target: list[int]
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """How the writer is tuned."""

    rank: int = 32
    rate: float = 3e-4
    epochs: float = 2.0
    tokens: int = 12288
    """Of a step, padding included."""
    warm_up: int = 20
    clip: float = 1.0
    seed: int = 0


class Adapters(nn.Module):
    """Two thin matrices beside each matrix of each layer; the second begins at zero."""

    def __init__(self, network: Qwen, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.rank = rank
        self.pairs = nn.ParameterDict()
        for number, layer in enumerate(network.layers):
            for name in MATRICES:
                outer, inner = getattr(layer, name).shape
                down = torch.randn(rank, inner, generator=generator) / math.sqrt(inner)
                self.pairs[f"{number}-{name}-down"] = nn.Parameter(down.to(network.device))
                self.pairs[f"{number}-{name}-up"] = nn.Parameter(torch.zeros(outer, rank, device=network.device))

    def add(self, product: Tensor, rows: Tensor, number: int, name: str) -> Tensor:
        """`product` plus what the adapter of this matrix makes of `rows`."""
        down, up = self.pairs[f"{number}-{name}-down"], self.pairs[f"{number}-{name}-up"]
        return product + functional.linear(functional.linear(rows, down.to(rows.dtype)), up.to(rows.dtype))

    @torch.no_grad()
    def merge(self, network: Qwen) -> None:
        """Add the adapters into the network's weights."""
        for number, layer in enumerate(network.layers):
            for name in MATRICES:
                weight = getattr(layer, name)
                change = self.pairs[f"{number}-{name}-up"] @ self.pairs[f"{number}-{name}-down"]
                weight.copy_((weight.float() + change).to(weight.dtype))


def tune(
    network: Qwen, samples: Sequence[Sample], config: AdapterConfig, processes: Processes, log: Callable[[str], None]
) -> Adapters:
    """Train adapters on `samples`, each process on a batch of its own a step. Merge them to use them."""
    adapters = Adapters(network, config.rank, config.seed)
    optimiser = torch.optim.AdamW(adapters.parameters(), lr=config.rate, betas=(0.9, 0.99), weight_decay=0.0)
    batches = make_batches(samples, config)
    steps = math.ceil(len(batches) / processes.count)
    begun, tokens = time.time(), 0
    for step in range(steps):
        rate = config.rate * min(1.0, (step + 1) / config.warm_up) * (1 - step / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        # The last step may have fewer batches than there are processes: one is then taken again.
        batch = batches[(step * processes.count + processes.rank) % len(batches)]
        loss = mean_loss(network, batch, adapters)
        loss.backward()
        _share_gradients(adapters, processes)
        nn.utils.clip_grad_norm_(adapters.parameters(), config.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        tokens += sum(map(len, batch))
        if step % 20 == 19 or step + 1 == steps:
            speed = tokens / (time.time() - begun)
            log(f"tuning the writer: step {step + 1} of {steps}, loss {float(loss.detach()):.3f}, {speed:.0f} tokens/s")
    return adapters


def _share_gradients(adapters: Adapters, processes: Processes) -> None:
    """The mean of all processes' gradients, in place."""
    if processes.count == 1:
        return
    gradients = [parameter.grad for parameter in adapters.parameters() if parameter.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(joined)
    joined /= processes.count
    for gradient, part in zip(gradients, joined.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def make_batches(samples: Sequence[Sample], config: AdapterConfig) -> list[list[Sample]]:
    """Samples of like length together, in a random order, `epochs` times over."""
    shuffled = random.Random(config.seed)
    whole = int(config.epochs)
    batches: list[list[Sample]] = []
    for epoch in range(math.ceil(config.epochs)):
        share = 1.0 if epoch < whole else config.epochs - whole
        order = shuffled.sample(list(samples), round(len(samples) * share))
        order.sort(key=lambda one: len(one) + shuffled.random() * 24)
        made: list[list[Sample]] = [[]]
        for sample in order:
            if made[-1] and (len(made[-1]) + 1) * max(len(sample), *map(len, made[-1])) > config.tokens:
                made.append([])
            made[-1].append(sample)
        shuffled.shuffle(made)
        batches += made
    return batches


def mean_loss(network: Qwen, batch: Sequence[Sample], adapters: Adapters | None = None) -> Tensor:
    """Cross-entropy of the targets: the mean over each sample's tokens, then over samples by weight."""
    device = network.device
    ids = pad_sequence([torch.tensor(sample.prompt + sample.target) for sample in batch], batch_first=True).to(device)
    hidden = forward(network, ids, adapters)
    rows, places, weights = [], [], []
    for row, sample in enumerate(batch):
        start = len(sample.prompt) - 1
        rows += [row] * len(sample.target)
        places += range(start, start + len(sample.target))
        weights += [sample.weight / len(sample.target)] * len(sample.target)
    at_rows, at_places = torch.tensor(rows, device=device), torch.tensor(places, device=device)
    losses = functional.cross_entropy(
        network.logits(hidden[at_rows, at_places]).float(), ids[at_rows, at_places + 1], reduction="none"
    )
    share = torch.tensor(weights, device=device)
    return (losses * share).sum() / share.sum()


def forward(network: Qwen, ids: Tensor, adapters: Adapters | None) -> Tensor:
    """Hidden states [texts, width, ·] of texts padded at the end (causal, so that padding reaches nobody)."""
    config, (texts, width) = network.config, ids.shape
    cos, sin = (angle.repeat(texts, 1) for angle in network.angles(width))
    rows = network.embed(ids.flatten())

    def plus(product: Tensor, inputs: Tensor, number: int, name: str) -> Tensor:
        return product if adapters is None else adapters.add(product, inputs, number, name)

    for number, layer in enumerate(network.layers):
        rows = _layer(config, layer, number, rows, (texts, width), (cos, sin), plus)
    return rows.unflatten(0, (texts, width))


def _layer(
    config: QwenConfig, layer: Layer, number: int, rows: Tensor, shape: tuple[int, int], angles: tuple[Tensor, Tensor], plus
) -> Tensor:
    sizes = [config.heads * config.head, config.key_value_heads * config.head, config.key_value_heads * config.head]
    inputs = functional.rms_norm(rows, (config.width,), layer.norm, config.epsilon)
    joined = plus(functional.linear(inputs, layer.queries_keys_values, layer.bias), inputs, number, "queries_keys_values")
    q, k, v = (part.unflatten(-1, (-1, config.head)) for part in joined.split(sizes, dim=-1))
    q, k = rotate(q, *angles), rotate(k, *angles)
    group = config.heads // config.key_value_heads
    q, k, v = (part.unflatten(0, shape).transpose(1, 2) for part in (q, k, v))
    attended = functional.scaled_dot_product_attention(
        q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), is_causal=True
    )
    attended = attended.transpose(1, 2).flatten(2).flatten(0, 1)
    rows = rows + plus(functional.linear(attended, layer.out), attended, number, "out")
    inputs = functional.rms_norm(rows, (config.width,), layer.feed_forward_norm, config.epsilon)
    gate, up = plus(functional.linear(inputs, layer.gate_up), inputs, number, "gate_up").chunk(2, dim=-1)
    inner = functional.silu(gate) * up
    return rows + plus(functional.linear(inner, layer.down), inner, number, "down")

"""Many short texts written at once: rows of a cache, refilled as soon as they are free; afterwards questions read against the same rows.

A row holds one prompt and what was written after it. `write` is the loop; `extend` reads tokens after a row's first ones (the second
reading of what a row wrote goes on from its passage, which need not be read again).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from retnet_core.distill import DistillError
from retnet_core.distill.writer import attention
from retnet_core.distill.writer.qwen import Qwen, rotate

# Steps between looks at which rows have ended: a look waits for the device.
STEPS = 12
# Steps that are under way while the consumer works on a batch, so that the device does not wait for it.
OVERLAP = 3
_WORST_DIFFERENCE = 0.05


class KernelError(DistillError):
    """A Triton kernel computes something else than the plain form."""


@dataclass(slots=True)
class Prompt:
    """Something to write after. `key` comes back with it."""

    key: int
    ids: list[int]


@dataclass(slots=True)
class Written:
    """What was written after a prompt. `slot`: the row that still holds the prompt, until the consumer asks for the next batch."""

    key: int
    slot: int
    ids: list[int]
    complete: bool


class Generator:
    """`rows` texts at once of at most `positions` tokens, prompt included, `most` of them written.

    Sampling is at `temperature` among tokens of at least `min_p` times the likeliest one's probability.
    """

    def __init__(
        self,
        network: Qwen,
        rows: int,
        positions: int,
        most: int,
        *,
        end: Sequence[int],
        temperature: float = 0.8,
        min_p: float = 0.05,
        seed: int = 0,
        triton: bool | None = None,
    ) -> None:
        self.network, self.rows, self.positions, self.most, self.end = network, rows, positions, most, tuple(end)
        self.temperature, self.log_min_p = temperature, math.log(min_p)
        device, config = network.device, network.config
        self.triton = device.type == "cuda" if triton is None else triton
        shape = (rows, config.key_value_heads, positions, config.head)
        self.keys = [torch.zeros(shape, dtype=network.dtype, device=device) for _ in network.layers]
        self.values = [torch.zeros(shape, dtype=network.dtype, device=device) for _ in network.layers]
        self.angles = network.angles(positions)

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.long, device=device)

        self.lengths, self.last, self.count = zeros(rows), zeros(rows), zeros(rows)
        self.out, self.seed = zeros(rows, most), zeros(1) + seed
        self.done = torch.ones(rows, dtype=torch.int32, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self.steps = self.tokens = self.read = 0
        torch.manual_seed(seed)

    @torch.no_grad()
    def extend(self, texts: Sequence[Sequence[int]], slots: Sequence[int], past: Sequence[int]) -> Tensor:
        """Read each text into its row after the row's first `past` tokens. Returns the hidden states of the last tokens [texts, width]."""
        device = self.network.device
        widths = torch.tensor([len(text) for text in texts])
        ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
        count, width = ids.shape
        rows, before = torch.tensor(slots, device=device), torch.tensor(past, device=device)
        wide = widths.to(device)
        places = before[:, None] + torch.arange(width, device=device)
        # What pads a text goes to the row's last position, which nothing reads before it is written.
        stored = torch.where(torch.arange(width, device=device) < wide[:, None], places, self.positions - 1)
        flat = places.clamp(max=self.positions - 1).flatten()
        cos, sin = self.angles[0][flat], self.angles[1][flat]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k = rotate(q, cos, sin).unflatten(0, (count, width)), rotate(k, cos, sin).unflatten(0, (count, width))
            attention.append(self.keys[layer], self.values[layer], rows, stored, k, v.unflatten(0, (count, width)))
            form = self._kernels().extend if self.triton else attention.plain_extend
            return form(q, self.keys[layer], self.values[layer], rows, before, wide).flatten(2).flatten(0, 1)

        hidden = self.network.hidden(self.network.embed(ids.flatten().to(device)), attend, self._silu_product)
        self.read += int(widths.sum())
        return hidden.unflatten(0, (count, width))[torch.arange(count, device=device), wide - 1]

    @torch.no_grad()
    def fill(self, prompts: Sequence[Prompt], slots: Sequence[int]) -> None:
        """Read the prompts into free rows and write the first token of each."""
        hidden = self.extend([prompt.ids for prompt in prompts], slots, [0] * len(prompts))
        first = self._sample(self.network.logits(hidden))
        at = torch.tensor(slots, device=self.network.device)
        self.lengths[at] = torch.tensor([len(prompt.ids) for prompt in prompts], device=at.device)
        self.last[at], self.out[at, 0], self.count[at] = first, first, 1
        ended = torch.zeros_like(first, dtype=torch.bool)
        for token in self.end:
            ended |= first == token
        self.done[at] = ended.int()

    def write(self, prompts: Iterator[Prompt], *, batch: int, until: float) -> Iterator[list[Written]]:
        """Write after all prompts, or until the clock (`time.time()`) says `until`. Batches of finished texts come as they end.

        A row that is handed out is filled again when the next batch is asked for, so the consumer may `extend` it meanwhile.
        """
        owner: dict[int, int] = {}
        free = list(range(self.rows))
        waiting = self._next(prompts, batch)
        while owner or waiting:
            while waiting and len(free) >= len(waiting):
                slots, free = free[: len(waiting)], free[len(waiting) :]
                self.fill(waiting, slots)
                owner.update(zip(slots, (prompt.key for prompt in waiting), strict=True))
                waiting = self._next(prompts, batch) if time.time() < until else []
            for _ in range(STEPS):
                self._step()
            done = self.done.cpu().numpy()
            ended = [slot for slot in owner if done[slot]]
            if len(ended) < batch and len(ended) < len(owner) and (waiting or len(ended) * 2 < len(owner)):
                continue
            for start in range(0, len(ended), batch):
                part = ended[start : start + batch]
                written = self._collect(part, owner)
                for _ in range(OVERLAP):
                    self._step()
                yield written
                free += part
                for slot in part:
                    del owner[slot]

    @staticmethod
    def _next(prompts: Iterator[Prompt], count: int) -> list[Prompt]:
        return list(islice(prompts, count))

    def _collect(self, slots: list[int], owner: dict[int, int]) -> list[Written]:
        at = torch.tensor(slots, device=self.network.device)
        out, count = self.out[at].cpu().numpy(), self.count[at].cpu().numpy()
        found = []
        for place, slot in enumerate(slots):
            ids = out[place, : count[place]].tolist()
            complete = bool(ids) and ids[-1] in self.end
            found.append(Written(owner[slot], slot, ids[:-1] if complete else ids, complete))
        self.tokens += int(count.sum())
        return found

    def _step(self) -> None:
        """One token of every row, as a CUDA graph where there is a GPU."""
        self.steps += 1
        if self.network.device.type != "cuda":
            self._token()
        elif self._graph is None and self.steps <= 3:
            self._token()  # Triton compiles
        else:
            if self._graph is None:
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self._token()
                self._graph = graph
            self._graph.replay()

    @torch.no_grad()
    def _token(self) -> None:
        hidden = self.network.hidden(self.network.embed(self.last), self._attend_one, self._silu_product)
        chosen = self._sample(self.network.logits(hidden))
        live = self.done == 0
        chosen = torch.where(live, chosen, self.last)
        self.lengths.add_(live.long())
        self.last.copy_(chosen)
        at = self.count.clamp(max=self.most - 1)[:, None]
        self.out.scatter_(1, at, torch.where(live[:, None], chosen[:, None], self.out.gather(1, at)))
        self.count.add_(live.long())
        ended = ~live | (self.count >= self.most) | (self.lengths >= self.positions - 2)
        for token in self.end:
            ended |= chosen == token
        self.done.copy_(ended.int())

    def _attend_one(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.keys[layer], self.values[layer]
        if self.triton:
            joined = torch.cat([q.flatten(1), k.flatten(1), v.flatten(1)], dim=1)
            return self._kernels().decode(joined, self.angles, keys, values, self.lengths, self.done, q.shape[1])
        cos, sin = self.angles[0][self.lengths], self.angles[1][self.lengths]
        rows, ones = torch.arange(self.rows, device=q.device), torch.ones_like(self.lengths)
        attention.append(keys, values, rows, self.lengths[:, None], rotate(k, cos, sin)[:, None], v[:, None])
        return attention.plain_extend(rotate(q, cos, sin)[:, None], keys, values, rows, self.lengths, ones).flatten(1)

    def _silu_product(self, joined: Tensor) -> Tensor:
        return self._kernels().silu_product(joined) if self.triton else attention.plain_silu_product(joined)

    def _sample(self, logits: Tensor) -> Tensor:
        if not self.triton:
            return attention.plain_sample(logits, self.temperature, self.log_min_p)
        chosen = self._kernels().sample(logits.contiguous(), self.seed, self.temperature, self.log_min_p)
        self.seed.add_(1)
        return chosen

    @staticmethod
    def _kernels():  # Triton is only there beside a GPU
        from retnet_core.distill.writer import kernels

        return kernels

    def check(self, texts: Sequence[Sequence[int]]) -> float:
        """The largest relative difference of logits between reading `texts` at once in plain torch, and all but their last three tokens with
        this generator's `extend`, then three single steps. Raises `KernelError` above 0.05."""
        slots = list(range(len(texts)))
        at = torch.tensor(slots, device=self.network.device)
        fast, self.triton = self.triton, False
        wanted = self.network.logits(self.extend(texts, slots, [0] * len(texts))).float()
        self.triton = fast
        self.extend([text[:-3] for text in texts], slots, [0] * len(texts))
        self.lengths[at] = torch.tensor([len(text) - 3 for text in texts], device=at.device)
        self.done.fill_(1)
        self.done[at] = 0
        found = wanted
        with torch.no_grad():
            for back in (3, 2, 1):
                self.last[at] = torch.tensor([text[-back] for text in texts], device=at.device)
                hidden = self.network.hidden(self.network.embed(self.last), self._attend_one, self._silu_product)
                found = self.network.logits(hidden[at]).float()
                self.lengths[at] += 1
        self.done.fill_(1)
        worst = float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())
        if not worst < _WORST_DIFFERENCE:
            raise KernelError(f"the writer's kernels differ from the plain form by {worst:.3f} of the logits")
        return worst


def peaks(logits: Tensor) -> np.ndarray:
    """Probabilities [texts, n] of `logits` [texts, n], as float32 NumPy."""
    return torch.softmax(logits.float(), dim=-1).cpu().numpy()

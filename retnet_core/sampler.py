"""From logits to the next token."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

_NO_BIAS: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; the default is greedy.

    `temperature` 0 takes the most probable token. `top_k` 0, `top_p` 1 and `min_p` 0 (least probability relative to the best) are off.
    `repetition_penalty` divides positive and multiplies negative logits of tokens that this answer already has; the prompt's do not count
    (CTRL, arXiv 1909.05858, section 4.1). `logit_bias` adds to logits by token id; −inf forbids a token. The same `seed` draws the same answer.
    Raises `ValueError` for values out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be between 0 and 1, not {self.min_p}")
        if not (self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty)):
            raise ValueError(f"repetition_penalty must be above 0, not {self.repetition_penalty}")
        if not all(bias < math.inf for bias in self.logit_bias.values()):
            raise ValueError("a logit_bias must be a number or −inf")


class Sampler:
    """The choices of one answer: remembers the answer's tokens for the penalty, and has its own random numbers."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._seen: dict[int, None] = {}
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> tuple[int, float]:
        """The next token for fp32 `logits` `[vocabulary]`, which stay as they are, and its natural log-probability under the model itself
        (before bias, penalty, temperature and truncation). Raises `ValueError` when logits are not numbers, or all tokens are forbidden."""
        sampling = self.sampling
        adjusted = self._adjusted(logits)
        if not math.isfinite(adjusted.max()):
            raise ValueError("no token can be chosen: the logits are not numbers, or all of them are forbidden")
        if sampling.temperature == 0:
            token = int(adjusted.argmax())
        else:
            weights = truncate(adjusted / sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p).softmax(-1)
            token = int(torch.multinomial(weights, 1, generator=self._generator))
        self._seen[token] = None
        return token, float(logits[token] - logits.logsumexp(-1))

    def _adjusted(self, logits: Tensor) -> Tensor:
        sampling = self.sampling
        penalised = sampling.repetition_penalty != 1 and bool(self._seen)
        if not penalised and not sampling.logit_bias:
            return logits
        adjusted = logits.clone()
        if penalised:
            penalise_(adjusted, self._seen, sampling.repetition_penalty)
        if sampling.logit_bias:
            adjusted[torch.tensor(list(sampling.logit_bias))] += torch.tensor(
                list(sampling.logit_bias.values()), dtype=adjusted.dtype
            )
        return adjusted


def penalise_(logits: Tensor, seen: Collection[int], penalty: float) -> None:
    """Make the tokens already seen less probable, in place."""
    places = torch.tensor(list(seen))
    values = logits[places]
    logits[places] = torch.where(values > 0, values / penalty, values * penalty)


def truncate(logits: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Logits `[vocabulary]` with −inf for all but the `top_k` best, the fewest best that hold `top_p`, and those with at least `min_p`
    of the best one's probability. The best token always stays."""
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p < 1:
        ordered, places = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p
        beyond[0] = False
        logits = logits.index_fill(0, places[beyond], -torch.inf)
    if min_p > 0:
        logits = logits.masked_fill(logits < logits.max() + math.log(min_p), -torch.inf)
    return logits

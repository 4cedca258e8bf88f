"""From logits to the next tokens, for everybody in a step at once.

What can be shared is: one pass over all rows finds the most probable tokens, and one gather and one scatter apply all penalties and biases.
Every number depends on its own row alone, bit for bit, so a request chooses the same in any company.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from retnet_core.errors import NotFinite, NothingAllowed, RequestError, SamplingError

_NO_BIAS: Mapping[int, float] = MappingProxyType({})
_BLOCK = 256
"""Logits whose largest is found at once; of 49,152 that makes 192 blocks."""
_COLDEST = 1e-6
"""Temperature up to which the most probable token is taken: of two logits that differ in fp32 none has a chance against the other."""
_CANDIDATES = 1024
"""Most probable tokens that a nucleus is first looked for in: sorting all of them takes 30 times as long, and few nuclei are larger."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; the default is greedy.

    `temperature` 0 takes the most probable token. `top_k` 0, `top_p` 1 and `min_p` 0 (least probability relative to the best) are off.
    `repetition_penalty` divides positive and multiplies negative logits of tokens that this answer already has (CTRL, arXiv 1909.05858,
    section 4.1). Then, as in OpenAI's interface, `frequency_penalty` is subtracted from a token's logit as often as this answer already has
    it, and `presence_penalty` once if it has it at all; negative ones encourage. The prompt's tokens do not count for any of the three.
    Then `logit_bias` adds to logits by token id; −inf forbids a token. The same `seed` draws the same answer.
    Raises `SamplingError`, a `ValueError`, for values out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"):
            if not isinstance(getattr(self, name), int | float) or not math.isfinite(getattr(self, name)):
                raise SamplingError(f"{name} must be a number, not {getattr(self, name)!r}")
        if self.temperature < 0:
            raise SamplingError(f"temperature must be 0 or more, not {self.temperature}")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise SamplingError(f"top_k must be a whole number of 0 or more, not {self.top_k!r}")
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise SamplingError(f"min_p must be between 0 and 1, not {self.min_p}")
        if self.repetition_penalty <= 0:
            raise SamplingError(f"repetition_penalty must be above 0, not {self.repetition_penalty}")
        if self.seed is not None and (not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**63):
            raise SamplingError(f"seed must be a whole number of 64 bits, not {self.seed!r}")
        for token, bias in self.logit_bias.items():
            if not isinstance(token, int) or not isinstance(bias, int | float) or not bias < math.inf:
                raise SamplingError(f"a logit_bias gives a token's id a number or −inf, not {token!r}: {bias!r}")


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token. `logprob`, and `top` (ids and log-probabilities of the most probable ones, in their order) where they were asked for."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """One answer's way to choose: remembers its tokens for the penalties, and has its own random numbers."""

    def __init__(self, sampling: Sampling, logprobs: int | None = None) -> None:
        self.sampling, self.logprobs = sampling, logprobs
        self.counts: dict[int, int] = {}
        """How often this answer has each of its tokens."""
        self.penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
        self.penalised = self.penalties != (1, 0, 0)
        # Of its own: the caller may go on changing its mapping.
        self.bias = torch.tensor(list(sampling.logit_bias.values()), dtype=torch.float32)
        self.biased = torch.tensor(list(sampling.logit_bias), dtype=torch.int64)
        self._generator: torch.Generator | None = None

    def choose(self, logits: Tensor) -> Choice:
        """The next token for fp32 `logits` `[vocabulary]`, which stay as they are. Raises `NotFinite` or `NothingAllowed`."""
        (choice,) = choose(logits.clone().unsqueeze(0), [self])
        if isinstance(choice, RequestError):
            raise choice
        return choice

    def draw(self, logits: Tensor) -> int:
        """A token from penalised and biased logits `[vocabulary]`, the largest of which is finite."""
        sampling = self.sampling
        if self._generator is None:
            self._generator = torch.Generator()
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)
        # From the largest, so that nothing overflows however cold it is.
        kept, ids = truncate((logits - logits.max()) / sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
        # The inverse of the distribution function: one random number a token, and a tenth of the time of torch's multinomial.
        below = kept.softmax(-1).double().cumsum(-1)
        point = float(torch.rand((), dtype=torch.float64, generator=self._generator)) * float(below[-1])
        place = int(torch.searchsorted(below, point, right=True))
        if place == len(below):  # the point was rounded up to the end
            place = int(kept.isfinite().nonzero()[-1])
        return place if ids is None else int(ids[place])


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[Choice | RequestError]:
    """The next token of each row of fp32 `logits` `[rows, vocabulary]`, *which are changed*, or what keeps that row from having one."""
    reports = [row for row, sampler in enumerate(samplers) if sampler.logprobs is not None]
    # Before penalties and bias: they are the model's own.
    logprobs = dict(zip(reports, logits[reports].log_softmax(-1), strict=True)) if reports else {}
    _penalise_(logits, samplers)
    _bias_(logits, samplers)
    best, ids = (part.tolist() for part in largest(logits))
    chosen: list[Choice | RequestError] = []
    for row, sampler in enumerate(samplers):
        if not math.isfinite(best[row]):
            # The largest of a row with a NaN is NaN.
            chosen.append(
                NothingAllowed("no token can be chosen: the logit_bias forbids all of them")
                if best[row] == -math.inf and len(sampler.bias)
                else NotFinite(f"no token can be chosen: the model's logit of token {ids[row]} is {best[row]}; expected a number")
            )
            continue
        token = sampler.draw(logits[row]) if sampler.sampling.temperature > _COLDEST else ids[row]
        sampler.counts[token] = sampler.counts.get(token, 0) + 1
        chosen.append(_reported(token, logprobs[row], sampler.logprobs) if sampler.logprobs is not None else Choice(token))
    return chosen


def _reported(token: int, logprobs: Tensor, count: int) -> Choice:
    top: tuple[tuple[int, float], ...] = ()
    if count:
        values, ids = logprobs.topk(count)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Choice(token, float(logprobs[token]), top)


def _penalise_(logits: Tensor, samplers: Sequence[Sampler]) -> None:
    """Change the logits of the tokens that each row's answer already has, in place."""
    penalised = [(row, sampler) for row, sampler in enumerate(samplers) if sampler.penalised and sampler.counts]
    if not penalised:
        return
    device = logits.device
    tokens = [token for _, sampler in penalised for token in sampler.counts]
    times = [count for _, sampler in penalised for count in sampler.counts.values()]
    each = torch.tensor([len(sampler.counts) for _, sampler in penalised], device=device)
    rows = torch.tensor([row for row, _ in penalised], device=device).repeat_interleave(each)
    places = rows, torch.tensor(tokens, device=device)
    penalties = torch.tensor([sampler.penalties for _, sampler in penalised], dtype=logits.dtype, device=device)
    factor, frequency, presence = penalties.repeat_interleave(each, 0).unbind(-1)
    before = logits[places]
    less = frequency * torch.tensor(times, dtype=logits.dtype, device=device) + presence
    logits[places] = torch.where(before > 0, before / factor, before * factor) - less


def _bias_(logits: Tensor, samplers: Sequence[Sampler]) -> None:
    biased = [(row, sampler) for row, sampler in enumerate(samplers) if len(sampler.bias)]
    if biased:
        rows = torch.cat([torch.full_like(sampler.biased, row) for row, sampler in biased])
        tokens = torch.cat([sampler.biased for _, sampler in biased])
        logits[rows.to(logits.device), tokens.to(logits.device)] += torch.cat([sampler.bias for _, sampler in biased]).to(
            logits.device
        )


def largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of each row and the first place that has it, `[rows]` each; NaN is larger than anything.

    As `logits.max(-1)`, which walks value by value; the largest of every block first, a vector at a time, takes a tenth.
    """
    rows, size = logits.shape
    if size % _BLOCK:
        values, ids = logits.max(-1)
        return values, ids
    blocks = logits.view(rows, -1, _BLOCK)
    block = blocks.amax(-1).argmax(-1)
    values, place = blocks[torch.arange(rows, device=logits.device), block].max(-1)
    return values, block * _BLOCK + place


def truncate(logits: Tensor, top_k: int, top_p: float, min_p: float) -> tuple[Tensor, Tensor | None]:
    """What remains of logits `[vocabulary]`: the `top_k` best, of them the fewest best that hold `top_p`, of them those with at least `min_p`
    of the best one's probability. The best always stays.

    Returns logits and their ids, best first; or, when nothing sorts them, all logits with −inf where they go, and None.
    """
    size, ids = logits.shape[-1], None
    if 0 < top_k < size:
        logits, ids = logits.topk(top_k)
    if top_p < 1:
        logits, ids = _nucleus(logits, ids, top_p)
    if min_p > 0:
        logits = logits.masked_fill(logits < logits.max() + math.log(min_p), -torch.inf)
    return logits, ids


def _nucleus(logits: Tensor, ids: Tensor | None, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest best that hold `top_p`, best first. `ids`: those of logits that are sorted already."""
    total = logits.logsumexp(-1)
    if ids is None:
        values, places = logits.topk(min(_CANDIDATES, len(logits)))
        if float((values - total).exp().sum()) < top_p:
            values, places = logits.sort(descending=True)
    else:
        values, places = logits, ids
    probabilities = (values - total).exp()
    beyond = probabilities.cumsum(-1) - probabilities >= top_p
    beyond[0] = False
    count = int((~beyond).sum())
    return values[:count], places[:count]

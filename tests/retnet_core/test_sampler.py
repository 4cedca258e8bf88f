"""The sampler: greedy by default, truncation that never takes the best, penalties, bias, and seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from retnet_core import NotFinite, NothingAllowed, Sampling, SamplingError
from retnet_core.sampler import Choice, Sampler, choose, largest, truncate

logits_of = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40, unique=True).map(torch.tensor)


@given(logits=logits_of)
def test_greedy_takes_the_most_probable_and_says_how_probable_it_was(logits: Tensor) -> None:
    before = logits.clone()
    choice = Sampler(Sampling(), logprobs=0).choose(logits)
    assert choice.id == int(logits.argmax()) and choice.top == ()
    assert choice.logprob == pytest.approx(float(logits.log_softmax(-1)[choice.id]), abs=1e-4)
    assert torch.equal(logits, before)
    assert Sampler(Sampling()).choose(logits) == Choice(choice.id, None, ())


@given(logits=logits_of, count=st.integers(1, 5))
def test_the_most_probable_tokens_are_told_with_their_own_probabilities(logits: Tensor, count: int) -> None:
    """Whatever bias and penalties make of them."""
    count = min(count, len(logits))
    sampler = Sampler(Sampling(temperature=1.0, seed=1, logit_bias={0: 5.0}, frequency_penalty=1.0), logprobs=count)
    sampler.choose(logits)
    top = sampler.choose(logits).top
    own = logits.log_softmax(-1)
    assert [logprob for _, logprob in top] == pytest.approx(own.sort(descending=True).values[:count].tolist(), abs=1e-5)
    assert [logprob for _, logprob in top] == pytest.approx([float(own[token]) for token, _ in top], abs=1e-5)


def kept_of(logits: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """What truncation leaves, at its own places, with −inf elsewhere."""
    values, ids = truncate(logits, top_k, top_p, min_p)
    if ids is None:
        return values
    return torch.full_like(logits, -torch.inf).index_copy_(0, ids, values)


@given(logits=logits_of, top_k=st.integers(0, 50), top_p=st.floats(0.01, 1), min_p=st.floats(0, 1))
def test_truncation_keeps_the_best_and_only_what_is_allowed(logits: Tensor, top_k: int, top_p: float, min_p: float) -> None:
    kept = kept_of(logits, top_k, top_p, min_p)
    remain = torch.isfinite(kept)
    assert remain[logits.argmax()]
    assert torch.equal(kept[remain], logits[remain])
    # Whatever stays is at least as probable as whatever goes.
    if not remain.all():
        assert logits[remain].min() >= logits[~remain].max()
    if top_k:
        assert int(remain.sum()) <= max(1, top_k)
    if min_p:
        assert (logits[remain].exp() >= logits.max().exp() * min_p * 0.999).all()


@given(logits=logits_of, top_p=st.floats(0.05, 0.99))
def test_top_p_keeps_the_fewest_that_hold_the_mass(logits: Tensor, top_p: float) -> None:
    probabilities = logits.double().softmax(-1)
    kept = torch.isfinite(kept_of(logits.double(), 0, top_p, 0.0))
    mass = float(probabilities[kept].sum())
    assert mass >= top_p - 1e-9
    assert mass - float(probabilities[kept].min()) < top_p + 1e-9


@settings(max_examples=40)
@given(logits=logits_of, seed=st.integers(0, 2**40), temperature=st.floats(0.1, 3))
def test_the_same_seed_draws_the_same_answer(logits: Tensor, seed: int, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=seed)
    first, second = Sampler(sampling), Sampler(sampling)
    assert [first.choose(logits).id for _ in range(8)] == [second.choose(logits).id for _ in range(8)]


def test_draws_follow_the_probabilities() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=7))
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    counts = torch.bincount(torch.tensor([sampler.choose(logits).id for _ in range(3000)]), minlength=3) / 3000
    assert (counts - logits.exp()).abs().max() < 0.04


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-7, 2e-6, 1e-3, 1e30])
@pytest.mark.parametrize("more", [{}, {"top_p": 1e-9}, {"top_p": 0.9, "min_p": 1.0}, {"top_k": 1}])
def test_however_cold_or_hot_a_token_is_drawn(temperature: float, more: dict[str, Any]) -> None:
    logits = torch.tensor([3e4, -3e38, 3.1e4, -math.inf, 3.1e4 - 0.01])
    chosen = {Sampler(Sampling(temperature=temperature, seed=seed, **more)).choose(logits).id for seed in range(20)}
    assert chosen <= {0, 1, 2, 4}
    if temperature < 1e-3 or more:
        assert chosen == {2}


def test_a_higher_temperature_draws_the_best_less_often() -> None:
    logits = torch.tensor([2.0, 0.0, 0.0, 0.0])
    shares = []
    for temperature in (0.3, 1.0, 5.0):
        sampler = Sampler(Sampling(temperature=temperature, seed=1))
        shares.append(sum(sampler.choose(logits).id == 0 for _ in range(600)))
    assert shares[0] > shares[1] > shares[2]


def test_a_nucleus_of_more_tokens_than_are_looked_at_first_is_whole() -> None:
    """4,000 nearly equal tokens: 0.9 of the mass are 3,600 of them."""
    logits = torch.randn(4000, generator=torch.Generator().manual_seed(3)) * 1e-3
    _, ids = truncate(logits, 0, 0.9, 0.0)
    assert ids is not None and 3590 <= len(ids) <= 3610
    assert logits[ids].min() >= logits[torch.ones(4000, dtype=torch.bool).index_fill(0, ids, False)].max()


@given(logits=logits_of, factor=st.floats(1.01, 3), frequency=st.floats(0.01, 2), presence=st.floats(0.01, 2), data=st.data())
def test_penalties_lower_seen_tokens_and_no_other(
    logits: Tensor, factor: float, frequency: float, presence: float, data: st.DataObject
) -> None:
    counts = data.draw(st.dictionaries(st.integers(0, len(logits) - 1), st.integers(1, 9), min_size=1))
    sampler = Sampler(Sampling(repetition_penalty=factor, frequency_penalty=frequency, presence_penalty=presence))
    sampler.counts = dict(counts)
    expected = logits.double()
    for token, count in counts.items():
        value = float(expected[token])
        expected[token] = (value / factor if value > 0 else value * factor) - frequency * count - presence
    changed = logits.clone().unsqueeze(0)
    (choice,) = choose(changed, [sampler])
    assert torch.allclose(changed[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(choice, Choice) and choice.id == int(changed[0].argmax())
    assert sampler.counts[choice.id] == counts.get(choice.id, 0) + 1


def test_a_frequency_penalty_counts_and_a_presence_penalty_does_not() -> None:
    logits = torch.tensor([3.0, 0.0])
    frequent = Sampler(Sampling(frequency_penalty=1.0))
    assert [frequent.choose(logits).id for _ in range(6)] == [
        0,
        0,
        0,
        0,
        1,
        0,
    ]  # 3 2 1 0, then below the other, which is then once used
    present = Sampler(Sampling(presence_penalty=2.0))
    assert [present.choose(logits).id for _ in range(6)] == [0] * 6
    assert [Sampler(Sampling(presence_penalty=-2.0)).choose(logits).id for _ in range(2)] == [0, 0]


def test_only_the_answers_own_tokens_are_penalised_and_logprobs_stay_the_models() -> None:
    sampler = Sampler(Sampling(repetition_penalty=2.0), logprobs=0)
    logits = torch.tensor([3.0, 2.0, 1.8])
    chosen = [sampler.choose(logits) for _ in range(3)]
    assert [choice.id for choice in chosen] == [0, 1, 2]
    assert [choice.logprob for choice in chosen] == pytest.approx(logits.log_softmax(-1).tolist(), abs=1e-5)


SAMPLINGS = (
    Sampling(),
    Sampling(repetition_penalty=1.1),
    Sampling(frequency_penalty=0.3, presence_penalty=0.2, logit_bias={2: 4.0, 5: -math.inf}),
    Sampling(temperature=0.8, seed=4),
    Sampling(temperature=1.2, top_k=40, top_p=0.8, min_p=0.01, seed=5),
    Sampling(temperature=1.0, top_p=0.95, seed=6, repetition_penalty=1.3),
)


@pytest.mark.parametrize("vocabulary", [1024, 300])
def test_a_row_chooses_the_same_in_any_company(vocabulary: int) -> None:
    """Bit for bit, log-probabilities included, beside rows that want something else, are not numbers, or forbid everything."""
    generator = torch.Generator().manual_seed(8)
    steps = torch.randn(6, len(SAMPLINGS) + 2, vocabulary, generator=generator) * 4
    steps[:, -1, 7] = math.nan

    def samplers() -> list[Sampler]:
        hopeless = Sampling(logit_bias=dict.fromkeys(range(vocabulary), -math.inf))
        return [Sampler(one, logprobs=place % 3) for place, one in enumerate((*SAMPLINGS, hopeless, Sampling()))]

    together, alone = samplers(), samplers()
    for step in steps:
        chosen = choose(step.clone(), together)
        assert isinstance(chosen[-2], NothingAllowed) and isinstance(chosen[-1], NotFinite)
        expected = [sampler.choose(row) for sampler, row in zip(alone[:-2], step, strict=False)]
        assert chosen[:-2] == expected


@given(st.integers(1, 4), st.sampled_from([7, 256, 768]), st.integers(0, 2**31))
def test_the_largest_is_the_first_of_the_largest(rows: int, size: int, seed: int) -> None:
    # Few values, so that many are equal.
    logits = torch.randint(-3, 4, (rows, size), generator=torch.Generator().manual_seed(seed)).float()
    values, ids = largest(logits)
    assert torch.equal(values, logits.amax(-1))
    assert ids.tolist() == [row.index(max(row)) for row in logits.tolist()]


@given(logits=logits_of, data=st.data())
def test_a_forbidden_token_is_never_chosen(logits: Tensor, data: st.DataObject) -> None:
    forbidden = data.draw(st.sets(st.integers(0, len(logits) - 1)))
    assume(len(forbidden) < len(logits))
    bias = dict.fromkeys(forbidden, -math.inf)
    for temperature in (0.0, 1.0):
        assert Sampler(Sampling(temperature=temperature, seed=3, logit_bias=bias)).choose(logits).id not in forbidden


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("logits", [[1.0, math.nan], [-math.inf, -math.inf], [math.inf, 0.0]])
def test_where_nothing_can_be_chosen_nothing_is(logits: list[float], temperature: float) -> None:
    with pytest.raises(NotFinite, match=r"no token.* token [01] is -?(nan|inf)"):
        Sampler(Sampling(temperature=temperature)).choose(torch.tensor(logits))
    with pytest.raises(NothingAllowed, match="forbids all"):
        Sampler(Sampling(temperature=temperature, logit_bias=dict.fromkeys(range(2), -math.inf))).choose(torch.zeros(2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "1"},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 2},
        {"min_p": math.nan},
        {"repetition_penalty": 0},
        {"repetition_penalty": math.inf},
        {"frequency_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"presence_penalty": None},
        {"seed": 2**64},
        {"seed": 1.5},
        {"logit_bias": {3: math.nan}},
        {"logit_bias": {3: math.inf}},
        {"logit_bias": {"3": 1.0}},
        {"logit_bias": {3: "1"}},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SamplingError, match=next(iter(wrong))):
        Sampling(**wrong)

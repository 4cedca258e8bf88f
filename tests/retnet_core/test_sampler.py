"""The sampler: greedy by default, truncation that never takes the best, penalties, bias, and seeds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from retnet_core import Sampling
from retnet_core.sampler import Sampler, penalise_, truncate

logits_of = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40, unique=True).map(torch.tensor)


@given(logits=logits_of)
def test_greedy_takes_the_most_probable_and_says_how_probable_it_was(logits: Tensor) -> None:
    before = logits.clone()
    token, logprob = Sampler(Sampling()).choose(logits)
    assert token == int(logits.argmax())
    assert logprob == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)
    assert torch.equal(logits, before)


@given(logits=logits_of, top_k=st.integers(0, 50), top_p=st.floats(0.01, 1), min_p=st.floats(0, 1))
def test_truncation_keeps_the_best_and_only_what_is_allowed(logits: Tensor, top_k: int, top_p: float, min_p: float) -> None:
    kept = truncate(logits, top_k, top_p, min_p)
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
    kept = torch.isfinite(truncate(logits.double(), 0, top_p, 0.0))
    mass = float(probabilities[kept].sum())
    assert mass >= top_p - 1e-9
    assert mass - float(probabilities[kept].min()) < top_p + 1e-9


@settings(max_examples=40)
@given(logits=logits_of, seed=st.integers(0, 2**40), temperature=st.floats(0.1, 3))
def test_the_same_seed_draws_the_same_answer(logits: Tensor, seed: int, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=seed)
    first, second = Sampler(sampling), Sampler(sampling)
    assert [first.choose(logits)[0] for _ in range(8)] == [second.choose(logits)[0] for _ in range(8)]


def test_draws_follow_the_probabilities() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=7))
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    counts = torch.bincount(torch.tensor([sampler.choose(logits)[0] for _ in range(3000)]), minlength=3) / 3000
    assert (counts - logits.exp()).abs().max() < 0.04


def test_a_higher_temperature_draws_the_best_less_often() -> None:
    logits = torch.tensor([2.0, 0.0, 0.0, 0.0])
    shares = []
    for temperature in (0.3, 1.0, 5.0):
        sampler = Sampler(Sampling(temperature=temperature, seed=1))
        shares.append(sum(sampler.choose(logits)[0] == 0 for _ in range(600)))
    assert shares[0] > shares[1] > shares[2]


@given(logits=logits_of, penalty=st.floats(1.01, 3), data=st.data())
def test_the_penalty_makes_seen_tokens_less_probable_and_no_other(logits: Tensor, penalty: float, data: st.DataObject) -> None:
    seen = data.draw(st.sets(st.integers(0, len(logits) - 1), min_size=1))
    penalised = logits.clone()
    penalise_(penalised, seen, penalty)
    for token in range(len(logits)):
        assert penalised[token] <= logits[token] if token in seen else penalised[token] == logits[token]


def test_only_the_answers_own_tokens_are_penalised_and_logprobs_stay_the_models() -> None:
    sampler = Sampler(Sampling(repetition_penalty=2.0))
    logits = torch.tensor([3.0, 2.0, 1.8])
    chosen = [sampler.choose(logits) for _ in range(3)]
    assert [token for token, _ in chosen] == [0, 1, 2]
    assert [logprob for _, logprob in chosen] == pytest.approx(logits.log_softmax(-1).tolist(), abs=1e-5)


@given(logits=logits_of, data=st.data())
def test_a_forbidden_token_is_never_chosen(logits: Tensor, data: st.DataObject) -> None:
    forbidden = data.draw(st.sets(st.integers(0, len(logits) - 1)))
    assume(len(forbidden) < len(logits))
    bias = dict.fromkeys(forbidden, -math.inf)
    for temperature in (0.0, 1.0):
        assert Sampler(Sampling(temperature=temperature, seed=3, logit_bias=bias)).choose(logits)[0] not in forbidden


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("logits", [[1.0, math.nan], [-math.inf, -math.inf]])
def test_where_nothing_can_be_chosen_nothing_is(logits: list[float], temperature: float) -> None:
    with pytest.raises(ValueError, match="no token"):
        Sampler(Sampling(temperature=temperature)).choose(torch.tensor(logits))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"repetition_penalty": math.inf},
        {"logit_bias": {3: math.nan}},
        {"logit_bias": {3: math.inf}},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)

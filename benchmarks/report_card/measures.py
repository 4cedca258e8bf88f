"""Shares, means and areas over the questions of a run, with standard errors by drawing the questions anew (bootstrap)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report_card.outcomes import Outcome

DRAWS, SEED = 1000, 20261124
# Of the answerable questions, so many may be refused wrongly at the threshold at which refused near-misses are counted.
WRONG_REFUSALS = 0.10
STYLES = ("table", "list")
# Goals of issue 6 in per cent, over all kinds and packages.
GOALS = {
    "gold passage among the best 1": 65.0,
    "gold passage among the best 5": 90.0,
    "all facts, two sentences": 60.0,
    "all facts, four sentences": 72.0,
    "AUC, answerable against near-miss": 0.88,
    "near-misses refused at 10 % wrong refusals": 70.0,
}

# float [rows] per row, NaN where the row does not count.
PerRow = Callable[[Outcome], float | None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of one ranker. `difference` and its error are against the first ranker of the run, over the same draws."""

    name: str
    value: float
    error: float
    unit: str
    count: int
    difference: float | None = None
    difference_error: float | None = None

    @property
    def goal(self) -> float | None:
        return GOALS.get(self.name)


def measured(outcomes: Sequence[Outcome], baseline: Sequence[Outcome] | None) -> list[Measured]:
    """All measures of a ranker's outcomes; `baseline`: those of the first ranker for the same questions in the same order."""
    found = [
        _mean(name, per_row, scale, unit, outcomes, baseline)
        for name, per_row, scale, unit in _means(outcomes)
        if any(per_row(one) is not None for one in outcomes)
    ]
    return found + _gate(outcomes, baseline)


def _means(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, PerRow, float, str]]:
    def among(most: int, *, every: bool = False) -> PerRow:
        return lambda one: float((one.last if every else one.first) <= most) if one.answerable else None

    def facts(how: str, keep: Callable[[Outcome], bool] = lambda one: True) -> PerRow:
        return lambda one: None if one.facts.get(how) is None or not keep(one) else float(bool(one.facts[how]))

    for most in (1, 5, 10):
        yield f"gold passage among the best {most}", among(most), 100, "%"
    two_passages: PerRow = lambda one: among(5, every=True)(one) if one.row.kind == "two-passages" else None  # noqa: E731
    yield "both gold passages among the best 5, two-passages", two_passages, 100, "%"
    how = {"two": "two sentences", "four": "four sentences", "product": "the product's selection"}
    for key, told in how.items():
        yield f"all facts, {told}", facts(key), 100, "%"
    for key, told in how.items():
        yield f"words of evidence, {told}", lambda one, key=key: _count(one, key), 1, "words"
    for group, of in (("kind", lambda one: [one.row.kind]), ("package", lambda one: [one.row.package]), ("style", _styles)):
        for name in sorted({name for one in outcomes for name in of(one)}):
            keep = lambda one, of=of, name=name: name in of(one)  # noqa: E731
            inside: PerRow = lambda one, keep=keep: among(5)(one) if keep(one) else None  # noqa: E731
            yield f"{group} {name}: gold passage among the best 5", inside, 100, "%"
            for key, told in how.items():
                yield f"{group} {name}: all facts, {told}", facts(key, keep), 100, "%"


def _count(one: Outcome, how: str) -> float | None:
    return float(one.words[how]) if how in one.words and one.answerable else None


def _styles(one: Outcome) -> list[str]:
    return [style for style in one.row.style if style in STYLES] if one.answerable else []


def _mean(
    name: str, per_row: PerRow, scale: float, unit: str, outcomes: Sequence[Outcome], baseline: Sequence[Outcome] | None
) -> Measured:
    values = _values(per_row, outcomes) * scale
    counted = ~np.isnan(values)
    own = values[counted]
    draws = _draws(len(own))
    error = float(own[draws].mean(axis=1).std())
    if baseline is None:
        return Measured(name, float(own.mean()), error, unit, len(own))
    other = (_values(per_row, baseline) * scale)[counted]
    if np.isnan(other).any():
        return Measured(name, float(own.mean()), error, unit, len(own))
    gap = own - other
    return Measured(name, float(own.mean()), error, unit, len(own), float(gap.mean()), float(gap[draws].mean(axis=1).std()))


def _values(per_row: PerRow, outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.array([np.nan if (value := per_row(one)) is None else value for one in outcomes], dtype=np.float64)


def _draws(count: int) -> np.ndarray:
    """int [DRAWS, count]: the rows of each draw."""
    return np.random.default_rng(SEED).integers(0, count, size=(DRAWS, count))


def area(yes: np.ndarray, no: np.ndarray) -> float:
    """The share of pairs in which the answerable question has the higher score, ties counting half (AUC)."""
    order = np.sort(no)
    below, up_to = np.searchsorted(order, yes, side="left"), np.searchsorted(order, yes, side="right")
    return float((below + up_to).mean() / 2 / len(no))


def refused(yes: np.ndarray, no: np.ndarray) -> float:
    """The share of `no` below the score below which WRONG_REFUSALS of `yes` lie."""
    return float((no < np.quantile(yes, WRONG_REFUSALS)).mean())


def _gate(outcomes: Sequence[Outcome], baseline: Sequence[Outcome] | None) -> list[Measured]:
    kinds = np.array([one.row.kind for one in outcomes])
    if not (kinds == "near-miss").any():
        return []
    found = []
    for name, kept in (
        ("answerable", kinds == "answerable"),
        ("all that is answered", ~np.isin(kinds, ["near-miss", "not-told"])),
    ):
        for told, of, scale, unit in (
            (f"AUC, {name} against near-miss", area, 1.0, ""),
            ("near-misses refused at 10 % wrong refusals" + ("" if name == "answerable" else f", {name}"), refused, 100.0, "%"),
        ):
            found.append(_against(told, of, scale, unit, outcomes, baseline, kept, kinds == "near-miss"))
    return found


def _against(
    name: str,
    of: Callable[[np.ndarray, np.ndarray], float],
    scale: float,
    unit: str,
    outcomes: Sequence[Outcome],
    baseline: Sequence[Outcome] | None,
    yes: np.ndarray,
    no: np.ndarray,
) -> Measured:
    drawn = list(zip(_draws(int(yes.sum())), _draws(int(no.sum())), strict=True))

    def values(of_whom: Sequence[Outcome]) -> tuple[float, np.ndarray]:
        scores = np.array([one.answerability for one in of_whom])
        high, low = scores[yes], scores[no]
        return scale * of(high, low), scale * np.array([of(high[first], low[second]) for first, second in drawn])

    value, spread = values(outcomes)
    count = int(yes.sum() + no.sum())
    if baseline is None:
        return Measured(name, value, float(spread.std()), unit, count)
    other, other_spread = values(baseline)
    return Measured(name, value, float(spread.std()), unit, count, value - other, float((spread - other_spread).std()))

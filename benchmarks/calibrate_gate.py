"""Calibrates the evidence gate on questions written by hand, and reports the half that it was not fitted on.

    python -m benchmarks.calibrate_gate [--keep FILE] [--json [FILE]]

The questions are the development rows of retnet_core/distill/handwritten. All development passages of a package are one site,
searched, selected and read by the very steps of the live path, on PostgreSQL and the engine. A near-miss must be refused, everything
else be answered. `--keep` stores what was measured of each question, and takes it from there the next time: fitting again is then a
matter of a second. Some answerable questions are also put to another package's site (`elsewhere`): these must be refused too. The
constants are fitted on the half `choose`, and reported on the half `report`.

Prints the constants for `workers/answer/gate.py`, and how good those in use are on the half that they were not fitted on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks._gate_questions import ELSEWHERE, measure
from benchmarks._report import Report
from workers.answer import gate

FIRST = tuple(name for name in gate.FIRST if name != "intercept")
# Of the answerable questions, so many may be refused wrongly at the threshold that is reported.
WRONG_REFUSALS = 0.10
# Inverse strength of the L2 penalty, on features scaled to unit variance: 236 rows, 33 of them near-misses, bear little freedom.
PENALTY_C = 0.3


def answerable(row: dict[str, Any]) -> bool:
    return row["kind"] not in ("near-miss", ELSEWHERE)


def halves(rows: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """(fitted on, reported on), as the rows were dealt out."""
    places = range(len(rows))
    return [one for one in places if rows[one]["half"] == "choose"], [one for one in places if rows[one]["half"] == "report"]


def fit(values: np.ndarray, answerable: np.ndarray) -> tuple[float, np.ndarray]:
    """(intercept, weights) of a logistic regression in the features' own units; both classes weigh the same."""
    mean, spread = values.mean(0), values.std(0) + 1e-9
    model = LogisticRegression(C=PENALTY_C, class_weight="balanced", max_iter=2000).fit((values - mean) / spread, answerable)
    weights = model.coef_[0] / spread
    return float(model.intercept_[0] - weights @ mean), weights


def logit(probability: np.ndarray) -> np.ndarray:
    kept = np.clip(probability, gate.EDGE, 1 - gate.EDGE)
    return np.log(kept / (1 - kept))


def refused(values: np.ndarray, kinds: np.ndarray, kind: str) -> tuple[float, float]:
    """(share refused of the questions of `kind`, threshold) where WRONG_REFUSALS of the answerable ones are refused too."""
    threshold = float(np.quantile(values[kinds == "answerable"], WRONG_REFUSALS))
    return float((values[kinds == kind] < threshold).mean()), threshold


def fitted(rows: list[dict[str, Any]], places: list[int]) -> dict[str, dict[str, float]]:
    """Constants for gate.FIRST and gate.JOINT from these rows."""
    yes = np.array([answerable(rows[place]) for place in places], dtype=int)
    values = np.array([[rows[place]["features"][name] for name in FIRST] for place in places])
    intercept, weights = fit(values, yes)
    first = 1 / (1 + np.exp(-(values @ weights + intercept)))
    zero = np.array([rows[place]["zero"] for place in places])
    both = np.stack([logit(first), logit(zero)], axis=1)
    joint_intercept, joint_weights = fit(both, yes)
    return {
        "FIRST": {"intercept": intercept, **dict(zip(FIRST, map(float, weights), strict=True))},
        "JOINT": {"intercept": joint_intercept, "first": float(joint_weights[0]), "zero": float(joint_weights[1])},
    }


def scores(rows: list[dict[str, Any]], places: list[int]) -> dict[str, np.ndarray]:
    """Probabilities by the constants in use."""
    first = [gate.first(rows[place]["features"]) for place in places]
    joint = [gate.joint(one, rows[place]["zero"], shown=False) for one, place in zip(first, places, strict=True)]
    return {
        "best sentence's cosine alone": np.array([rows[place]["features"]["best_cosine"] for place in places]),
        "the model's p(0) alone": np.array([1 - rows[place]["zero"] for place in places]),
        "first gate": np.array([one.probability for one in first]),
        "joint gate": np.array([one.probability for one in joint]),
    }


def tell(rows: list[dict[str, Any]], places: list[int], report: Report) -> None:
    kinds = np.array(["answerable" if answerable(rows[place]) else rows[place]["kind"] for place in places])
    in_use = scores(rows, places)
    for name, values in in_use.items():
        for kind in ("near-miss", ELSEWHERE):
            pair = (kinds == kind) | (kinds == "answerable")
            share, threshold = refused(values, kinds, kind)
            report.add(
                f"{name}: AUC, answerable against {kind}", float(roc_auc_score(kinds[pair] == "answerable", values[pair])), ""
            )
            note = f"threshold {threshold:.3f}"
            report.add(f"{name}: {kind} refused at {WRONG_REFUSALS:.0%} wrong refusals", share, "", note=note)
    held = np.array([rows[place]["facts"] or 0.0 for place in places]) == 1
    yes = kinds == "answerable"
    clear = in_use["first gate"] >= gate.CLEARLY_YES
    no = in_use["first gate"] < gate.CLEARLY_NO
    answered = ~no & (in_use["joint gate"] >= np.where(clear, gate.TAKE_BACK, gate.ANSWER))
    report.add("thresholds in use: answerable answered", float(answered[yes].mean()), "")
    report.add("thresholds in use: answerable with all facts in the evidence answered", float(answered[yes & held].mean()), "")
    for kind in ("near-miss", ELSEWHERE):
        report.add(f"thresholds in use: {kind} refused", float((~answered[kinds == kind]).mean()), "")
    report.add("answerable with all facts in the evidence", float(held[yes].mean()), "")
    report.add("may be shown before the model has read it", float(clear.mean()), "")
    report.add("taken back when shown", float((clear & ~answered).mean()), "")
    report.add("refused before the model has read it", float(no.mean()), "")
    counts = ", ".join(f"{(kinds == kind).sum()} {kind}" for kind in ("answerable", "near-miss", ELSEWHERE))
    report.notes.append(f"Questions not fitted on: {counts}.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibrate the evidence gate on hand-written questions.")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="what was measured: written there, or read if it exists")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON on stdout, or write them to FILE")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="with --json: where the rows go")
    given = parser.parse_args()
    if given.keep and given.keep.exists():
        rows = json.loads(given.keep.read_text())
    else:
        rows = asyncio.run(measure())
        if given.keep:
            given.keep.write_text(json.dumps(rows))
    fit_on, report_on = halves(rows)
    report = Report("Evidence gate, the half it was not fitted on")
    tell(rows, report_on, report)
    for name, constants in fitted(rows, fit_on).items():
        report.notes.append(f"{name} = {json.dumps({key: round(value, 3) for key, value in constants.items()})}")
    kinds = np.array([answerable(rows[place]) for place in fit_on])
    for name in ("first gate", "joint gate"):
        shares = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
        found = np.quantile(scores(rows, fit_on)[name][kinds], shares)
        told = ", ".join(f"{share:.0%} below {value:.3f}" for share, value in zip(shares, found, strict=True))
        report.notes.append(f"{name} by the constants in use, answerable questions fitted on: {told}")
    report.finish(given)


if __name__ == "__main__":
    main()

"""Is there evidence? A calibrated logistic over what selection, retrieval and the model itself say.

Two steps, because the model must read the evidence before it can say "none of these":

1. `first` looks at selection and retrieval alone, within a millisecond. Clearly no: refused at once, nothing is shown. Clearly
   yes: the evidence is shown at once. Between the two: shown only after the second step.
2. `joint` adds the model's probability of digit 0 after `assistant\\n[`, read with the evidence in the fork.

What was shown is taken back only when the joint gate says clearly no (`TAKE_BACK`): a reader who sees quotations vanish trusts
the next ones less, and evidence that stays is still a page of the owner's.

Measured on two cores: the evidence is found 40–70 ms after the message, p(0) is known 100–250 ms later on an idle machine and
0.5 s or more later on a busy one. So a clear yes waits for p(0) until `SHOW_BY_MS` and goes out then, p(0) or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Intercept and weight per feature: logistic regression, both classes weighing the same, on half of 557 questions (472 written
# by hand over four packages of documentation, 85 of them put to a site that cannot answer): `benchmarks/calibrate_gate.py`.
# On the other half (203 answerable, 33 near-misses, 42 put elsewhere):
#   joint gate, AUC answerable against elsewhere .97, against near-misses .54 (first gate .96 and .48; p(0) alone .81 and .58);
#   at 10 % wrong refusals it refuses 93 % of the questions put elsewhere and 12 % of the near-misses.
# So the gate tells a foreign topic from the site's own. Whether a page on the very topic holds the fact that is asked for, an
# untuned MiniLM and this checkpoint cannot tell: more features (word coverage, margins) fitted one half and failed on the other.
FIRST = {"intercept": -3.40, "passage_cosine": 3.88, "best_cosine": 3.85}
JOINT = {"intercept": 0.865, "first": 0.838, "zero": -0.228}

# Below: refused without asking the model. Under 1 % of the answerable questions, and of those put elsewhere a third.
CLEARLY_NO = 0.17
# From here on the evidence is shown, at `SHOW_BY_MS` at the latest, though the model may not have read it yet: 79 % of the
# answerable questions, 1 % of those put elsewhere.
CLEARLY_YES = 0.45
# Milliseconds after the visitor's message; a reader is to see evidence within 400.
SHOW_BY_MS = 220
# The joint probability from which an answer is given: 10 % of the answerable questions lie below.
ANSWER = 0.36
# Evidence already shown is taken back below this joint probability.
TAKE_BACK = 0.25

# p(0) is kept away from 0 and 1 before its logit is taken: the int8 model's probabilities mean nothing beyond.
EDGE = 1e-4


@dataclass(slots=True)
class Gate:
    """The decision as the message's trace keeps it."""

    answer: bool
    probability: float
    step: str  # first or joint
    features: dict[str, float] = field(default_factory=dict)

    def trace(self) -> dict[str, Any]:
        return {
            "answer": self.answer,
            "probability": round(self.probability, 4),
            "step": self.step,
            "features": {name: round(value, 4) for name, value in self.features.items()},
        }


def _logistic(weights: Mapping[str, float], features: Mapping[str, float]) -> float:
    score = weights["intercept"] + sum(
        weight * features.get(name, 0.0) for name, weight in weights.items() if name != "intercept"
    )
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


def _logit(probability: float) -> float:
    kept = min(1 - EDGE, max(EDGE, probability))
    return math.log(kept / (1 - kept))


def first(features: Mapping[str, float]) -> Gate:
    """The gate before the model has read anything. `answer` is False only for a clear no."""
    probability = _logistic(FIRST, features)
    return Gate(probability >= CLEARLY_NO, probability, "first", dict(features))


def is_clear(gate: Gate) -> bool:
    """Whether the evidence may be shown before the model has read it."""
    return gate.probability >= CLEARLY_YES


def joint(gate: Gate, zero: float, *, shown: bool) -> Gate:
    """The gate after the fork has read the evidence. `zero`: the model's probability of 0, "none of these"."""
    probability = _logistic(JOINT, {"first": _logit(gate.probability), "zero": _logit(zero)})
    features = {**gate.features, "first": gate.probability, "zero": zero}
    return Gate(probability >= (TAKE_BACK if shown else ANSWER), probability, "joint", features)

"""`retort bench verifier`: what the verifier catches of each kind of falsehood, which true sentences it costs, and its speed.

Measured on the sentences of tests/verify/claims.txt and fresh.txt, written by hand: true paraphrases of short evidence, and the
same with one thing wrong. The peer is the crude check: every word and number stands somewhere in the evidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks._report import Report, arguments, median, quantile
from workers.answer.verify import verify
from workers.answer.verify.evidence import read_evidence
from workers.answer.verify.tokens import tokenise

# Shares that must be caught; what the project holds itself to.
FLOORS = {
    "negation": 0.95,
    "number": 0.97,
    "name": 0.95,
    "unit": 0.95,
    "direction": 0.9,
    "halves": 0.85,
    "omission": 0.85,
}
FALSE_ALARM_CEILING = 0.1
SLOWEST_MS = 5.0
ROUNDS = 5

Check = Callable[[Any], bool]


def _verified(claim: Any) -> bool:
    return verify(claim.sentence, claim.evidence, question=claim.question).supported


def _all_words_present(claim: Any) -> bool:
    known = {token.key for text in claim.evidence for token in tokenise(text)}
    return all(token.key in known for token in tokenise(claim.sentence) if token.content)


def measure(claims: Iterable[Any], check: Check = _verified) -> dict[str, dict[str, Any]]:
    """For each kind {"sentences", "rate", "missed": […]}: the share caught, and for "false alarms" true ones held back."""
    rates: dict[str, dict[str, Any]] = {}
    for claim in claims:
        kind = "false alarms" if claim.kind == "true" else claim.kind
        row = rates.setdefault(kind, {"sentences": 0, "rate": 0.0, "missed": []})
        row["sentences"] += 1
        if check(claim) != (claim.kind == "true"):
            row["missed"].append(claim.sentence)
    for kind, row in rates.items():
        share = len(row["missed"]) / row["sentences"]
        row["rate"] = share if kind == "false alarms" else 1 - share
    return rates


def measured() -> Report:
    """The whole comparison. FileNotFoundError without the repository's tests."""
    from tests.verify.claims import FRESH, read_claims

    claims, fresh = list(read_claims()), list(read_claims(FRESH))
    ours, crude = measure(claims), measure(claims, _all_words_present)
    result = Report("Verifier: sentences held back, by what is wrong with them")
    for kind, floor in FLOORS.items():
        result.add(
            f"{kind} caught",
            ours[kind]["rate"],
            "",
            peer="all words present",
            peer_value=crude[kind]["rate"],
            goal=floor,
            at_least=True,
        )
    alarms = ours["false alarms"]["rate"]
    result.add(
        "true sentences held back",
        alarms,
        "",
        peer="all words present",
        peer_value=crude["false alarms"]["rate"],
        goal=FALSE_ALARM_CEILING,
    )
    for kind, row in measure(fresh).items():
        name = "true sentences held back" if kind == "false alarms" else f"{kind} caught"
        result.add(f"{name}, held-out claims", row["rate"], "")
    times = [_milliseconds(claim) for _ in range(ROUNDS) for claim in claims]
    result.add("one sentence, median", median(times), "ms", goal=SLOWEST_MS)
    result.add("one sentence, p95", quantile(times, 0.95), "ms", goal=SLOWEST_MS)
    result.notes.append(f"{len(claims)} sentences of tests/verify/claims.txt; held out: {len(fresh)} of fresh.txt.")
    return result


def report() -> list[dict[str, Any]]:
    """The rows as `{"name","value","unit","peer","peer_value","ratio","goal","met"}`."""
    return [row.as_json() for row in measured().rows]


def _milliseconds(claim: Any) -> float:
    read_evidence.cache_clear()
    begun = time.thread_time()
    verify(claim.sentence, claim.evidence, question=claim.question)
    return (time.thread_time() - begun) * 1000


def main() -> None:
    measured().finish(arguments(__doc__ or "").parse_args())


if __name__ == "__main__":
    main()

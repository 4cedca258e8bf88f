"""Each matched word against the same word in the evidence: number, unit, bound, name, denial, exception, modality, quantifier."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from workers.answer.verify.evidence import Window, around, negative_keys, place, without_prefix
from workers.answer.verify.lexicon import ONLY
from workers.answer.verify.tokens import NAME, NUMBER, Token

Matches = list[tuple[Token, list[Token]]]


@dataclass(slots=True)
class Fault:
    """Why a claim is not supported: a stable code, words for a person, the share of words found, how many were not."""

    code: str
    text: str
    score: float = 0.0
    missing: int = 0


def numbers(claim: list[Token], matches: Matches, window: Window) -> Fault | None:
    """Value, unit and bound must agree, and something beside the number must be beside it in the evidence as well."""
    for token, found in matches:
        if token.kind != NUMBER:
            continue
        same_unit = [each for each in found if each.unit == token.unit]
        if not same_unit and token.unit in (None, "clock"):
            same_unit = [each for each in found if each.unit is None or "clock" in (each.unit, token.unit)]
        if not same_unit:
            unit = f"“{token.text}” has another unit in the evidence" if token.unit else f"“{token.text}” lacks its unit"
            return Fault("unit", unit)
        if not any(each.bound == token.bound for each in same_unit):
            return Fault("bound", f"“{token.text}” has another bound in the evidence")
        if not any(_same_place(token, claim, each, window.tokens) for each in same_unit):
            return Fault("halves", f"“{token.text}” belongs to something else")
    return None


def _same_place(token: Token, claim: list[Token], found: Token, window: list[Token]) -> bool:
    """Something beside the number in the claim is beside it in the evidence; the only number of its unit cannot be mixed up."""
    rivals = [each for each in window if each.kind == NUMBER and each.unit == found.unit and each is not found]
    if not rivals:
        return True
    mine = around(claim, token)
    theirs = around(window, found)
    if not mine or not theirs or mine & theirs:
        return True
    # The two ends of a range stand beside each other; what is beside one of them is beside both.
    return len(rivals) == 1 and abs(place(window, found) - place(window, rivals[0])) <= 2


def names(claim: list[Token], window: Window) -> Fault | None:
    """Two names side by side are one name: "Anna Weber" does not rest on "Anna Lind" and "Jonas Weber"."""
    beside = {(one.key, other.key) for one, other in zip(window.tokens, window.tokens[1:], strict=False) if not other.breaks}
    for one, other in itertools.pairwise(claim):
        both = one.kind == NAME or (one.initial and one.content and one.text[:1].isupper())
        if not both or other.kind != NAME or other.breaks or (one.key, other.key) in beside:
            continue
        if any(each.kind == NAME for each in window.keys.get(one.key, ())) and other.key in window.keys:
            return Fault("unsupported-name", f"“{one.text} {other.text}” is not in the evidence")
    return None


def governed(claim: list[Token], matches: Matches, window: Window) -> Fault | None:
    """What stands over the words. `matches` hold the nearest places only."""
    fault = _denials(claim, matches, window)
    if fault:
        return fault
    said = {token.quantifier for token in claim} - {""}
    for token, found in matches:
        fault = _exceptions(token, found) or _modality(token, found)
        if fault:
            return fault
        theirs = {each.quantifier for each in found}
        if theirs and not theirs & {"", *said} and not (theirs == {"all"} and not token.quantifier):
            return Fault("quantifier", f"“{token.lower}”: the evidence says {min(theirs)}")
    if any(token.lower in ONLY for token in claim) and not _restricts(window):
        return Fault("exception", "“only” is not in the evidence")
    if any(token.lower == "not-only" for token in claim) and any(token.lower in ONLY for token in window.tokens):
        return Fault("exception", "“not only” where the evidence has “only”")
    words = {token.lower for token in window.tokens}
    said = {token.lower for token in claim}
    for one, other in ((_MORE, _LESS), (_LESS, _MORE)):
        if said & one and not words & one and words & other:
            return Fault("negation", f"“{min(said & one)}” where the evidence has “{min(words & other)}”")
    if any(token.lower in _SITE for token in claim) and words & _VISITOR and not words & _SITE:
        return Fault("direction", "it says “we” where the evidence says “you”")
    return None


_MORE = frozenset(("more",))
_LESS = frozenset(("less", "fewer"))
_SITE = frozenset(("we", "our", "ours", "us"))
_VISITOR = frozenset(("you", "your", "yours"))


def _denials(claim: list[Token], matches: Matches, window: Window) -> Fault | None:
    kept = {each.segment for token, found in matches if token.denied for each in found if each.negated}
    matched = {id(token) for token, _ in matches}
    for token in claim:
        # A denial of a word that only the question has: the evidence must deny the same thing in its own words.
        unknown = token.denied and id(token) not in matched and not kept
        if unknown and not any(mine.negated and each.negated for mine, found in matches for each in found):
            return Fault("negation", f"“{token.lower}” is denied here, not in the evidence")
    for token, found in matches:
        if without_prefix(token.lower) and any(each.key != token.key for each in found):
            continue  # "unsupported" on "not supported"
        if token.denied and not any(each.negated == token.negated for each in found) and token.key not in negative_keys(window):
            return Fault("negation", f"“{token.lower}” is denied here, not in the evidence")
        if token.negated or token.denied:
            continue
        if all(each.denied and each.negated and each.segment not in kept for each in found):
            return Fault("negation", f"“{token.lower}” is denied in the evidence")
    return None


def _exceptions(token: Token, found: list[Token]) -> Fault | None:
    theirs = {each.exceptive for each in found}
    if token.exceptive and token.exceptive not in theirs:
        if token.exceptive == "without" and any(each.negated for each in found):
            return None
        return Fault("exception", f"“{token.exceptive}” is not in the evidence")
    if not token.exceptive and "" not in theirs and not token.denied:
        return Fault("negation" if "without" in theirs else "exception", f"“{min(theirs)}” is left out")
    return None


def _restricts(window: Window) -> bool:
    """Whether the evidence says "only", or the same as "not … except", "not … until"."""
    words = {token.lower for token in window.tokens}
    return bool(words & ONLY) or (bool(words & {"except", "unless", "until"}) and any(token.negated for token in window.tokens))


def _modality(token: Token, found: list[Token]) -> Fault | None:
    theirs = {each.modal for each in found}
    if token.modal == "must" and "must" not in theirs and theirs & {"may", "should"}:
        return Fault("modality", f"“{token.lower}” is a must here, not in the evidence")
    if token.modal == "should" and theirs <= {"may"}:
        return Fault("modality", f"“{token.lower}” is advised here, not in the evidence")
    if token.modal == "may" and theirs <= {"must"} and not token.negated:
        return Fault("modality", f"“{token.lower}” is a choice here, a must in the evidence")
    if not token.modal and theirs <= {"may"} and all(each.possible for each in found) and not token.initial:
        return Fault("modality", f"“{token.lower}” is a fact here, possible in the evidence")
    if token.modal == "will" and theirs <= {"may"}:
        return Fault("modality", f"“{token.lower}” is certain here, possible in the evidence")
    return None

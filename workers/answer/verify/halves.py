"""Halves of two facts in one sentence: "A opens at nine and B closes at six" does not say when A closes.

The evidence falls into parallel pieces (around "and", "while", a comma, where both sides offer the same kind of thing). A claim
may take from several of them what only one offers, for example the verb that they share. It may not take one kind of thing from
one piece and another kind from the other, where each piece has its own of both.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

from workers.answer.verify.lexicon import AUXILIARIES, INSTRUCTIONS, UNITS
from workers.answer.verify.relations import is_verb
from workers.answer.verify.tokens import CODE, NAME, NUMBER, Token, word_key

PRONOUNS = frozenset(("it", "they", "this", "these", "you", "we", "he", "she", "that", "i"))
# A sentence of more parallel pieces is a list; its tail counts as one.
PIECES = 8
_JOINTS = frozenset(("and", "while", "whereas", "but", "then", "or", "nor"))
_SUBORDINATING = frozenset(("before", "after", "when", "if", "because", "although", "until", "unless"))
_MEASURE_WORDS = frozenset(("once", "twice", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "annually"))
_MEASURE_KEYS = frozenset(word_key(unit) for unit in UNITS if unit.isalpha() and len(unit) > 2) | {
    "twice",
    "dail",
    "weekli",
    "monthli",
    "year",
}
_PREPOSITIONS = frozenset(("from", "to", "in", "on", "at", "for", "under", "with", "by", "into", "until"))

Offer = tuple[str, str]  # what kind of thing, and its key


def crossed(claim: list[Token], window: list[Token]) -> bool:
    """Whether some piece of the claim joins halves of two parallel pieces of the evidence."""
    pieces = _split(window)
    if len(pieces) < 2:
        return False
    offers = [_offers(piece) for piece in pieces]
    verbs = [_taken({key for _, key in offer}, offer) & {"verb"} for offer in offers]
    leads = [{key for kind, key in offer if kind == "lead"} for offer in offers]
    for index in range(1, len(pieces)):
        if pieces[index][0].lower == "which":
            # Its subject is the noun before it.
            near = {_key(token) for token in [token for token in pieces[index - 1] if token.content][-2:]}
            offers[index - 1] = {(kind, key) for kind, key in offers[index - 1] if key not in near}
            offers[index] |= {("lead", key) for key in near}
    counts = Counter(key for offer in offers for key in {key for _, key in offer})
    exclusive = [{(kind, key) for kind, key in offer if counts[key] == 1} for offer in offers]
    understood = any(token.lower in PRONOUNS for token in claim[:3])
    for part in _split(claim):
        said = {_key(token) for token in part if token.content}
        rest = {key for kind, key in _offers(part) if kind == "rest"}
        lead = {key for kind, key in _offers(part) if kind == "lead"}
        for one, other in permutations(range(len(pieces)), 2):
            if _joins(said, exclusive[one], exclusive[other], understood):
                return True
            if leads[other] and verbs[other] and _finishes(said, rest, exclusive[one], exclusive[other]):
                return True
            if understood or not verbs[other] or pieces[other][0].lower == "which":
                continue
            if _borrows(said, lead & {key for _, key in exclusive[other]}, exclusive[one], leads[one]):
                return True
    return False


def _borrows(said: set[str], foreign: set[str], one: set[Offer], lead: set[str]) -> bool:
    """The verb of `one` under a subject out of another piece, with the subject of `one` left out."""
    if "verb" not in _taken(said, one) or not foreign:
        return False
    own = {key for kind, key in one if kind == "lead"} or lead
    return bool(own - said)


def _finishes(said: set[str], rest: set[str], one: set[Offer], other: set[Offer]) -> bool:
    """The subject of `one`, nothing that `one` says of it, and something out of `other`, which has its own subject."""
    own = {key for kind, key in one if kind == "rest"}
    return "lead" in _taken(said, one) and bool(own) and not own & said and bool(rest & {key for _, key in other})


def _joins(said: set[str], one: set[Offer], other: set[Offer], understood: bool) -> bool:
    """One kind taken from `one` where `other` has its own unused, and another kind the other way round."""
    mine = _taken(said, one)
    theirs = _taken(said, other)
    if not mine or not theirs:
        return False
    from_one = {kind for kind in mine if kind in _kinds(other) and kind not in theirs}
    from_other = {kind for kind in theirs if kind in _kinds(one) and kind not in mine}
    if understood:
        from_one.discard("lead")
        from_other.discard("lead")
    return bool(from_one) and bool(from_other)


def _key(token: Token) -> str:
    return f"{token.key} {token.unit}" if token.kind == NUMBER else token.key


def _taken(said: set[str], offers: set[Offer]) -> set[str]:
    return {kind for kind, key in offers if key in said}


def _kinds(offers: set[Offer]) -> set[str]:
    return {kind for kind, _ in offers}


def _split(tokens: list[Token]) -> list[list[Token]]:
    """Pieces between joints, but only where both sides have something of a kind: a number, a verb, a name, a preposition."""
    pieces: list[list[Token]] = [[]]
    for index, token in enumerate(tokens):
        joint = token.breaks in (";", ".", ",") or token.lower in _JOINTS or token.lower == "which"
        if token.lower in _SUBORDINATING:
            joint = _has_verb(pieces[-1]) and _has_verb(_until_joint(tokens, index))
        if joint and len(pieces) < PIECES and pieces[-1] and _parallel(pieces[-1], _until_joint(tokens, index)):
            pieces.append([])
        pieces[-1].append(token)
    return [piece for piece in pieces if any(token.content for token in piece)]


def _until_joint(tokens: list[Token], index: int) -> list[Token]:
    for end in range(index + 1, len(tokens)):
        if tokens[end].breaks in (";", ".") or tokens[end].lower in _JOINTS:
            return tokens[index:end]
    return tokens[index:]


def _parallel(left: list[Token], right: list[Token]) -> bool:
    if _has_verb(left) and _has_verb(right):
        return True
    if any(token.kind == NUMBER for token in left) and any(token.kind == NUMBER for token in right):
        return True
    common = {token.key for token in left if token.content} & {token.key for token in right if token.content}
    if len(common) > 1 or (common and all(any(token.kind in (NAME, CODE) for token in side) for side in (left, right))):
        return True
    shared = {each for token in left if token.content for each in token.prepositions & _PREPOSITIONS}
    return bool(shared & {each for token in right if token.content for each in token.prepositions})


def _has_verb(tokens: list[Token]) -> bool:
    return any(token.lower in AUXILIARIES or is_verb(tokens, index) for index, token in enumerate(tokens))


def _offers(piece: list[Token]) -> set[Offer]:
    """What a piece has to offer, by kind: who (lead), does what (verb), how much, of which name, where to, and the rest."""
    found: set[Offer] = set()
    verb_at = next(
        (index for index, token in enumerate(piece) if token.lower in AUXILIARIES or is_verb(piece, index)), len(piece)
    )
    verb_seen = False
    leading = 0
    for index, token in enumerate(piece):
        if not token.content:
            continue
        # Without a verb ("the small hall 80") only what opens the piece can be its subject.
        ahead = index < verb_at and (verb_at < len(piece) or (leading < 2 and not (token.kind == NAME and leading)))
        if token.kind == NUMBER:
            found.update((("number", _key(token)), (f"number {token.unit}", _key(token))))
            found.add(("lead" if ahead and verb_at < len(piece) else "rest", _key(token)))
            leading = 2
        elif token.key in _MEASURE_KEYS or token.lower in _MEASURE_WORDS:
            found.add(("measure", token.key))
            if ahead:
                found.add(("lead", token.key))
        elif ahead and not (token.prepositions & _PREPOSITIONS) and token.lower not in INSTRUCTIONS:
            found.add(("lead", token.key))
            leading += 1
        elif not verb_seen and index >= verb_at:
            found.add(("verb", token.key))
            verb_seen = True
        else:
            found.add(("rest", token.key))
        if token.kind == NAME:
            found.add(("name", token.key))
        found.update((f"after {preposition}", _key(token)) for preposition in token.prepositions & _PREPOSITIONS)
    return found

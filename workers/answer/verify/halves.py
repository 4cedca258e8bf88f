"""Halves of two facts in one sentence: "A opens at nine and B closes at six" does not say when A closes.

The evidence falls into parallel pieces (around "and", "while", a comma, where both sides offer the same kind of thing). A claim
may take from several of them what only one offers, for example the verb that they share. It may not take one kind of thing from
one piece and another kind from the other, where each piece has its own of both.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

from workers.answer.verify.lexicon import AUXILIARIES, DIRECTIONAL, INSTRUCTIONS, UNITS
from workers.answer.verify.relations import is_verb
from workers.answer.verify.tokens import CODE, NAME, NUMBER, Token, word_key

_POSSESSIVE = frozenset(("its", "their", "his", "her", "which", "both"))
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
    pieces = parallel_pieces(window)
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
    subjects = _subjects(pieces, offers)
    ways = [_ways(piece) for piece in pieces]
    understood = any(token.lower in PRONOUNS for token in claim[:3])
    for part in parallel_pieces(claim):
        said = {_key(token) for token in part if token.content}
        rest = {key for kind, key in _offers(part) if kind == "rest"}
        lead = {key for kind, key in _offers(part) if kind == "lead"}
        stated = not understood and (_has_verb(part) or part[0].lower not in DIRECTIONAL)
        if stated and any(_replaces(said, lead, place, pieces, offers, exclusive, subjects) for place in range(len(pieces))):
            return True
        for one, other in permutations(range(len(pieces)), 2):
            if _joins(said, exclusive[one], exclusive[other], understood) or _mixes(_ways(part), ways[one], ways[other]):
                return True
            if leads[other] and verbs[other] and _finishes(said, rest, exclusive[one], exclusive[other]):
                return True
            if understood or not verbs[other] or pieces[other][0].lower == "which":
                continue
            if _borrows(said, lead & {key for _, key in exclusive[other]}, exclusive[one], leads[one]):
                return True
    return False


def _subjects(pieces: list[list[Token]], offers: list[set[Offer]]) -> list[set[str]]:
    """Who each piece speaks of: its own subject, or that of the piece before it ("… and closes at six"); empty if a pronoun."""
    found: list[set[str]] = []
    for piece, offer in zip(pieces, offers, strict=True):
        own = {key for kind, key in offer if kind == "lead" and not key.startswith("%")}
        opening = [token.lower for token in piece if token.lower not in _JOINTS][:1]
        if opening and opening[0] in PRONOUNS | _POSSESSIVE | _SUBORDINATING:
            found.append(set())
        elif own or not found:
            found.append(own)
        else:
            found.append(set() if piece[0].breaks in (".", ";") else found[-1])
    return found


def _replaces(
    said: set[str],
    lead: set[str],
    place: int,
    pieces: list[list[Token]],
    offers: list[set[Offer]],
    exclusive: list[set[Offer]],
    subjects: list[set[str]],
) -> bool:
    """What one piece alone says, under a subject out of another piece and without a word of its own subject."""
    predicates = [{key for kind, key in offer if kind != "lead"} - lead for offer in exclusive]
    if not (subjects[place] - said and predicates[place] & said):
        return False
    own = {key for _, key in offers[place]}
    for other, offer in enumerate(offers):
        foreign = {key for key in lead - subjects[place] - own if any(key == each for _, each in offer)}
        if not foreign or not _same_sentence(pieces, place, other):
            continue
        speaks = any(kind in ("lead", "verb") for kind, _ in offer)
        if other > place and not speaks:
            continue  # "…, as well as by card" goes on with what was said
        verb = {key for kind, key in offer if kind == "verb"}
        # With the verb and other words of the piece that has this very subject it only borrows what the two share.
        if not (foreign & subjects[other] and predicates[other] & said and (not verb or verb & said)):
            return True
    return False


def _same_sentence(pieces: list[list[Token]], one: int, other: int) -> bool:
    between = pieces[min(one, other) + 1 : max(one, other) + 1]
    return one != other and not any(token.breaks == "." for piece in between for token in piece)


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


def _ways(piece: list[Token]) -> dict[str, set[str]]:
    """After each preposition, what stands there: from → Vienna, to → Rome."""
    found: dict[str, set[str]] = {}
    for token in piece:
        for preposition in token.prepositions & _PREPOSITIONS if token.content else ():
            found.setdefault(preposition, set()).add(_key(token))
    return found


def _mixes(claim: dict[str, set[str]], one: dict[str, set[str]], other: dict[str, set[str]]) -> bool:
    """ "From Vienna" of one piece with "on Sunday" of another, where each has its own of both."""
    both = [way for way in claim if way in one and way in other and one[way] != other[way]]
    first = any(claim[way] & (one[way] - other[way]) and not claim[way] & (other[way] - one[way]) for way in both)
    second = any(claim[way] & (other[way] - one[way]) and not claim[way] & (one[way] - other[way]) for way in both)
    return first and second


def _key(token: Token) -> str:
    return f"{token.key} {token.unit}" if token.kind == NUMBER else token.key


def _taken(said: set[str], offers: set[Offer]) -> set[str]:
    return {kind for kind, key in offers if key in said}


def _kinds(offers: set[Offer]) -> set[str]:
    return {kind for kind, _ in offers}


def parallel_pieces(tokens: list[Token]) -> list[list[Token]]:
    """Pieces between joints, but only where both sides have something of a kind: a number, a verb, a name, a preposition."""
    pieces: list[list[Token]] = [[]]
    for index, token in enumerate(tokens):
        joint = token.breaks in (";", ".", ",") or token.lower in _JOINTS or token.lower == "which"
        if token.lower in _SUBORDINATING:
            joint = _has_verb(pieces[-1]) and _has_verb(_until_joint(tokens, index))
        if joint and len(pieces) < PIECES and pieces[-1] and _separate(token, pieces[-1], _until_joint(tokens, index)):
            pieces.append([])
        pieces[-1].append(token)
    return [piece for piece in pieces if any(token.content for token in piece)]


def _separate(token: Token, left: list[Token], right: list[Token]) -> bool:
    """Whether two facts meet here: a full stop or a semicolon between two statements, or two sides of like kinds."""
    if token.breaks in (";", ".") and all(sum(each.content for each in side) > 1 for side in (left, right)):
        return True
    return _parallel(left, right)


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

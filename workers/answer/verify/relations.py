"""Who does what to whom: the two sides of a relation keep their places, or both the verb's voice and they change."""

from __future__ import annotations

from workers.answer.verify.lexicon import (
    AUXILIARIES,
    BE,
    COMMON_VERBS,
    CONTRAST,
    DETERMINERS,
    PARTICLES,
    RELATIONAL_NOUNS,
    SWAPPABLE,
)
from workers.answer.verify.tokens import CODE, NAME, NUMBER, WORD, Token, stem


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


_VERB_STEMS = frozenset(stem(verb) for verb in COMMON_VERBS)
_RELATIONAL_STEMS = frozenset(stem(noun) for noun in RELATIONAL_NOUNS)
_PARTICIPLES = _words("""
    written sent kept held made taken given found built sold told chosen run read put set shown led paid bought known drawn hidden
""")
_PARTICLE_REACH = 4
# After a word in -s these show that it is a verb: "speeds up", "overrides the".
_AFTER_VERB = _words("up down out off on the a an it them you your its their every each all any no both only")


def turned_round(claim: list[Token], window: list[Token]) -> str:
    """What of the claim stands the other way round in the evidence, in words for a person; empty if nothing does."""
    return _swapped_preposition(claim, window) or _other_particle(claim, window) or _inverted(claim, window)


def starts_with_verb(tokens: list[Token]) -> bool:
    """Whether a clause lacks a subject of its own: "closes at six", "is free", "which needs a key"."""
    for index, token in enumerate(tokens[:3]):
        if token.lower in AUXILIARIES or token.lower in ("which", "that", "it", "they", "this"):
            return True
        if token.content:
            return is_verb(tokens, index, first=True)
    return False


def has_verb(tokens: list[Token]) -> bool:
    return any(token.lower in AUXILIARIES or is_verb(tokens, index) for index, token in enumerate(tokens))


def is_verb(tokens: list[Token], index: int, first: bool = False) -> bool:
    """A finite verb, as far as its form and its neighbours tell. With `first`, a bare form that opens a clause counts as well."""
    token = tokens[index]
    if not token.content or token.kind in (NUMBER, CODE) or (token.kind == NAME and not token.initial):
        return False
    before = tokens[index - 1].lower if index else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    if (before in DETERMINERS and before not in ("that", "this", "these", "those", "all")) or token.lower.endswith("ing"):
        return False
    if stem(token.lower) in _VERB_STEMS and (first or before not in ("of", "for", "with", "in")):
        # "The service calls the desk"; not "the mail service".
        plural = before.endswith("s") or before in ("children", "people", "men", "women")
        return first or plural or after is None or not after.content or token.lower.endswith(("s", "ed"))
    if after is None or after.breaks or token.kind != WORD:
        return False
    if token.lower.endswith("ed") and index and tokens[index - 1].content and not token.breaks:
        return after.content or after.lower in _AFTER_VERB
    inflected = token.lower.endswith("s") and not token.lower.endswith("ss")
    return inflected and (after.lower in _AFTER_VERB or after.kind in (NUMBER, NAME))


def _swapped_preposition(claim: list[Token], window: list[Token]) -> str:
    """ "From A to B" against "from B to A", "before A" against "after A", "because A" where the evidence has "because B"."""
    here = _by_key(claim)
    there = _by_key(window)
    for key, mine in here.items():
        theirs = there.get(key)
        if theirs is None:
            continue
        for preposition in mine - theirs:
            opposite = CONTRAST.get(preposition)
            if opposite and theirs & opposite:
                return f"“{preposition}” where the evidence has “{min(theirs & opposite)}”"
            if preposition not in SWAPPABLE or any(
                preposition in here[each] and preposition in there.get(each, ()) for each in here
            ):
                continue
            for other, its in there.items():
                if other != key and preposition in its and other in here and preposition not in here[other]:
                    return f"“{preposition}” stands before the other side"
    return ""


def _by_key(tokens: list[Token]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for token in tokens:
        if token.content:
            found[token.key] = found.get(token.key, frozenset()) | token.prepositions
    return found


def _other_particle(claim: list[Token], window: list[Token]) -> str:
    """ "Turn on" against "turn off", also with the object between."""
    theirs: dict[str, set[str]] = {}
    for index, token in enumerate(window):
        if token.content:
            theirs.setdefault(token.key, set()).update(_particles(window, index))
    for index, token in enumerate(claim):
        if not token.content or not theirs.get(token.key):
            continue
        for particle in _particles(claim, index):
            if PARTICLES[particle] in theirs[token.key] and particle not in theirs[token.key]:
                return f"“{token.lower} {particle}” where the evidence has “{PARTICLES[particle]}”"
    return ""


def _particles(tokens: list[Token], index: int) -> set[str]:
    found: set[str] = set()
    for token in tokens[index + 1 : index + 1 + _PARTICLE_REACH]:
        if token.breaks:
            break
        if token.lower in PARTICLES:
            found.add(token.lower)
            break
    return found


def _inverted(claim: list[Token], window: list[Token]) -> str:
    """A verb with a word of the claim on each side, and in the evidence each of the two on the other side."""
    places: dict[str, list[int]] = {}
    for position, token in enumerate(window):
        if token.content:
            places.setdefault(token.key, []).append(position)
    for pivot, token in enumerate(claim):
        if token.key not in places or not _relates(claim, pivot):
            continue
        left = [each for each in claim[:pivot] if each.content and each.segment == token.segment and each.key in places]
        right = [each for each in claim[pivot + 1 :] if each.content and each.segment == token.segment and each.key in places]
        passive_here, by_here = _voice(claim, pivot)
        for one in reversed(left):
            for other in right:
                if one.key in (token.key, other.key) or other.key == token.key:
                    continue
                sides = _sides(window, places, token.key, one.key, other.key)
                if not sides:
                    continue
                if all(order == "inverted" and passive == passive_here for order, passive, _ in sides):
                    return f"“{one.lower}” and “{other.lower}” change places around “{token.lower}”"
                if all(order == "same" and passive != passive_here and (by or by_here) for order, passive, by in sides):
                    return f"“{token.lower}” is active on one side and passive on the other"
    return ""


def _sides(window: list[Token], places: dict[str, list[int]], pivot: str, one: str, other: str) -> list[tuple[str, bool, bool]]:
    """For each place of the pivot with both words in its segment: their order around it, and its voice. Empty if none."""
    found = []
    for position in places[pivot]:
        segment = window[position].segment
        ones = [each for each in places[one] if window[each].segment == segment]
        others = [each for each in places[other] if window[each].segment == segment]
        if not ones or not others:
            continue
        if all(each > position for each in ones) and all(each < position for each in others):
            order = "inverted"
        elif min(ones) < position < max(others):
            order = "same"
        else:
            order = "else"
        found.append((order, *_voice(window, position)))
    return found


def _relates(tokens: list[Token], index: int) -> bool:
    """Whether a word stands where a verb, a comparison or a noun of relation stands."""
    token = tokens[index]
    if token.kind in (NUMBER, CODE) or (token.kind == NAME and not token.initial):
        return False
    before = tokens[index - 1] if index else None
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    if after is None or before is None or after.lower in AUXILIARIES:
        return False
    if after.lower == "of" or after.lower == "than":
        return after.lower == "than" or stem(token.lower) in _RELATIONAL_STEMS
    if before.lower in AUXILIARIES or before.lower in ("to", "not", "also", "then", "must"):
        return True
    if before.lower in DETERMINERS:
        return False
    inflected = token.lower.endswith(("s", "ed", "ing", "en")) and not token.lower.endswith("ss")
    if after.content:
        return inflected and (stem(token.lower) in _VERB_STEMS or not token.lower.endswith("s"))
    if before.content and after.lower in DETERMINERS:
        return True
    return inflected or stem(token.lower) in _VERB_STEMS


def _voice(tokens: list[Token], index: int) -> tuple[bool, bool]:
    """(passive, an agent with "by" follows)."""
    word = tokens[index].lower
    by = any(token.lower == "by" for token in tokens[index + 1 : index + 3])
    if not (word.endswith(("ed", "en")) or word in _PARTICIPLES):
        return False, False
    be = any(token.lower in BE for token in tokens[max(0, index - 3) : index])
    return be or by, by

"""Which of several like things: where the evidence tells them apart, the claim may not lump them together.

"City bicycles cost 14 euros, electric bicycles 29" does not say what "a bicycle" costs, and "open from 8 on weekdays, from 10
on Saturdays" not that it opens at 10. What the question names is understood.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.answer.verify.evidence import Window, modifier
from workers.answer.verify.governed import Matches
from workers.answer.verify.halves import parallel_pieces
from workers.answer.verify.lexicon import LIGHT
from workers.answer.verify.tokens import NUMBER, WORD, Token, word_key

_LIGHT_KEYS = frozenset(word_key(word) for word in LIGHT)


def unclear(claim: Sequence[Token], subject: Sequence[Token], matches: Matches, window: Window, asked: frozenset[str]) -> str:
    """What of the claim could be either of several things, in words for a person; "" if nothing. `subject`: of the claim."""
    known = frozenset(token.key for token in claim if token.content) | asked
    return _kind_left_out(subject, matches, window, known) or _case_left_out(matches, window, known)


def _kind_left_out(subject: Sequence[Token], matches: Matches, window: Window, known: frozenset[str]) -> str:
    """The subject's noun stands here under one modifier and elsewhere under another, and the claim has neither."""
    mine = {id(token) for token in subject}
    for token, found in matches:
        if id(token) not in mine or token.kind != WORD or token.key in _LIGHT_KEYS:
            continue
        kinds = window.modifiers.get(token.key, set())
        if len(kinds) > 1 and not kinds & known and all(modifier(window.tokens, each) for each in found):
            return f"the evidence has several kinds of “{token.lower}”"
    return ""


def _case_left_out(matches: Matches, window: Window, known: frozenset[str]) -> str:
    """A number that one case has and another case another number, and the claim does not say which case."""
    pieces = parallel_pieces(window.tokens)
    for token, found in matches:
        if token.kind != NUMBER or len(found) != 1:
            continue
        place = next((index for index, piece in enumerate(pieces) if any(each is found[0] for each in piece)), None)
        if place is None:
            continue
        mine = pieces[place]
        rivals = [
            piece
            for piece in pieces
            if piece is not mine and any(each.kind == NUMBER and each.unit == found[0].unit for each in piece)
        ]
        if not rivals:
            continue
        cases = _case(mine, found[0]) - {key for rival in rivals for key in _keys(rival)}
        others = [_case(rival, None) - set(_keys(mine)) for rival in rivals]
        if cases and any(others) and not cases & known and not any(other & known for other in others):
            return f"“{token.text}” holds in one case only"
    return ""


def _case(piece: Sequence[Token], number: Token | None) -> set[str]:
    """What stands after the number of a piece, under a preposition, and tells when or for whom it holds."""
    at = next((index for index, each in enumerate(piece) if (each is number if number else each.kind == NUMBER)), len(piece))
    return {token.key for token in piece[at + 1 :] if token.content and token.kind != NUMBER and token.prepositions}


def _keys(piece: Sequence[Token]) -> list[str]:
    return [token.key for token in piece if token.content]

"""Lists that give each thing its number: "8460 for visitors, 8461 for the dashboard". A number of the list for another of its things
is in the evidence word by word, and wrong.
"""

from __future__ import annotations

from workers.answer.verify.lexicon import DETERMINERS
from workers.answer.verify.tokens import NUMBER, Token

# Words that tie a number to what it is for.
_TIES = frozenset(("for", "to", "on", "per"))
# Between a number and its tie: a unit and a further number ("8463 and 8464 for Redis", "5 euros for children").
_REACH = 4
# A thing is named by at most so many words.
_NAME_WORDS = 2


def misassigned(claim: list[Token], window: list[Token]) -> str:
    """How a number of the claim changed its place in a list of the evidence, in words for a person; "" if none did."""
    listed = _assigned(window)
    if len({thing for things in listed.values() for thing in things}) < 2:
        return ""
    for number, things in _assigned(claim).items():
        for thing in things:
            right = {each for each, named in listed.items() if thing in named}
            if right and number in listed and number not in right:
                return f"“{thing}” has another number in the evidence"
    return ""


def _assigned(tokens: list[Token]) -> dict[str, set[str]]:
    """For the key of each number the keys of what it is for: the first words after the tie."""
    found: dict[str, set[str]] = {}
    for index, token in enumerate(tokens):
        if token.kind != NUMBER:
            continue
        for at in range(index + 1, min(index + 1 + _REACH, len(tokens))):
            if tokens[at].lower in _TIES:
                found.setdefault(token.key, set()).update(_thing(tokens[at + 1 :]))
                break
            if tokens[at].kind != NUMBER and tokens[at].lower != "and" and at > index + 1:
                break
    return found


def _thing(after: list[Token]) -> set[str]:
    keys: list[str] = []
    for token in after:
        if token.lower in DETERMINERS and not keys:
            continue
        if not token.content or token.kind == NUMBER or len(keys) == _NAME_WORDS or (keys and token.segment != after[0].segment):
            break
        keys.append(token.key)
    return set(keys[:_NAME_WORDS])

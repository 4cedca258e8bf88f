"""What the evidence says and the claim leaves out, where the rest then says too much.

A claim may say less than the evidence. It may not drop what limits it: "only", a condition, a bound that tells to what it
applies, the way in which something is done, the rest of a list that it gives as the whole, or which of several like things
is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.answer.verify.evidence import Window
from workers.answer.verify.governed import Fault, Matches
from workers.answer.verify.lexicon import (
    AUXILIARIES,
    CONDITION_FREE,
    DETERMINERS,
    DIRECTIONAL,
    HARMLESS_ADVERBS,
    INSTRUCTIONS,
    LIGHT,
    LIMITING,
    ONLY,
    PARTIAL_LISTS,
)
from workers.answer.verify.relations import is_verb
from workers.answer.verify.tokens import NUMBER, WORD, Token, word_key

_LIGHT_KEYS = frozenset(word_key(word) for word in LIGHT)
_FREE_KEYS = frozenset(word_key(word) for word in CONDITION_FREE)
# Clauses that must stay with what they limit. "When" tells a time more often than a condition.
_CONDITIONS = frozenset(("if", "unless", "after"))
# What stands in such a clause is no fact.
_SUPPOSED = frozenset(("if", "unless", "when", "before", "until"))
_JOINTS = frozenset(("and", "or"))
_NOT_AN_ITEM_TABLE = """
    which who whom whose that where when if because but so while although though since unless until after before however then
    for in on at by with to from as it they he she we you this these
"""
_NOT_AN_ITEM = frozenset(_NOT_AN_ITEM_TABLE.split())
_RESTRICTING_TABLE = """
    except unless just exclusively alone limited until nobody nothing none no not never without other cannot instead
"""
_RESTRICTS_TOO = frozenset(_RESTRICTING_TABLE.split())
_ITEM_WORDS = 4  # content words; a longer piece between commas is a clause
_ONLY_REACH = 4
_LEAST_ITEMS = 3


@dataclass(frozen=True, slots=True)
class _View:
    """A claim beside a window: which tokens of the evidence it surely speaks of, and which keys are said or were asked."""

    claim: Sequence[Token]
    tokens: list[Token]
    sure: frozenset[int]  # id() of the evidence's tokens
    said: frozenset[str]
    asked: frozenset[str]

    def has(self, token: Token) -> bool:
        return id(token) in self.sure


def omitted(claim: list[Token], matches: Matches, window: Window, asked: frozenset[str]) -> Fault | None:
    """The first thing left out that should not be. `matches` hold the nearest places; a word with several proves nothing."""
    sure = frozenset(id(found[0]) for _, found in matches if len(found) == 1)
    view = _View(claim, window.tokens, sure, frozenset(token.key for token in claim if token.content), asked)
    left = _only(view) or _manner(view) or _condition(view) or _supposed(view) or _scope(view) or _rest_of_list(view)
    return Fault("omission", left) if left else None


def _content(tokens: list[Token], start: int, step: int, reach: int = 8) -> Token | None:
    """The next content word from `start` on in the direction of `step`, within the same stretch between punctuation."""
    index = start
    for _ in range(reach):
        if not 0 <= index < len(tokens) or (step > 0 and index > 0 and tokens[index].breaks):
            return None
        if tokens[index].content:
            return tokens[index]
        if tokens[index].lower in _JOINTS or (step < 0 and tokens[index].breaks):
            return None
        index += step
    return None


def _only(view: _View) -> str:
    words = {token.lower for token in view.claim}
    if words & ONLY or words & _RESTRICTS_TOO:
        return ""
    for index, token in enumerate(view.tokens):
        if token.lower not in ONLY:
            continue
        ahead = _content(view.tokens, index + 1, 1, _ONLY_REACH)
        behind = _content(view.tokens, index - 1, -1, _ONLY_REACH) if not token.breaks else None
        if (ahead is not None and view.has(ahead)) or (behind is not None and view.has(behind)):
            return f"“{token.lower}” is left out"
    return ""


def _manner(view: _View) -> str:
    """ "Insert it backwards", "nearly full", "temporary files": without that word something else is done, or more is true."""
    for index, token in enumerate(view.tokens):
        if not token.content or token.kind != WORD or token.key in view.said or token.denials:
            continue
        ahead = view.tokens[index + 1] if index + 1 < len(view.tokens) else None
        if token.lower in LIMITING or (token.lower == "default" and index and view.tokens[index - 1].lower == "by"):
            near = _content(view.tokens, index + 1, 1, 2)
            if token.lower == "default":
                near = near or _content(view.tokens, index - 1, -1)
        elif _is_manner(token.lower):
            near = _content(view.tokens, index - 1, -1) if not token.breaks and index else None
            if near is None or not view.has(near):  # "nearly full"; not "entered wrongly an error appears"
                near = _content(view.tokens, index + 1, 1) if ahead and ahead.lower not in DETERMINERS else None
        else:
            continue
        if near is not None and view.has(near):
            return f"“{token.lower}” is left out"
    return ""


def _is_manner(lower: str) -> bool:
    if lower in HARMLESS_ADVERBS:
        return False
    return (lower.endswith("ly") and len(lower) > 5) or lower.endswith(("wards", "wise")) or lower in ("upside", "almost")


def _condition(view: _View) -> str:
    """ "Refunded if you cancel": the clause that the claim and the question leave out belongs to what the claim says."""
    words = {token.lower for token in view.claim}
    if words & (_CONDITIONS | {"when", "until", "before", "only", "provided", "depends"}):
        return ""
    for index, token in enumerate(view.tokens):
        opens = index == 0 or bool(token.breaks and token.breaks != ",")
        if token.lower not in _CONDITIONS or (opens and token.lower != "after"):
            continue  # a condition in front is what the visitor asks about, one behind is news
        clause = _clause(view.tokens, index)
        keys = {each.key for each in clause if each.content} - _LIGHT_KEYS - _FREE_KEYS
        if not keys or keys & (view.said | view.asked):
            continue
        governed = _main_clause(view.tokens, index, len(clause), opens)
        held = [each for each in governed if view.has(each)]
        if len(held) >= 2 and 2 * len(held) >= len(view.sure):
            return f"“{token.lower} …” is left out"
    return ""


def _clause(tokens: list[Token], index: int) -> list[Token]:
    """The tokens after a conjunction up to the next punctuation."""
    end = index + 1
    while end < len(tokens) and not tokens[end].breaks:
        end += 1
    return tokens[index + 1 : end]


def _main_clause(tokens: list[Token], index: int, length: int, opens: bool) -> list[Token]:
    """What a conditional clause limits: the piece before it, or after its comma where the clause comes first."""
    start = index + 1 + length if opens else index
    if opens:
        end = start + 1
        while end < len(tokens) and not tokens[end].breaks:
            end += 1
        return tokens[start:end]
    begin = index - 1
    while begin > 0 and not tokens[begin].breaks and tokens[begin].lower not in ("but", "while"):
        begin -= 1
    return tokens[max(begin, 0) : start]


def _supposed(view: _View) -> str:
    """The clause of a condition given as a fact, or as an instruction: "if the disk is full" → "the disk is full"."""
    held = [token for token in view.tokens if view.has(token) and token.key not in _LIGHT_KEYS]
    mine = frozenset().union(*(token.prepositions for token in view.claim)) | {token.lower for token in view.claim}
    if len(held) < 2 or mine & (_SUPPOSED | {"after", "while", "by", "to"}):
        return ""
    common = frozenset.intersection(*(token.prepositions for token in held)) & _SUPPOSED
    if common <= {"if", "when"} and is_verb(list(view.claim), 0, first=True) and any(each.lower == "you" for each in view.tokens):
        return ""  # "if you check the box, …" → "check the box"
    return f"only what follows “{min(common)}” is said" if common else ""


def _scope(view: _View) -> str:
    """ "Free for orders over 80 euros", "guests aged 16 or older": the bound tells to what the rest applies."""
    for index, token in enumerate(view.tokens):
        if token.kind != NUMBER or not token.bound or token.key in view.said or token.key in view.asked:
            continue
        lead = index - 1
        while lead > 0 and not view.tokens[lead].breaks and not view.tokens[lead].content:
            lead -= 1
        head = view.tokens[lead] if lead >= 0 else None
        if head is None or not head.content or token.breaks:
            continue
        noun = head if view.has(head) else _content(view.tokens, lead - 1, -1, 3)
        limits = bool({"for", "with"} & (token.prepositions | head.prepositions)) or head.lower == "aged"
        if noun is not None and view.has(noun) and limits:
            return f"“{token.text}” is left out, which tells to what it applies"
    return ""


def _rest_of_list(view: _View) -> str:
    """A list of three or more of which the claim joins two or more, and not all, as if they were the whole."""
    words = {token.lower for token in view.claim}
    if not words & _JOINTS or words & PARTIAL_LISTS:
        return ""
    for index, token in enumerate(view.tokens):
        if token.lower not in _JOINTS:
            continue
        items = _items(view.tokens, index)
        if len(items) < _LEAST_ITEMS:
            continue
        own = [keys - set().union(*(other for other in items if other is not keys)) for keys in items]
        said = [bool(keys & view.said) for keys in own]
        missing = [keys for keys, here in zip(own, said, strict=True) if keys and not here]
        named = [keys for keys, here in zip(own, said, strict=True) if here]
        if len(named) < 2 or not missing or all(keys & view.asked for keys in named) or not _joined(view.claim, named):
            continue
        return f"the list goes on: “{min(missing[0])}”"
    return ""


def _joined(claim: Sequence[Token], items: list[set[str]]) -> bool:
    """Whether an "and" of the claim stands between two of the items, nothing but them around it."""
    for index, token in enumerate(claim):
        if token.lower in _JOINTS:
            before = [keys for keys in items if any(each.key in keys for each in claim[:index])]
            after = [keys for keys in items if any(each.key in keys for each in claim[index + 1 : index + 1 + _ITEM_WORDS])]
            if before and any(keys not in before for keys in after):
                return True
    return False


def _items(tokens: list[Token], joint: int) -> list[set[str]]:
    """Keys of the items of the list whose last two stand around `joint`; empty if commas there do not make a list."""
    items, end = [_last_item(tokens, joint)], joint
    while all(items):
        begin = end - 1
        while begin > 0 and not tokens[begin].breaks and tokens[begin].lower not in _JOINTS:
            begin -= 1
        piece = tokens[begin:end]
        if not piece:
            return []
        if tokens[begin].lower in _JOINTS:  # "…, and 8463 and 8464 for Redis": the last two are one item
            if len(items) > 1:
                return []
            items[0] |= {token.key for token in piece if token.content}
            end = begin
            continue
        if tokens[begin].breaks == "," and begin:
            if piece[0].lower in PARTIAL_LISTS and len(piece) > 1:  # "…, including A, B and C": here the list begins
                items.append({token.key for token in piece[1:] if token.content})
                break
            content = [token for token in piece if token.content]
            doing = piece[0].lower.endswith("ing")  # "…, installing lamps and using less" explains what is before
            if doing or piece[0].lower in _NOT_AN_ITEM or not content or len(content) > _ITEM_WORDS:
                return []
            items.append({token.key for token in content})
            end = begin
            continue
        items.append(_first_item(piece))
        break
    return items if all(items) else []


def _last_item(tokens: list[Token], joint: int) -> set[str]:
    """The first word after the joint, and after a number the word that it counts."""
    found: set[str] = set()
    for token in tokens[joint + 1 : joint + 1 + _ITEM_WORDS]:
        if token.breaks or token.lower in DIRECTIONAL:
            break
        if token.content:
            found.add(token.key)
            if token.kind != NUMBER:
                break
    return found


def _first_item(piece: list[Token]) -> set[str]:
    """Of what precedes the first comma the part that is an item: its last content word, or the verb of an instruction."""
    opening = piece[0].lower
    if opening in AUXILIARIES or (len(piece) == 1 and opening.endswith("ly")):
        return set()
    if opening in _NOT_AN_ITEM - {"it", "they", "we", "you", "he", "she", "this", "these"}:
        return set()
    if (piece[0].lower in INSTRUCTIONS or is_verb(piece, 0, first=True)) and len([each for each in piece if each.content]) > 1:
        return {piece[0].key, *[each.key for each in piece if each.content][-1:]}
    content = [token for token in piece if token.content and token.lower not in AUXILIARIES]
    return {content[-1].key} if content else set()

"""What stands around a token: negation, bounds, modality, exceptions, prepositions, and the segment it belongs to."""

from __future__ import annotations

from workers.answer.verify.lexicon import (
    BE,
    BREAKING_WORDS,
    COMMON_VERBS,
    DENYING,
    DETERMINERS,
    DIRECTIONAL,
    EXCEPTIVE,
    HARD_BREAKS,
    INSTRUCTIONS,
    LIGHT_HEADS,
    MODALS,
    NEGATORS,
    QUANTIFIERS,
)
from workers.answer.verify.tokens import WORD, Token, word_key

# A negation reaches at most this many content words ahead.
_NEGATION_REACH = 7
_MODAL_REACH = 2
_CONJUNCTIONS = frozenset(("because", "if", "when", "unless", "before", "after", "until"))

_POSSIBLE = frozenset(("may", "might", "could"))  # "can" tells more often what a thing is able to do
_BARE_VERBS = COMMON_VERBS | INSTRUCTIONS
_LIGHT_KEYS = frozenset(word_key(word) for word in LIGHT_HEADS)
_DENYING_KEYS = frozenset(word_key(word) for word in DENYING)


def annotate(tokens: list[Token]) -> list[Token]:
    """Mark each token with what governs it. Returns the same list."""
    _segments(tokens)
    governed: list[set[str]] = [set() for _ in tokens]
    for index, token in enumerate(tokens):
        word = token.lower
        if word in NEGATORS or word.endswith("n't") or _denying_verb(tokens, index):
            _deny(tokens, index)
        if word in EXCEPTIVE:
            for target in _next_content(tokens, index, 1):
                target.exceptive = EXCEPTIVE[word]
        if word in MODALS:
            for target in _next_content(tokens, index, _MODAL_REACH, across=("to", "be", "not", "have", "been")):
                target.modal = target.modal or MODALS[word]
            _possible(tokens, index)
        if word in QUANTIFIERS:
            for target in _next_content(tokens, index, 1):
                target.quantifier = QUANTIFIERS[word]
        if word in DIRECTIONAL and not (word == "to" and _is_infinitive(tokens, index)):
            whole = word in _CONJUNCTIONS
            for position in _governed(tokens, index, whole):
                governed[position].add(word)
    for token, prepositions in zip(tokens, governed, strict=True):
        token.prepositions = frozenset(prepositions)
    return tokens


def _segments(tokens: list[Token]) -> None:
    """Number the stretches between punctuation and subordinating words."""
    segment = 0
    for index, token in enumerate(tokens):
        if index and (token.breaks or token.lower in HARD_BREAKS):
            segment += 1
        token.segment = segment


def _deny(tokens: list[Token], index: int) -> None:
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    # "No, …" answers; "No. 5" labels; "not sure whether", "or not." have nothing to deny.
    if following is None or (following.breaks and tokens[index].lower in ("no", "not", "none")):
        return
    reached, denying = 0, True
    for target in tokens[index + 1 :]:
        ends = target.breaks or (reached and target.lower in BREAKING_WORDS and target.lower != "or")
        if ends and not (denying and target.lower == "that"):  # "it is not true that …"
            break
        if not target.content:
            continue
        target.denials += 1
        reached += 1
        if denying:
            target.denied = True
            denying = target.lower.endswith("ly") or target.key in _LIGHT_KEYS
        if reached >= _NEGATION_REACH:
            break


def _denying_verb(tokens: list[Token], index: int) -> bool:
    """ "Prevents it from …", "avoid inlining"; not "can be avoided via …", whose object stands before it."""
    return (
        tokens[index].content
        and tokens[index].key in _DENYING_KEYS
        and not any(token.lower in BE for token in tokens[max(0, index - 2) : index])
        and not (index + 1 < len(tokens) and tokens[index + 1].lower in ("by", "via", "when", "if", "with"))
    )


def _possible(tokens: list[Token], index: int) -> None:
    """Mark the verb of "may fail"; not of "can be reached", which says how, not whether."""
    following = next(
        (token for token in tokens[index + 1 : index + 3] if token.lower not in ("also", "still", "sometimes")), None
    )
    if tokens[index].lower in _POSSIBLE and following is not None and following.content and not _person_before(tokens, index):
        following.possible = True


def _person_before(tokens: list[Token], index: int) -> bool:
    """ "You may …", "guests can …": a permission. "The command may fail": a possibility."""
    ahead = [token for token in tokens[:index] if token.segment == tokens[index].segment]
    return any(token.lower in ("you", "we", "they", "who", "users", "guests", "members", "customers") for token in ahead[-3:])


def _is_infinitive(tokens: list[Token], index: int) -> bool:
    """ "To sort the list", where "to" says no direction."""
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    return (
        following is not None
        and following.kind == WORD
        and (following.lower in _BARE_VERBS or not following.content)
        and following.lower not in DETERMINERS
    )


def _next_content(tokens: list[Token], index: int, count: int, across: tuple[str, ...] = ()) -> list[Token]:
    found: list[Token] = []
    for target in tokens[index + 1 : index + 7]:
        if target.breaks and not found:
            break
        if target.content:
            found.append(target)
            if len(found) == count:
                break
        elif found and target.lower not in across:
            break
    return found


def _governed(tokens: list[Token], index: int, whole: bool) -> list[int]:
    """Positions that a preposition governs: the run of content words after it; after a conjunction everything in its segment."""
    positions: list[int] = []
    for position in range(index + 1, len(tokens)):
        token = tokens[position]
        if token.breaks:
            break
        if token.content:
            positions.append(position)
        elif whole:
            if token.lower in HARD_BREAKS or token.lower in _CONJUNCTIONS:
                break
        elif positions or token.lower not in DETERMINERS:
            if positions or token.lower in DIRECTIONAL:
                break
            if token.lower not in ("of", "about", "and"):
                continue
    return positions

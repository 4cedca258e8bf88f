"""The evidence as the verifier sees it: windows of one sentence, or of neighbours that a reference ties together."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from workers.answer.sentences import split_sentences
from workers.answer.verify.context import annotate
from workers.answer.verify.lexicon import ANTONYMS, DETERMINERS, NEGATIVE_PREFIXES, REFERENCES
from workers.answer.verify.tokens import CODE, NAME, NUMBER, WORD, Token, normalise, tokenise, word_key

# How many content words on each side tell which of several places in the evidence a word of the claim speaks of.
NEIGHBOURS = 3
_TERM_WORDS = 8
# What is read of the evidence; the rest supports nothing. Quotations are far shorter.
SENTENCE_TOKENS = 200
SENTENCES = 40
_ANTONYM_KEYS = {word_key(word): frozenset(word_key(other) for other in others) for word, others in ANTONYMS.items()}


@dataclass(slots=True)
class Window:
    """`keys` → the content tokens with that key; `units` number its sentences within the evidence.

    `modifiers` → by noun, the keys of the words right before it anywhere in the evidence, shared by all windows.
    """

    tokens: list[Token]
    keys: dict[str, list[Token]]
    units: tuple[int, ...]
    refers: bool
    modifiers: dict[str, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Evidence:
    """`verbatim` are its sentences, normalised."""

    verbatim: frozenset[str]
    windows: list[Window]


@lru_cache(maxsize=64)
def read_evidence(texts: tuple[str, ...], passages: tuple[Hashable, ...]) -> Evidence:
    """Windows over the evidence; cached, because an answer's sentences are checked against the same evidence one by one."""
    verbatim: set[str] = set()
    units: list[list[Token]] = []
    announces: list[bool] = []
    owners: list[Hashable] = []
    for text, passage in zip(texts, passages, strict=True):
        verbatim.add(normalise(text))
        for start, end in split_sentences(text):
            sentence = text[start:end]
            verbatim.add(normalise(sentence))
            if len(units) == SENTENCES:
                continue
            units.append(annotate(tokenise(" ".join(sentence.split()[:SENTENCE_TOKENS]))))
            announces.append(sentence.endswith(":") or _is_term(sentence))
            owners.append(passage)
    windows = [_window([unit], (index,)) for index, unit in enumerate(units)]
    tied = [False, *(owners[i - 1] == owners[i] and (announces[i - 1] or _refers(units[i])) for i in range(1, len(units)))]
    for index in range(1, len(units)):
        if tied[index]:
            windows.append(_window(units[index - 1 : index + 1], (index - 1, index)))
            if index > 1 and tied[index - 1]:
                windows.append(_window(units[index - 2 : index + 1], (index - 2, index - 1, index)))
    modifiers: dict[str, set[str]] = {}
    for unit in units:
        for token in unit:
            if token.kind == WORD and (before := modifier(unit, token)):
                modifiers.setdefault(token.key, set()).add(before)
    for window in windows:
        window.modifiers = modifiers
    return Evidence(frozenset(each for each in verbatim if each), windows)


def modifier(tokens: list[Token], noun: Token) -> str:
    """The key of the word right before a noun that says which: "electric" in "an electric bicycle"; "" without one."""
    at = place(tokens, noun)
    before = tokens[at - 1] if at and not noun.breaks else None
    # After a determiner or at the beginning: there no verb can stand between.
    opens = at > 1 and tokens[at - 2].lower in DETERMINERS
    opens = opens or at == 1 or (before is not None and bool(before.breaks))
    if before is None or not opens or before.kind not in (WORD, NAME) or not before.content or before.key.startswith("%"):
        return ""
    return before.key


def _is_term(sentence: str) -> bool:
    """A heading or a term: what stands on the next line speaks of it."""
    return len(sentence.split()) <= _TERM_WORDS and sentence[-1] not in ".!?;,"


def _refers(tokens: list[Token]) -> bool:
    return any(token.lower in REFERENCES for token in tokens[:2])


def _window(parts: list[list[Token]], units: tuple[int, ...]) -> Window:
    tokens: list[Token] = []
    for part in parts:
        offset = tokens[-1].segment + 1 if tokens else 0
        for index, token in enumerate(part):
            breaks = "." if tokens and index == 0 else token.breaks
            tokens.append(replace(token, segment=token.segment + offset, breaks=breaks) if len(parts) > 1 else token)
    keys: dict[str, list[Token]] = {}
    for token in tokens:
        if token.content:
            keys.setdefault(token.key, []).append(token)
            for part in _parts(token):
                keys.setdefault(part, []).append(token)
    return Window(tokens, keys, units, bool(parts) and _refers(parts[0]))


def _parts(token: Token) -> list[str]:
    """Keys of what a compound or an assignment is made of: "LaTeX-editor", "--label=label", "mode='slow'"."""
    if token.kind in (WORD, NAME) and "-" in token.lower:
        return [word_key(part) for part in token.lower.split("-") if part]
    if token.kind == CODE and "=" in token.key[1:]:
        name, _, value = token.key.partition("=")
        return [name, "`" + value, word_key(value.lower())]
    return []


def find(token: Token, window: Window) -> list[Token]:
    """Where the evidence says the same word: by key, by the halves of a compound, or denied ("unsupported", "not supported")."""
    found = window.keys.get(token.key)
    if found:
        return found
    if token.kind == WORD and "-" in token.key:
        halves = [window.keys.get(half) for half in token.key.split("-")]
        if all(halves):
            return halves[-1] or []
    if token.kind in (WORD, NAME):
        base = without_prefix(token.lower)
        for each in window.keys.get(base, ()) if base else ():
            if each.negated:
                return [each]
        if token.negated:
            for each in window.tokens:
                if each.content and without_prefix(each.lower) == token.key:
                    return [each]
    return []


@lru_cache(maxsize=4096)
def without_prefix(lower: str) -> str:
    """The key of a word without "un-", "non-", "dis-" and the like; empty if it has none."""
    for prefix in NEGATIVE_PREFIXES:
        if lower.startswith(prefix) and len(lower) - len(prefix) >= 4:
            return word_key(lower[len(prefix) :])
    return ""


def negative_keys(window: Window) -> set[str]:
    return {without_prefix(token.lower) for token in window.tokens if token.content} - {""}


def opposites(token: Token) -> frozenset[str]:
    """The keys of the words that mean the opposite of a word, as far as the lexicon knows."""
    return _ANTONYM_KEYS.get(token.key, frozenset())


def opposite_in(token: Token, window: Window, claim: list[Token]) -> bool:
    """Whether the evidence says the opposite of a word that it lacks, and the claim does not say both ("from true to false")."""
    said = {each.key for each in claim}
    if any(other in window.keys and other not in said for other in opposites(token)):
        return True
    base = without_prefix(token.lower)
    if base and base in window.keys and base not in said:
        return True
    return any(each.content and without_prefix(each.lower) == token.key and each.key not in said for each in window.tokens)


def nearest(token: Token, found: list[Token], claim: list[Token], window: Window) -> list[Token]:
    """Of several places of a word in the evidence, those with the most of the claim's words around them."""
    if len(found) < 2:
        return found
    mine = _beside(claim, token)
    shared = [len(mine & _beside(window.tokens, each)) for each in found]
    return [each for each, count in zip(found, shared, strict=True) if count == max(shared)]


def _beside(tokens: list[Token], token: Token) -> set[str]:
    return around([each for each in tokens if each.segment == token.segment], token)


def around(tokens: list[Token], token: Token) -> set[str]:
    """Keys of the content words next to a token, numbers left out."""
    content = [each for each in tokens if each.content]
    at = place(content, token)
    near = content[max(0, at - NEIGHBOURS) : at] + content[at + 1 : at + 1 + NEIGHBOURS]
    return {each.key for each in near if each.kind != NUMBER}


def place(tokens: list[Token], token: Token) -> int:
    return next(index for index, each in enumerate(tokens) if each is token)

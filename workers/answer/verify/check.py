"""Does the evidence support this sentence? Rules over tokens, made to fail closed: what they cannot follow, they do not let pass.

A sentence is supported if every clause of it rests on one piece of evidence (or on neighbours tied by a reference): its numbers with
their units and bounds, names and identifiers, content words, what is denied, how strongly, of how many, and which way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from workers.answer.sentences import split_sentences
from workers.answer.verify.context import annotate
from workers.answer.verify.lexicon import ANTONYMS, AUXILIARIES, INSTRUCTIONS, LIGHT, NEGATIVE_PREFIXES, ONLY, REFERENCES
from workers.answer.verify.relations import has_verb, starts_with_verb, turned_round
from workers.answer.verify.tokens import CODE, NAME, NUMBER, WORD, Token, normalise, tokenise, word_key

# Stable names, for logs and traces; `Verdict.reason` is "code: what a person reads".
REASONS = (
    "verbatim", "supported", "empty", "question", "unsupported-number", "unit", "bound", "unsupported-name", "negation", "polarity", "exception",
    "modality", "quantifier", "direction", "halves", "unsupported-word", "nothing-new",
)  # fmt: skip
# At most this share of a claim's content words may come from the question alone.
QUESTION_SHARE = 0.34
# How many content words on each side tell which of several places in the evidence a word of the claim speaks of.
NEIGHBOURS = 3
_CLAUSE = re.compile(
    r"(?P<mark>;|:(?=\s)|,?\s(?:but|while|whereas|although|though|so|which|and|because|since)\s|,\s(?:and|or|who|where|then)\s|,\s|\s-\s|\s\()"
)
_YES_NO = re.compile(r"^(yes|no|nope|yep|ok|okay|sure|correct|right)\b\s*(?:[,.:;!-]+\s*|$)", re.IGNORECASE)
_PRONOUNS = frozenset(("it", "they", "this", "these", "you", "we", "he", "she", "that", "which", "i"))
_LIGHT_KEYS = frozenset(word_key(word) for word in LIGHT)
_ANTONYM_KEYS = {word_key(word): frozenset(word_key(other) for other in others) for word, others in ANTONYMS.items()}
_RESTRICTING = re.compile(
    r"\b(?:only|not|n't|never|no|none|nothing|without|cannot|unless|except|instead|rather|must|at least|at most|but|neither|nor|just|"
    r"too|limited|until|before|otherwise|un\w+|dis\w+|rejects?|refuses?|fails?|closed|prohibited|forbidden|denied|optional|"
    r"exclud\w+|exception|abort\w*|lacks?|missing|non-?\w+|same|identical)\b|n't\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` begins with one of `REASONS` and a colon; `score` is the share of the content words that the evidence holds."""

    supported: bool
    reason: str
    score: float

    @property
    def code(self) -> str:
        return self.reason.split(":", 1)[0]


@dataclass(slots=True)
class _Fault:
    code: str
    text: str
    score: float
    missing: int = 0  # content words that this window lacks


@dataclass(slots=True)
class _Window:
    """One piece of evidence, or neighbours that a reference ties together."""

    tokens: list[Token]
    keys: dict[str, list[Token]]
    units: tuple[int, ...]
    refers: bool


def verify(sentence: str, evidence: Sequence[str], *, question: str, topic: str = "") -> Verdict:
    """Whether `evidence` supports every claim of one `sentence` of wording.

    `evidence` are verbatim sentences or short passages, neighbours of one passage next to each other. Words of the `question`, and of
    the `topic` (titles and headings above the evidence, the site's name), may be repeated as what it is about; they prove nothing.
    Never raises on any text.
    """
    plain = normalise(sentence)
    if not any(character.isalnum() for character in plain):
        return Verdict(False, "empty: nothing is said", 0.0)
    if plain.endswith("?"):
        return Verdict(False, "question: an answer asks nothing", 0.0)
    pieces = _pieces(tuple(evidence))
    if plain in pieces.verbatim:
        return Verdict(True, "verbatim: a sentence of the evidence", 1.0)
    asked = frozenset(token.key for token in tokenise(question + " \n" + topic) if token.content and token.kind != NUMBER)
    answer = _YES_NO.match(plain)
    claim = plain[answer.end() :] if answer else plain
    if answer and not any(character.isalnum() for character in claim):
        return Verdict(False, "polarity: a bare yes or no rests on nothing", 0.0)
    if answer:
        fault = _answer_polarity(answer.group(1).lower(), claim, question)
        if fault:
            return Verdict(False, f"{fault.code}: {fault.text}", fault.score)
    fault = _check(claim, pieces.windows, asked)
    if fault is None:
        return Verdict(True, "supported: every clause rests on the evidence", 1.0)
    return Verdict(False, f"{fault.code}: {fault.text}", round(fault.score, 3))


@dataclass(slots=True)
class _Pieces:
    verbatim: frozenset[str]
    windows: list[_Window]


@lru_cache(maxsize=64)
def _pieces(evidence: tuple[str, ...]) -> _Pieces:
    """Windows over the evidence; cached, because an answer's sentences are checked against the same evidence one by one."""
    verbatim: set[str] = set()
    units: list[list[Token]] = []
    announces: list[bool] = []
    for text in evidence:
        verbatim.add(normalise(text))
        for start, end in split_sentences(text):
            verbatim.add(normalise(text[start:end]))
            units.append(annotate(tokenise(text[start:end])))
            announces.append(text[start:end].endswith(":"))
    windows = [_window([unit], (index,)) for index, unit in enumerate(units)]
    for index in range(1, len(units)):
        if announces[index - 1] or _refers(units[index]):
            windows.append(_window([units[index - 1], units[index]], (index - 1, index)))
            if index > 1 and (announces[index - 2] or (_refers(units[index - 1]) and _refers(units[index]))):
                windows.append(_window([units[index - 2], units[index - 1], units[index]], (index - 2, index - 1, index)))
    return _Pieces(frozenset(each for each in verbatim if each), windows)


def _refers(tokens: list[Token]) -> bool:
    return any(token.lower in REFERENCES for token in tokens[:2])


def _window(parts: list[list[Token]], units: tuple[int, ...]) -> _Window:
    tokens: list[Token] = []
    offset = 0
    for part in parts:
        if tokens:
            part = [_shifted(token, offset) for token in part]
        tokens.extend(part)
        offset = tokens[-1].segment + 1 if tokens else 0
    keys: dict[str, list[Token]] = {}
    for token in tokens:
        if token.content:
            keys.setdefault(token.key, []).append(token)
            if token.kind == WORD and "-" in token.key:
                for half in token.key.split("-"):
                    keys.setdefault(half, []).append(token)
    return _Window(tokens, keys, units, bool(parts) and _refers(parts[0]))


def _shifted(token: Token, offset: int) -> Token:
    copy = Token(*(getattr(token, name) for name in Token.__slots__))
    copy.segment += offset
    return copy


def _answer_polarity(answer: str, claim: str, question: str) -> _Fault | None:
    """ "Yes" before a denial of what was asked, "No" before a claim that denies or restricts nothing."""
    asked = annotate(tokenise(question))
    claimed = annotate(tokenise(claim))
    asked_keys = {token.key: token for token in asked if token.content}
    positive = answer in ("yes", "yep", "ok", "okay", "sure", "correct", "right")
    if positive:
        for token in claimed:
            same = asked_keys.get(token.key)
            if token.denied and same is not None and not same.negated:
                return _Fault("polarity", f"“yes”, but “{token.lower}” is denied", 0.0)
        opening = [token.lower for token in claimed[:3]]
        if "if" not in opening and any(word in ("not", "cannot", "can't", "never", "don't", "isn't") for word in opening):
            return _Fault("polarity", "“yes” before a denial", 0.0)
        return None
    restricted = _RESTRICTING.search(claim) or any(token.kind == NUMBER for token in claimed)
    if not restricted:
        return _Fault("polarity", "“no”, but what follows denies nothing", 0.0)
    return None


def _check(claim: str, windows: list[_Window], asked: frozenset[str]) -> _Fault | None:
    """None if supported. First the sentence as a whole against each window, then its clauses, each against one window."""
    tokens = annotate(tokenise(claim))
    if not any(token.content for token in tokens):
        return _Fault("nothing-new", "no claim that could be checked", 0.0)
    whole, _ = _best(tokens, windows, asked)
    if whole is None:
        return None
    if not windows:
        return whole
    clauses = _clauses(claim)
    if len(clauses) < 2:
        return _halves_or(whole, tokens, windows, asked)
    used: list[tuple[list[Token], _Window]] = []
    for clause in clauses:
        fault, window = _best(clause, windows, asked)
        if fault is not None or window is None:
            if whole.missing == 0:
                return whole
            return _halves_or(fault or whole, clause, windows, asked)
        used.append((clause, window))
    return _tied(used)


def _halves_or(fault: _Fault, tokens: list[Token], windows: list[_Window], asked: frozenset[str]) -> _Fault:
    """The same fault, named "halves" if the words it misses stand in other evidence."""
    if fault.code not in ("unsupported-word", "unsupported-name", "unsupported-number"):
        return fault
    everywhere = set().union(*(window.keys for window in windows)) if windows else set()
    if all(token.key in everywhere for token in tokens if token.content and token.key not in _LIGHT_KEYS):
        return _Fault("halves", "its words stand in different facts", fault.score)
    return fault


def _clauses(claim: str) -> list[list[Token]]:
    """Pieces of the sentence that each make a claim; a piece without a verb or of one word stays with its neighbour."""
    edges = [0]
    for match in _CLAUSE.finditer(claim):
        edges.append(
            match.start()
            if match["mark"][0] not in ";:,"
            else match.end() - (len(match["mark"]) - 1 if match["mark"][0] == "," else 0)
        )
    edges.append(len(claim))
    pieces: list[str] = []
    for left, right in pairwise(edges):
        piece = claim[left:right]
        tokens = annotate(tokenise(piece))
        count = sum(token.content for token in tokens)
        if pieces and (count < 2 or not has_verb(tokens)):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    if len(pieces) > 1 and sum(token.content for token in tokenise(pieces[0])) < 2:
        pieces[:2] = [pieces[0] + pieces[1]]
    clauses = [annotate(tokenise(piece)) for piece in pieces]
    for clause in clauses[1:]:
        if clause:
            clause[0].initial = False
    return [clause for clause in clauses if any(token.content for token in clause)]


def _tied(used: list[tuple[list[Token], _Window]]) -> _Fault | None:
    """Clauses on different evidence must each have a subject of their own, or the second evidence must speak of the first's."""
    first_clause, first = used[0]
    imperative = starts_with_verb(first_clause)
    for clause, window in used[1:]:
        if set(window.units) & set(first.units) or imperative:
            continue
        if not starts_with_verb(clause):
            continue
        subject = [token.key for token in first_clause if token.content][:3]
        if any(key in window.keys for key in subject):
            continue
        if window.refers and min(window.units) - max(first.units) == 1:
            continue
        return _Fault("halves", "the second half belongs to another subject", 0.5)
    return None


def _best(tokens: list[Token], windows: Iterable[_Window], asked: frozenset[str]) -> tuple[_Fault | None, _Window | None]:
    """The window that supports the clause, or the fault of the one that comes nearest."""
    nearest: _Fault | None = None
    for window in windows:
        fault = _against(tokens, window, asked)
        if fault is None:
            return None, window
        if nearest is None or (fault.missing, -fault.score) < (nearest.missing, -nearest.score):
            nearest = fault
    return nearest or _Fault("unsupported-word", "there is no evidence", 0.0), None


def _against(tokens: list[Token], window: _Window, asked: frozenset[str]) -> _Fault | None:
    """One clause against one window: words, then numbers, then what governs them, then the order."""
    content = [token for token in tokens if token.content]
    matches: list[tuple[Token, list[Token]]] = []
    missing: list[Token] = []
    echoed: list[Token] = []
    flipped: Token | None = None
    for token in content:
        found = _find(token, window)
        if found:
            matches.append((token, found))
        elif token.key in asked and token.kind != NUMBER and _may_echo(token, content, window):
            echoed.append(token)
        elif token.kind == WORD and not _opposite_in(token, window, tokens) and (token.key in _LIGHT_KEYS or _instructs(tokens, token)):
            continue
        else:
            missing.append(token)
            if token.kind == WORD and _opposite_in(token, window, tokens):
                flipped = token
    score = len(matches) / max(1, len(matches) + len(missing) + len(echoed))
    count = len(missing)
    if flipped is not None:
        return _Fault("negation", f"“{flipped.lower}” is the opposite of what the evidence says", score, count)
    if missing:
        return _missing(missing, window, score, count)
    if not matches or (len(echoed) > QUESTION_SHARE * (len(matches) + len(echoed)) and len(echoed) > 1):
        return _Fault("nothing-new", "it repeats the question, not the evidence", score, max(1, len(echoed)))
    if all(token.key in asked for token, _ in matches) and len(content) > len(matches):
        return _Fault("nothing-new", "it repeats the question, not the evidence", score, 1)
    nearest = [(token, _nearest(token, found, tokens, window)) for token, found in matches]
    fault = _numbers(tokens, matches, window) or _governed(tokens, nearest, window)
    if fault is None:
        turned = turned_round(tokens, window.tokens)
        if turned:
            fault = _Fault("direction", turned, score)
    if fault is None and _crossed(tokens, window):
        fault = _Fault("halves", "it takes its subject from one half and its claim from the other", score)
    if fault is not None:
        fault.score = score
    return fault


def _instructs(tokens: list[Token], token: Token) -> bool:
    """A verb that opens a clause ("Set …", "then open …", "and press …") says no more than that this is what to do."""
    if token.lower not in INSTRUCTIONS:
        return False
    place = _place(tokens, token)
    ahead = [each for each in tokens[:place] if each.segment == token.segment]
    return all(each.lower in ("and", "then", "or", "you", "can", "must", "to", "just", "please", "first", "by") for each in ahead[-2:])


def _find(token: Token, window: _Window) -> list[Token]:
    found = window.keys.get(token.key)
    if found:
        return found
    if token.kind == WORD and "-" in token.key:
        halves = [window.keys.get(half) for half in token.key.split("-")]
        if all(halves):
            return halves[-1] or []
    if token.kind in (WORD, NAME):
        # "Unsupported" rests on "not supported", and the other way round.
        base = _without_prefix(token.lower)
        for each in window.keys.get(base, ()) if base else ():
            if each.negated:
                return [each]
        if token.negated:
            for each in window.tokens:
                if each.content and _without_prefix(each.lower) == token.key:
                    return [each]
    return []


@lru_cache(maxsize=4096)
def _without_prefix(lower: str) -> str:
    for prefix in NEGATIVE_PREFIXES:
        if lower.startswith(prefix) and len(lower) - len(prefix) >= 4:
            return word_key(lower[len(prefix) :])
    return ""


def _opposite_in(token: Token, window: _Window, tokens: list[Token]) -> bool:
    """Whether the evidence says the opposite of a word that it lacks, and the claim does not say it too ("from true to false")."""
    said = {each.key for each in tokens}
    if any(other in window.keys and other not in said for other in _ANTONYM_KEYS.get(token.key, ())):
        return True
    base = _without_prefix(token.lower)
    if base and base in window.keys and base not in said:
        return True
    return any(each.content and _without_prefix(each.lower) == token.key and each.key not in said for each in window.tokens)


def _may_echo(token: Token, content: list[Token], window: _Window) -> bool:
    """A topic word of the question is no claim, unless the evidence has its opposite or, for a name, names something else."""
    if _opposite_in(token, window, content):
        return False
    if token.kind != WORD:
        mine = {each.key for each in content}
        return not any(each.kind == token.kind and each.key not in mine for each in window.tokens)
    return True


def _missing(missing: list[Token], window: _Window, score: float, count: int) -> _Fault:
    for token in missing:
        if token.kind == NUMBER:
            return _Fault("unsupported-number", f"“{token.text}” is not in the evidence", score, count)
    for token in missing:
        if token.kind in (NAME, CODE):
            return _Fault("unsupported-name", f"“{token.text}” is not in the evidence", score, count)
    for token in missing:
        if token.key.startswith("%"):
            return _Fault("quantifier", f"“{token.lower}” is not what the evidence says", score, count)
        if token.initial and token.text[:1].isupper() and token.key not in window.keys:
            return _Fault("unsupported-name", f"“{token.text}” is not in the evidence", score, count)
    return _Fault("unsupported-word", f"“{missing[0].lower}” is not in the evidence", score, count)


def _nearest(token: Token, found: list[Token], tokens: list[Token], window: _Window) -> list[Token]:
    """Of several places of a word in the evidence, those with the most of the claim's words around them."""
    if len(found) < 2:
        return found
    mine = _beside(tokens, token)
    shared = [len(mine & _beside(window.tokens, each)) for each in found]
    return [each for each, count in zip(found, shared, strict=True) if count == max(shared)]


def _beside(tokens: list[Token], token: Token) -> set[str]:
    return _around([each for each in tokens if each.segment == token.segment], token, NEIGHBOURS)


def _numbers(tokens: list[Token], matches: list[tuple[Token, list[Token]]], window: _Window) -> _Fault | None:
    """Value and unit and bound must agree, and something beside the number must be beside it in the evidence as well."""
    for token, found in matches:
        if token.kind != NUMBER:
            continue
        same_unit = [each for each in found if each.unit == token.unit]
        if not same_unit and token.unit is not None and token.unit != "clock":
            return _Fault("unit", f"“{token.text} {token.unit}” has another unit in the evidence", 0.0)
        if not same_unit:
            same_unit = [each for each in found if each.unit is None or "clock" in (each.unit, token.unit)] or []
        if not same_unit:
            return _Fault("unit", f"“{token.text}” lacks its unit", 0.0)
        if not any(each.bound == token.bound for each in same_unit):
            return _Fault("bound", f"“{token.text}” has another bound in the evidence", 0.0)
        if not any(_same_place(token, tokens, each, window.tokens) for each in same_unit):
            return _Fault("halves", f"“{token.text}” belongs to something else", 0.0)
    return None


def _same_place(token: Token, tokens: list[Token], found: Token, window: list[Token]) -> bool:
    """Something beside the number in the claim is beside it in the evidence; the only number of its unit has nothing to be mixed with."""
    rivals = [each for each in window if each.kind == NUMBER and each.unit == found.unit and each is not found]
    if not rivals:
        return True
    mine = _around(tokens, token, NEIGHBOURS)
    theirs = _around(window, found, NEIGHBOURS)
    if not mine or not theirs or mine & theirs:
        return True
    # The two ends of a range stand beside each other; what is beside one of them is beside both.
    return len(rivals) == 1 and bool(found.prepositions | rivals[0].prepositions) and abs(_place(window, found) - _place(window, rivals[0])) <= 2


def _place(tokens: list[Token], token: Token) -> int:
    return next(index for index, each in enumerate(tokens) if each is token)


def _around(tokens: list[Token], token: Token, reach: int) -> set[str]:
    content = [each for each in tokens if each.content]
    place = _place(content, token)
    near = content[max(0, place - reach) : place] + content[place + 1 : place + 1 + reach]
    return {each.key for each in near if each.kind != NUMBER}


def _governed(tokens: list[Token], matches: list[tuple[Token, list[Token]]], window: _Window) -> _Fault | None:
    """Negation, exception, "only", modality and quantifier of each word against the same word in the evidence."""
    kept = {each.segment for token, found in matches if token.denied for each in found if each.negated}
    matched = {id(token) for token, _ in matches}
    said = {token.quantifier for token in tokens} - {""}
    for token in tokens:
        # A denial of a word that only the question has: the evidence must deny the same thing in its own words.
        if token.denied and id(token) not in matched and not kept and not any(t.negated and e.negated for t, f in matches for e in f):
            return _Fault("negation", f"“{token.lower}” is denied here, not in the evidence", 0.0)
    for token, found in matches:
        changed = _without_prefix(token.lower) and any(each.key != token.key for each in found)
        if token.denied and not any(each.negated == token.negated for each in found) and not changed and token.key not in _negative_keys(window):
            return _Fault("negation", f"“{token.lower}” is denied here, not in the evidence", 0.0)
        if not token.negated and not token.denied and not changed and all(each.denied and each.negated and each.segment not in kept for each in found):
            return _Fault("negation", f"“{token.lower}” is denied in the evidence", 0.0)
        if token.exceptive and not any(each.exceptive for each in found):
            return _Fault("exception", f"“{token.exceptive}” is not in the evidence", 0.0)
        if not token.exceptive and all(each.exceptive for each in found) and not token.negated:
            return _Fault("exception", f"“{found[0].exceptive}” is left out", 0.0)
        if token.modal or found:
            fault = _modality(token, found)
            if fault:
                return fault
        theirs = {each.quantifier for each in found}
        if theirs and not theirs & {"", *said} and not (theirs == {"all"} and not token.quantifier):
            return _Fault("quantifier", f"“{token.lower}”: the evidence says {min(theirs)}", 0.0)
    if any(token.lower in ONLY for token in tokens) and not _restricts(window):
        return _Fault("exception", "“only” is not in the evidence", 0.0)
    if any(token.lower == "not-only" for token in tokens) and any(token.lower in ONLY for token in window.tokens):
        return _Fault("exception", "“not only” where the evidence has “only”", 0.0)
    return None


def _restricts(window: _Window) -> bool:
    """Whether the evidence says "only", or the same as "not … except", "not … until"."""
    words = {token.lower for token in window.tokens}
    return bool(words & ONLY) or (bool(words & {"except", "unless", "until"}) and any(token.negated for token in window.tokens))


def _negative_keys(window: _Window) -> set[str]:
    return {_without_prefix(token.lower) for token in window.tokens if token.content} - {""}


def _modality(token: Token, found: list[Token]) -> _Fault | None:
    theirs = {each.modal for each in found}
    if token.modal == "must" and not theirs & {"must"} and theirs & {"may", "should"}:
        return _Fault("modality", f"“{token.lower}” is a must here, not in the evidence", 0.0)
    if token.modal == "should" and theirs and theirs <= {"may"}:
        return _Fault("modality", f"“{token.lower}” is advised here, not in the evidence", 0.0)
    if token.modal == "may" and theirs and theirs <= {"must"} and not token.negated:
        return _Fault("modality", f"“{token.lower}” is a choice here, a must in the evidence", 0.0)
    if token.modal == "will" and theirs and theirs <= {"may"}:
        return _Fault("modality", f"“{token.lower}” is certain here, possible in the evidence", 0.0)
    return None


def _crossed(tokens: list[Token], window: _Window) -> bool:
    """Within one sentence of two clauses: the claim uses what only the second says, without its first word, and what only the first says."""
    if tokens[0].lower in _PRONOUNS or starts_with_verb(tokens):
        return False  # its subject is understood
    parts = _coordinates(window.tokens)
    if len(parts) < 2:
        return False
    mine = {token.key for token in tokens if token.content}
    own = []
    for part in parts:
        elsewhere = {token.key for other in parts if other is not part for token in other if token.content}
        own.append([token.key for token in part if token.content and token.key not in elsewhere])
    for index, keys in enumerate(own):
        used = [key for key in keys if key in mine]
        others = [key for other, its in enumerate(own) if other != index for key in its if key in mine]
        subject = _subject(parts[index])
        if used and others and subject and not any(key in mine for key in subject):
            return True
    return False


def _subject(part: list[Token]) -> list[str]:
    """Content words ahead of the verb, three at most; the verb itself where there are none."""
    found: list[str] = []
    first = next((token for token in part if token.content), None)
    if (first is not None and first.lower in INSTRUCTIONS) or any(token.lower in _PRONOUNS for token in part[:2]):
        return found
    for index, token in enumerate(part):
        if token.lower in AUXILIARIES and found:
            break
        if not token.content or token.key.startswith("%") or token.key in _LIGHT_KEYS:
            continue
        if found and has_verb(part[index : index + 1]):
            break
        found.append(token.key)
        if len(found) == 3 or has_verb(part[index : index + 1]):
            break
    return found


def _coordinates(tokens: list[Token]) -> list[list[Token]]:
    """Coordinate clauses of a sentence, each with a verb: around ";", "while", "whereas", "but", "and"."""
    parts: list[list[Token]] = [[]]
    for index, token in enumerate(tokens):
        splits = token.breaks in (";", ".") or token.lower in ("while", "whereas", "but")
        if token.lower == "and" and index + 1 < len(tokens):
            splits = has_verb(tokens[index + 1 : index + 6]) and has_verb(parts[-1])
        if splits and parts[-1]:
            parts.append([])
        parts[-1].append(token)
    return [part for part in parts if any(token.content for token in part)]

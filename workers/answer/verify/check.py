"""Does the evidence support this sentence? Rules over tokens that fail closed: what they cannot follow, they do not let pass.

A sentence is supported if every clause of it rests on one piece of evidence (or on neighbours tied by a reference): its numbers
with their units and bounds, names and identifiers, content words, what is denied, how strongly, of how many, and which way round.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from workers.answer.verify.assigned import misassigned
from workers.answer.verify.context import annotate
from workers.answer.verify.contrast import unclear
from workers.answer.verify.evidence import Evidence, Window, find, nearest, opposite_in, opposites, place, read_evidence
from workers.answer.verify.governed import Fault, Matches, governed, names, numbers
from workers.answer.verify.halves import PRONOUNS, crossed
from workers.answer.verify.lexicon import AUXILIARIES, INSTRUCTIONS, LIGHT
from workers.answer.verify.omitted import omitted
from workers.answer.verify.relations import has_verb, is_verb, starts_with_verb, turned_round
from workers.answer.verify.tokens import CODE, NAME, NUMBER, WORD, Token, normalise, tokenise, word_key

# Stable names, for logs and traces; `Verdict.reason` is "code: what a person reads".
SUPPORTED = ("verbatim", "supported")
REASONS = (
    *SUPPORTED,
    *(
        "empty",
        "too-long",
        "question",
        "unsupported-number",
        "unit",
        "bound",
        "unsupported-name",
        "negation",
        "polarity",
        "exception",
        "omission",
    ),
    *("modality", "quantifier", "direction", "halves", "unsupported-word", "nothing-new"),
)
# Longer than any answer's sentence; nobody can follow it, and no rule either.
LONGEST_CLAIM = 100
# A "yes" or "no" answers the question only if what follows speaks of it: at least this share of the question's content words.
ANSWER_SHARE = 0.5
# At most this share of a claim's content words may come from the question alone.
QUESTION_SHARE = 0.34
_CLAUSE = re.compile(
    r"(?P<mark>;|:(?=\s)|,?\s(?:but|while|whereas|although|though|so|which|and|because|since)\s"
    r"|,\s(?:and|or|who|where|then)\s|,\s|\s-\s|\s\()"
)
_YES_NO = re.compile(r"^(yes|no|nope|yep|ok|okay|sure|correct|right)\b\s*(?:[,.:;!-]+\s*|$)", re.IGNORECASE)
_YES = frozenset(("yes", "yep", "ok", "okay", "sure", "correct", "right"))
_RESTRICTING = re.compile(
    r"\b(?:only|not|never|no|none|nothing|without|cannot|unless|except|instead|rather|must|at least|at most|but|neither|nor|just"
    r"|too|limited|until|before|otherwise|un\w+|dis\w+|non-?\w+|rejects?|refuses?|fails?|closed|prohibited|forbidden|denied"
    r"|optional|exclud\w+|exception|abort\w*|lacks?|missing|same|identical)\b|n't\b",
    re.IGNORECASE,
)
_LEADING_IN = frozenset(("and", "then", "or", "you", "can", "must", "to", "just", "please", "first", "by"))
_LIGHT_KEYS = frozenset(word_key(word) for word in LIGHT)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` begins with one of `REASONS` and a colon; `score` is the share of the content words that the evidence holds."""

    supported: bool
    reason: str
    score: float

    @property
    def code(self) -> str:
        return self.reason.split(":", 1)[0]


def verify(
    sentence: str, evidence: Sequence[str], *, question: str, topic: str = "", passages: Sequence[Hashable] | None = None
) -> Verdict:
    """Whether `evidence` supports every claim of one `sentence` of wording. Never raises on any text.

    `evidence` are verbatim sentences or short passages, neighbours of one passage next to each other; `passages` name the passage
    of each, so that a sentence which refers back is never tied to another passage's. Words of the `question`, and of the `topic`
    (titles and headings above the evidence, the site's name), may be repeated as what it is about; they prove nothing.
    """
    plain = normalise(sentence)
    if not any(character.isalnum() for character in plain):
        return Verdict(False, "empty: nothing is said", 0.0)
    if plain.endswith("?"):
        return Verdict(False, "question: an answer asks nothing", 0.0)
    read = read_evidence(tuple(evidence), tuple(passages) if passages is not None else ("",) * len(evidence))
    if plain in read.verbatim:
        return Verdict(True, "verbatim: a sentence of the evidence", 1.0)
    if len(plain.split()) > LONGEST_CLAIM:
        return Verdict(False, "too-long: more than one sentence can say", 0.0)
    fault = _fault(plain, read, question, topic)
    if fault is None:
        return Verdict(True, "supported: every clause rests on the evidence", 1.0)
    return Verdict(False, f"{fault.code}: {fault.text}", round(fault.score, 3))


def without_answer(sentence: str) -> str:
    """The sentence without its leading "Yes," or "No,": what is left may rest on the evidence where that does not."""
    plain = normalise(sentence)
    answer = _YES_NO.match(plain)
    rest = plain[answer.end() :] if answer else plain
    return rest[:1].upper() + rest[1:]


def _fault(plain: str, read: Evidence, question: str, topic: str) -> Fault | None:
    answer = _YES_NO.match(plain)
    claim = plain[answer.end() :] if answer else plain
    if answer:
        if not any(character.isalnum() for character in claim):
            return Fault("polarity", "a bare yes or no rests on nothing")
        fault = _answer_polarity(answer.group(1).lower(), claim, question)
        if fault:
            return fault
    asked = frozenset(token.key for token in tokenise(f"{question} \n{topic}") if token.content and token.kind != NUMBER)
    return _check(claim, read.windows, asked)


def _answer_polarity(answer: str, claim: str, question: str) -> Fault | None:
    """ "Yes" before a denial of what was asked, "No" before a claim that denies or restricts nothing."""
    claimed = annotate(tokenise(claim))
    if answer not in _YES:
        if _RESTRICTING.search(claim) or any(token.kind == NUMBER for token in claimed):
            return None
        return Fault("polarity", "“no”, but what follows denies nothing")
    asked = {token.key: token for token in annotate(tokenise(question)) if token.content and token.key not in _LIGHT_KEYS}
    shared = [token for token in claimed if token.key in asked]
    if len({token.key for token in shared}) < ANSWER_SHARE * len(asked):
        return Fault("polarity", "“yes”, but what follows does not speak of what was asked")
    for token in claimed:
        same = asked.get(token.key)
        if token.denied and same is not None and not same.negated:
            return Fault("polarity", f"“yes”, but “{token.lower}” is denied")
    said = {token.key for token in claimed}
    for token in annotate(tokenise(question)):
        if token.kind == WORD and token.key not in said and opposites(token) & said and not token.negated:
            return Fault("polarity", f"“yes”, but the opposite of “{token.lower}” follows")
    opening = [token.lower for token in claimed[:3]]
    if opening[:1] == ["if"]:
        return Fault("polarity", "“yes” under a condition")
    if any(word in ("not", "cannot", "can't", "never", "don't", "isn't") for word in opening):
        return Fault("polarity", "“yes” before a denial")
    return None


def _check(claim: str, windows: list[Window], asked: frozenset[str]) -> Fault | None:
    """None if supported. First the sentence as a whole against each window, then its clauses, each against one window."""
    tokens = annotate(tokenise(claim))
    if not any(token.content for token in tokens):
        return Fault("nothing-new", "no claim that could be checked")
    whole, _ = _best(tokens, windows, asked)
    if whole is None or not windows or whole.code == "omission":
        return whole  # what one piece of evidence limits, two clauses of the claim do not free
    clauses = _clauses(claim)
    if len(clauses) < 2:
        return _halves_or(whole, tokens, windows)
    used: list[tuple[list[Token], Window]] = []
    for clause in clauses:
        fault, window = _best(clause, windows, asked)
        if fault is not None or window is None:
            return whole if whole.missing == 0 else _halves_or(fault or whole, clause, windows)
        used.append((clause, window))
    return _tied(used)


def _halves_or(fault: Fault, tokens: list[Token], windows: list[Window]) -> Fault:
    """The same fault, named "halves" if the words it misses stand in other evidence."""
    if fault.code not in ("unsupported-word", "unsupported-name", "unsupported-number"):
        return fault
    everywhere = set().union(*(window.keys for window in windows))
    if all(token.key in everywhere for token in tokens if token.content and token.key not in _LIGHT_KEYS):
        return Fault("halves", "its words stand in different facts", fault.score)
    return fault


def _clauses(claim: str) -> list[list[Token]]:
    """Pieces of the sentence that each make a claim; a piece without a verb or of one word stays with its neighbour."""
    edges = [0]
    for match in _CLAUSE.finditer(claim):
        mark = match["mark"]
        edges.append(match.start() + 1 if mark[0] == "," else match.end() if mark[0] in ";:" else match.start())
    edges.append(len(claim))
    pieces: list[str] = []
    for left, right in pairwise(edges):
        piece = claim[left:right]
        tokens = annotate(tokenise(piece))
        if pieces and (sum(token.content for token in tokens) < 2 or not has_verb(tokens)):
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


def _tied(used: list[tuple[list[Token], Window]]) -> Fault | None:
    """Clauses on different evidence must each have a subject of their own, or the second evidence must speak of the first's."""
    first_clause, first = used[0]
    imperative = starts_with_verb(first_clause)
    subject = [token.key for token in first_clause if token.content][:3]
    for clause, window in used[1:]:
        if set(window.units) & set(first.units) or imperative or not starts_with_verb(clause):
            continue
        if any(key in window.keys for key in subject):
            continue
        if window.refers and min(window.units) - max(first.units) == 1:
            continue
        return Fault("halves", "the second half belongs to another subject", 0.5)
    return None


def _best(tokens: list[Token], windows: Iterable[Window], asked: frozenset[str]) -> tuple[Fault | None, Window | None]:
    """The window that supports the clause, or the fault of the one that comes nearest."""
    least: Fault | None = None
    for window in windows:
        fault = _against(tokens, window, asked)
        if fault is None:
            return None, window
        if least is None or (fault.missing, -fault.score) < (least.missing, -least.score):
            least = fault
    return least or Fault("unsupported-word", "there is no evidence"), None


def _against(tokens: list[Token], window: Window, asked: frozenset[str]) -> Fault | None:
    """One clause against one window: words, then numbers, then what governs them, then the order."""
    content = [token for token in tokens if token.content]
    matches: Matches = []
    missing: list[Token] = []
    echoed: list[Token] = []
    for token in content:
        found = find(token, window)
        if found:
            matches.append((token, found))
        elif token.key in asked and _may_echo(token, tokens, window):
            echoed.append(token)
        elif not _says_little(token, tokens, window):
            missing.append(token)
    score = len(matches) / max(1, len(matches) + len(missing) + len(echoed))
    if missing:
        return _missing(missing, window, tokens, score)
    words = sum(token.kind == WORD for token in echoed)  # a name that the question or title gives is not more than that
    repeats = words > 1 and words > QUESTION_SHARE * (len(matches) + words)
    if not matches or repeats or (len(content) > len(matches) and all(token.key in asked for token, _ in matches)):
        return Fault("nothing-new", "it repeats the question, not the evidence", score, max(1, len(echoed)))
    close = [(token, nearest(token, found, tokens, window)) for token, found in matches]
    fault = numbers(tokens, matches, window) or names(tokens, window) or governed(tokens, close, window)
    if fault is None and (turned := turned_round(tokens, window.tokens)):
        fault = Fault("direction", turned)
    if fault is None and (swapped := misassigned(tokens, window.tokens)):
        fault = Fault("halves", swapped)
    if fault is None and (_other_subject(tokens, echoed, window) or crossed(tokens, window.tokens)):
        fault = Fault("halves", "its subject and what it says of it stand in different facts")
    if fault is None and (several := unclear(tokens, _subject(tokens), close, window, asked)):
        fault = Fault("halves", several)
    if fault is None:
        fault = _exception_left_out(tokens, window) or omitted(tokens, close, window, asked)
    if fault is not None:
        fault.score = score
    return fault


def _exception_left_out(tokens: list[Token], window: Window) -> Fault | None:
    """What one sentence of the evidence says "except …" or "unless …" is not true without it."""
    if (
        len(window.units) > 1
        or any(token.exceptive for token in tokens)
        or _RESTRICTING.search(" ".join(t.lower for t in tokens))
    ):
        return None
    left = next((token.exceptive for token in window.tokens if token.exceptive in ("except", "unless")), None)
    return Fault("exception", f"“{left} …” is left out") if left else None


def _may_echo(token: Token, tokens: list[Token], window: Window) -> bool:
    """A topic word of the question is no claim, unless the evidence has its opposite or, for a name, names something else."""
    if token.kind == NUMBER or opposite_in(token, window, tokens):
        return False
    if _after_verb(tokens, place(tokens, token)):
        return False  # what is said of the topic must come from the evidence
    if token.kind != WORD:
        mine = {each.key for each in tokens}
        return not any(each.kind == token.kind and each.key not in mine for each in window.tokens)
    return True


def _after_verb(tokens: list[Token], at: int) -> bool:
    return any(token.lower in AUXILIARIES or is_verb(tokens, index, first=not index) for index, token in enumerate(tokens[:at]))


def _says_little(token: Token, tokens: list[Token], window: Window) -> bool:
    """A general word ("way", "use"), or a verb that opens an instruction ("Set …", "then open …")."""
    if token.kind != WORD or opposite_in(token, window, tokens):
        return False
    if token.key in _LIGHT_KEYS:
        return True
    if token.lower not in INSTRUCTIONS and not (token.lower == "first" and token.initial):
        return False
    at = place(tokens, token)
    ahead = [each for each in tokens[:at] if each.segment == token.segment]
    return all(each.lower in _LEADING_IN for each in ahead[-2:])


def _missing(missing: list[Token], window: Window, tokens: list[Token], score: float) -> Fault:
    """The gravest of the words that the evidence lacks."""
    count = len(missing)
    for token in missing:
        if token.kind == WORD and opposite_in(token, window, tokens):
            return Fault("negation", f"“{token.lower}” is the opposite of what the evidence says", score, count)
    for token in missing:
        if token.kind == NUMBER:
            return Fault("unsupported-number", f"“{token.text}” is not in the evidence", score, count)
    for token in missing:
        if token.kind in (NAME, CODE) or (token.initial and token.text[:1].isupper() and not token.key.startswith("%")):
            return Fault("unsupported-name", f"“{token.text}” is not in the evidence", score, count)
    if missing[0].key.startswith("%"):
        return Fault("quantifier", f"“{missing[0].lower}” is not what the evidence says", score, count)
    return Fault("unsupported-word", f"“{missing[0].lower}” is not in the evidence", score, count)


def _other_subject(tokens: list[Token], echoed: list[Token], window: Window) -> bool:
    """The claim's subject comes from the question alone, and the evidence gives its verb a subject that the claim leaves out."""
    mine = _subject(tokens)
    if not any(token is each for token in mine for each in echoed):
        return False
    said = {token.key for token in tokens}
    after = tokens[place(tokens, mine[-1]) + 1 :]
    predicate = next((found for token in after if token.content and (found := find(token, window))), [])
    theirs = [_subject_of(window.tokens, each) for each in predicate] or [_subject(window.tokens)]
    return all(each and not any(token.key in said for token in each) for each in theirs)


def _subject_of(tokens: list[Token], predicate: Token) -> list[Token]:
    """Content words ahead of a word in its segment, those after a preposition left out; none if a pronoun stands for them."""
    found: list[Token] = []
    for token in tokens[: place(tokens, predicate)]:
        if token.segment != predicate.segment:
            continue
        if token.lower in PRONOUNS and token.lower != "that":
            return []
        if token.content and not token.prepositions and token.key not in _LIGHT_KEYS and token.lower not in INSTRUCTIONS:
            found.append(token)
    return found


def _subject(tokens: list[Token]) -> list[Token]:
    """Content words ahead of the verb, general words left out; none if it is a pronoun, an instruction or unknown."""
    found: list[Token] = []
    for index, token in enumerate(tokens):
        if token.lower in PRONOUNS and not found:
            return []
        if token.lower in AUXILIARIES or is_verb(tokens, index, first=not found):
            return found
        if token.content and not token.prepositions and not token.key.startswith("%") and token.key not in _LIGHT_KEYS:
            found.append(token)
    return []

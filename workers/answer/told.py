"""Which of the visitor's own earlier statements a question about them is asked after, by kind and words first, then by likeness.

SQL holds what they wrote word for word, so an assistant need never say "You have not told me that" of what was told: the state
may have lost a fact among others, and a vector of a whole message is like none of the several facts in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.answer.cues import asks, sentences_of, small_talk
from workers.answer.select import content_stems

# Cosine of question and statement from which the statement is near though no word or kind says so: of the statements in
# `tests/answer/test_told.py` that do not answer, none that shares no word with the question is so like it.
NEAR = 0.5
# A verb of having fits many questions ("Which ports do I use?" after "I use Debian"): the rest must be like it as well.
NEAR_HAVING = 0.3
# "What do you know about me?" is answered with so many statements.
ALL = 3

_JOINT = re.compile(
    r"(?:[,;:–—]|\s-)?\s+(?:and|but|also|so|or)\s+(?=(?:my|our|i|we|i'm|we're|i’m)\b)"
    r"|[,;–—]\s+(?:and\s+|but\s+)?(?=(?:my|our|i|we|i'm|we're|i’m|can|could|do|does|is|are|what|which|how|where|when)\b)",
    re.IGNORECASE,
)
_I = r"\b(?:i|we)(?:'m|’m| am|'re|’re| are|'ve|’ve| have)?\b"


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of fact about a person: how one asks for it, and how one tells it."""

    asked: re.Pattern[str]
    told: re.Pattern[str]


def _kind(asked: str, told: str) -> _Kind:
    # Names begin with a capital where nothing else does, so only the cues themselves ignore case.
    return _Kind(re.compile(rf"(?i:{asked})"), re.compile(told))


_KINDS = {
    "name": _kind(
        r"\bmy (?:own |first |last |full |sur|nick)?name\W*(?:again|was|is)?\W*(?:$|and\b)|\bwho am i\b|\bwhat (?:am i|are we) called\b"
        r"|\bi say my name\b",
        r"(?i:\bmy (?:first |last |full |sur|nick)?name\b|\bcall me\b|\b(?:am|be) called\b|\bi go by\b)"
        r"|(?i:\bi(?:'m|’m| am)|\bthis is|\bim) (?!I\b)[A-ZÀ-Þ][\w'’-]+(?!\s+\d)",
    ),
    "home": _kind(
        r"\bwhere (?:do|did|am|are) (?:i|we) (?:live|stay|come from|from|based|at home)\b|\bmy (?:home |postal |street )?address\b"
        r"|\b(?:which|what) (?:town|city|country|street|village|place) (?:do|am|are) (?:i|we)\b|\bwhere is my home\b"
        r"|\bmy home ?town\b",
        rf"(?i:{_I} (?:\w+ )?(?:live|living|reside|moved|stay|staying|based|from)\b|\bmy (?:\w+ )?(?:address|home|home ?town)\b)",
    ),
    "work": _kind(
        r"\bwhere (?:do|did) (?:i|we) work\b|\bmy (?:job|profession|occupation|employer|work)\b|\bwhat do i do\W*$"
        r"|\bwho do i work for\b|\bdo i do for a living\b",
        rf"(?i:{_I} (?:\w+ )?(?:work|working|employed)\b|\bmy (?:job|profession|occupation|employer|work)\b|\bi(?:'m|’m| am) an? "
        r"(?:\w+ )?\w+(?:er|or|ist|ian|nurse|cook|clerk|student|pilot)\b)",
    ),
    "age": _kind(
        r"\bhow old (?:am i|are we)\b|\bmy (?:age|birthday|date of birth)\b|\bwhen was i born\b",
        r"(?i:\b\d{1,3} (?:years?|yrs?)(?: old)?\b|\bmy (?:age|birthday|date of birth)\b|\bi was born\b"
        r"|\bi(?:'m|’m| am|m) (?:only |just |now )?(?:\d{1,3}|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[\w-]*)\b"
        r"(?!\s*(?:cm|m|kg|feet|metres|km)\b))",
    ),
    "mail": _kind(r"\bmy (?:e-?mail|mail address)", r"\S@\S"),
    "phone": _kind(r"\bmy (?:tele|mobile |cell )?phone", r"(?i:\b(?:phone|call me|mobile|telephone)\b).*\d{3}|\+\d[\d ]{6}"),
    "diet": _kind(
        r"\bmy diet\b|\b(?:can't|cannot|do|don't) i (?:not )?eat\b|\bmy allerg",
        r"(?i:\b(?:vegan|vegetarian|allerg\w+|halal|kosher|gluten|lactose|diabetic)\b|\bmy diet\b|\bi (?:do not|don't) eat\b)",
    ),
    "everything": _kind(r"\bwhat (?:do|did) (?:you|i) (?:know|tell you) about (?:me|us|myself)\b", r"(?!)"),
}
_PRESENT = {
    "using": "use", "rode": "ride", "drove": "drive", "ran": "run", "got": "get", "bought": "buy", "wore": "wear", "kept": "keep",
    "came": "come", "chose": "choose", "took": "take", "had": "have", "has": "have", "spoke": "speak", "paid": "pay",
}  # fmt: skip


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


def _stem_of(verb: str) -> str:
    """The stem of a verb, of an irregular past its present's; "" for a word that says nothing."""
    plain = _PRESENT.get(verb.lower(), verb.lower())
    return next(iter(content_stems(plain)), plain).removesuffix("e")


_HAVING = _words("have own use ride drive run get buy order wear keep")
_COMING = _words("arrive come visit stay check")
_CHOOSING = _words("prefer like want choose take pick book")
_GROUPS = tuple(frozenset(map(_stem_of, group)) for group in (_HAVING, _COMING, _CHOOSING))
_VAGUE = frozenset(map(_stem_of, _words("have use run get want like take need keep check")))
_SAYING = _words("say said tell told give gave given mention mentioned call called write wrote know remember recall")
# "Which bicycle do I ride?": the verb that the question puts to the visitor; "I ride a Kestrel": the one that they told.
_VERB_ASKED = re.compile(
    r"\b(?:do|did|am|are|have|will|was|were) (?:i|we) (?:just |already |ever |usually )?(\w+)", re.IGNORECASE
)
_VERB_TOLD = re.compile(
    r"\b(?:i|we)(?:'ve|’ve|'ll|’ll|'m|’m)? (?:just |already |always |usually |also |only )?(\w+)(?: (\w+))?", re.IGNORECASE
)
_AUXILIARY = frozenset(("have", "had", "will", "am", "are"))
_GENERIC_STEMS = frozenset(
    content_stems(
        """say said tell told give gave mention mentioned remember recall know again remind just please previously before earlier
        ago called have got use using own kind sort type name's currently today one many much"""
    )
)
# "My order number", "the booking code": what it is the number of tells which one it is.
_NUMBERED = re.compile(r"\b(\w+) (?:number|no|code|id|reference|ref)\b", re.IGNORECASE)
_NUMBER = r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|forty|fifty|hundred|both|single)\b"
# What an answer to "when", "how many" must hold.
_NEEDED = (
    (re.compile(r"^\W*(?:and |so )?how (?:many|much)\b", re.IGNORECASE), re.compile(_NUMBER, re.IGNORECASE)),
    (
        re.compile(r"^\W*(?:and |so )?(?:when|what time|which day|what day)\b", re.IGNORECASE),
        re.compile(
            r"\d|day\b|days\b|\b(?:tomorrow|tonight|week\w*|month\w*|year|noon|morning|evening|afternoon|night|spring|summer|autumn"
            r"|winter|january|february|march|april|may|june|july|august|september|october|november|december|easter|christmas)\b",
            re.IGNORECASE,
        ),
    ),
)
# Both sides of "bike" and "bicycle" and the like are one word to a visitor.
_SAME = {"bike": "bicycl", "bicycle": "bicycl", "phone": "telephone", "kid": "child", "children": "child", "mail": "email"}


@dataclass(frozen=True, slots=True)
class Told:
    """What the visitor told that a question is after.

    `statements`: theirs, word for word; empty when nothing is near. `certain`: a word or the kind of fact says so, not the
    likeness alone. `likeness`: the cosine of the best statement.
    """

    statements: tuple[str, ...] = ()
    certain: bool = False
    likeness: float = 0.0


def statements_of(messages: Sequence[str]) -> list[str]:
    """What the visitor stated, oldest first, each fact apart ("my order is 7 and my name is Ann": two); questions are left out."""
    found = []
    for message in messages:
        for sentence in sentences_of(message):
            # "My son is 15, can he …?" tells in its first half.
            for piece in _JOINT.split(sentence):
                piece = piece.strip(" \t,;:–—")
                if any(letter.isalnum() for letter in piece) and not asks(piece) and small_talk(piece) is None:
                    found.append(piece)
    return found


def nearest(question: str, statements: Sequence[str], alike: np.ndarray) -> Told:
    """The statements that `question` is after. `alike` [statements]: cosine of the question with each."""
    if not statements:
        return Told()
    kinds = {name for name, kind in _KINDS.items() if kind.asked.search(question)}
    if "everything" in kinds:
        return Told(tuple(statements[-ALL:]), True, float(alike.max()))
    ranks = [_rank(question, kinds, statement, float(cosine)) for statement, cosine in zip(statements, alike, strict=True)]
    best = max(ranks)
    places = [place for place, rank in enumerate(ranks) if rank == best]
    if len(kinds) > 1 and best >= 3:  # "where do I live, and what is my name?": the last of each
        last = [max((at for at, each in enumerate(statements) if _KINDS[name].told.search(each)), default=-1) for name in kinds]
        places = sorted({place for place in last if place >= 0})
        return Told(tuple(statements[place] for place in places), True, float(max(alike[place] for place in places)))
    if best >= 3:  # one thing has one value: what was said last holds ("sorry, my name is Ana")
        return Told((statements[places[-1]],), True, float(alike[places[-1]]))
    if best > 0:
        return Told(tuple(statements[place] for place in places[-ALL:]), True, float(max(alike[place] for place in places)))
    fitting = [place for place, statement in enumerate(statements) if _may_answer(question, kinds, statement)]
    if fitting:
        place = max(fitting, key=lambda each: (float(alike[each]), each))
        if alike[place] >= NEAR:
            return Told((statements[place],), False, float(alike[place]))
    return Told((), False, float(alike.max()))


def _rank(question: str, kinds: set[str], statement: str, cosine: float) -> int:
    """0: no word and no kind says that `statement` answers; 1, 2: a verb does; 3, 4: its words or its kind do."""
    if any(_KINDS[name].told.search(statement) for name in kinds):
        return 4
    if not _may_answer(question, kinds, statement):
        return 0
    wanted, said = _stems(question) - _GENERIC_STEMS, _stems(statement)
    if not kinds and wanted and wanted <= said and len(said - wanted) > 0:
        return 3
    numbered = _NUMBERED.search(question)
    if numbered and any(letter.isdigit() for letter in statement) and _stems(numbered[1]) and _stems(numbered[1]) <= said:
        return 3
    return _verb_rank(question, statement, cosine)


def _verb_rank(question: str, statement: str, cosine: float) -> int:
    asked = {_stem_of(verb) for verb in _VERB_ASKED.findall(question) if verb.lower() not in _SAYING}
    # "I have a tandem" tells its first word, "I have bought a tandem" its second too.
    pairs = _VERB_TOLD.findall(statement)
    told = {_stem_of(each) for first, second in pairs for each in (first, second if first.lower() in _AUXILIARY else "") if each}
    if asked & told and (cosine >= NEAR_HAVING or not asked & told <= _VAGUE):
        return 2
    related = any(group & asked and group & told for group in _GROUPS)
    return 1 if related and cosine >= NEAR_HAVING else 0


def _may_answer(question: str, kinds: set[str], statement: str) -> bool:
    """Not if it lacks the number or the time that is asked for, or tells another kind of fact than the one asked for."""
    if any(asked.search(question) and not needed.search(statement) for asked, needed in _NEEDED):
        return False
    if kinds:
        return not any(kind.told.search(statement) for name, kind in _KINDS.items() if name not in kinds)
    return True


def _stems(text: str) -> frozenset[str]:
    return frozenset(_SAME.get(stem, stem) for stem in content_stems(text))

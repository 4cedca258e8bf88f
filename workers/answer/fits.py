"""Does a sentence of wording answer what was asked? It may be true, and rest on the evidence, and still speak of something else.

By the kind of answer that the question asks for ("how long" a duration, "who" a person …): a sentence without one is held
back while a quotation has one. By the sentence vectors: one that is far further from the question than the best quotation. And
what says "You …" of the visitor never comes from a page that does not say it of its readers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from workers.answer.select import content_stems
from workers.answer.verify import Verdict

# Cosine with the question that wording may lie below the best quotation. Of 370 hand-written answers to development questions
# 1.4 % lie further below and do not lean on the question ("No, …", "It …"), of the other sentences of their passages 35 %.
FURTHER = 0.2
# The same for one that leans on it: none of those 370 lies further below.
FURTHER_LEANING = 0.41

_NUMBER_WORDS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|twenty|thirty|forty|fifty|sixty"
    "|seventy|eighty|ninety|hundred|thousand|dozen|half|single|both|couple|several|once|twice"
)
_COUNT = rf"\d|\b(?:{_NUMBER_WORDS}|none|unlimited|any number)\b|\b(?:no|as many|every) \w+"
_UNITS = (
    r"(?:milli|micro|nano)?seconds?|minutes?|mins?|hours?|hrs?|days?|nights?|weeks?|weekends?|fortnights?|months?|years?|decades?"
)
_DURATION = (
    rf"\b(?:{_UNITS})\b|\d\s?(?:ms|s|h|min)\b|\b(?:overnight|forever|for ever|indefinitely|permanently|lifetime|immediately|instantly"
    r"|at once|until|as long as|while|a moment|a while|straight away|right away|same day|next day)\b"
)
_PRICE = (
    r"[€$£¥]|\b(?:eur|usd|gbp|chf|euros?|dollars?|pounds?|cents?|francs?|pence)\b|\bfree\b|\b(?:no|without|extra) (?:extra )?"
    r"(?:charge|cost|costs|fee|fees)\b|\bper ?cent\b|%|\bincluded\b|\bcosts? nothing\b|\bprice depends\b"
)
_TIME = (
    rf"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\b(?:january|february|march|april|may|june|july|august|september|october"
    r"|november|december|spring|summer|autumn|winter|easter|christmas|noon|midnight|morning|afternoon|evening|night|today"
    r"|tomorrow|daily|weekly|monthly|yearly|annually|always|never|anytime|now|soon|season\w*|holidays?|around the clock)\b"
    r"|\b\d{1,2}(?::\d\d|\s?[ap]\.?m\b)|\b(?:19|20)\d\d\b|\bo'clock\b"
    rf"|\b(?:when|whenever|once|after|before|until|till|as soon as|while|during|if|by the time|at the (?:end|start|beginning|same)"
    rf"|since|upon|within|every|each time|on)\b|{_DURATION}|\d"
)
_PLACE = (
    r"\b(?:in|at|on|under|to|into|from|near|behind|beside|next to|opposite|between|above|below|inside|outside|via|through|by|here"
    r"|there|anywhere|everywhere|online|within|over|along|around)\b|[/\\›→>]|\w\.\w"
)
_PERSON = (
    r"\b(?:you|we|i|they|he|she|who|whoever|us|anyone|anybody|everyone|everybody|nobody|someone|somebody|people|persons?|staff|team"
    r"|owners?|members?|users?|visitors?|guests?|customers?|admin\w*|root|superusers?|\w+(?:ers?|ors?|ists?|ians?|ants?)|child\w*"
    r"|adults?|students?|parents?|company|office|police|author\w*|groups?|only those|teach\w*|roles?)\b|(?<!^)(?<![.!?] )\b[A-Z][a-z]+"
)


def _find(pattern: str, *, case: bool = False) -> re.Pattern[str]:
    return re.compile(pattern, 0 if case else re.IGNORECASE)


# The kind of answer by the words of the question, the first that fits, and how an answer of the kind looks. A question with two
# question words ("how long, and what does it cost?") asks for two kinds, and none is insisted on.
_KINDS = (
    ("duration", _find(r"\bhow long\b(?! (?:is|are) the (?:\w+ )?(?:cable|chain|bed|list|path|name|rope|track|route|line)\b)"), _find(_DURATION)),
    ("price", _find(r"\bhow much (?:is|are|does|do|will|would)\b.*\b(?:cost|pay|charge|be)\b|\bhow (?:expensive|dear)\b"
                    r"|\bhow much (?:is|are) (?:a|an|the|one|it)\b|\bwhat (?:does|do|will|would) .*\bcost\b"
                    r"|\bwhat(?:'s| is| are) the (?:\w+ )?(?:price|cost|fee|charge|rate)s?\b|\bprice of\b"),
     _find(rf"{_PRICE}|\d")),
    ("count", _find(r"\bhow many\b"), _find(_COUNT)),
    ("frequency", _find(r"\bhow often\b"), _find(rf"\b(?:every|each|daily|weekly|monthly|yearly|annually|once|twice|times?|always"
                                                 rf"|never|regularly|hourly|per|after|whenever|{_UNITS})\b|\d")),
    ("time", _find(r"(?:^|[,;]|\band )\W*(?:so )?(?:when|what time|(?:on |at )?(?:what|which) (?:day|date|time|days|times|month|year))\b"),
     _find(_TIME)),
    ("place", _find(r"(?:^|[,;]|\band )\W*(?:so )?where\b"), _find(_PLACE)),
    ("person", _find(r"(?:^|[,;]|\band )\W*(?:so )?(?:who|whom|whose)\b"), _find(_PERSON, case=True)),
)  # fmt: skip
# Asked for a quantity, a sentence without any figure answers only if it says on what it depends, or denies.
_QUANTITIES = frozenset(("duration", "price", "count", "frequency"))
_EVADES = _find(
    rf"{_COUNT}|\b(?:depend\w*|var(?:y|ies)|differ\w*|not|never|nothing|limit\w*|only|all|every\w*|fixed|same|any)\b|n't\b"
)
_QUESTION_WORD = _find(r"\b(?:how|what|which|when|where|why|who|whose|whom)\b")
# Such a sentence answers by what it leaves unsaid, so its own vector tells little.
_LEANS = _find(r"^\W*(?:yes|no|it|that|they|this|these|those|because|after|before|until|with|only if)\b")

_OF_THE_VISITOR = re.compile(
    r"^\W*(?:yes,? |no,? |so,? )?you(?:'re|’re|'ve|’ve)? (?:also |already |currently )?(?P<verb>(?:have to|[a-z'’]+))",
    re.IGNORECASE,
)
_ADVISING_TABLE = """
    can could may might must should will would need shall cannot can't won't don't do not get receive see find
"""
# Advice and permission address any reader.
_ADVISES = frozenset((*_ADVISING_TABLE.split(), "have to"))
_YOU = re.compile(r"\b(?:you|your|yours)\b", re.IGNORECASE)


def kind_asked(question: str) -> str | None:
    """The kind of answer that a question asks for, if it asks for one alone."""
    if len(_QUESTION_WORD.findall(question)) > 1:
        return None
    return next((name for name, asked, _ in _KINDS if asked.search(question)), None)


def has_kind(kind: str, text: str) -> bool:
    return any(name == kind and bool(answer.search(text)) for name, _, answer in _KINDS)


def misfit(
    question: str, sentence: str, quotations: Sequence[str], *, own: bool, first: bool, cosines: np.ndarray | None = None
) -> Verdict | None:
    """Why a sentence of wording does not fit the question, or None.

    `own`: the question is about the visitor. `first`: nothing was published yet; what follows an answer may add to it.
    `cosines` [1 + quotations]: of the question with the sentence, then with each quotation.
    """
    if addressed := _of_the_visitor(sentence, quotations, own=own):
        return addressed
    if not first:
        return None
    kind = kind_asked(question)
    if kind and not has_kind(kind, sentence):
        if any(has_kind(kind, text) for text in quotations):
            return Verdict(False, f"other-kind: the question asks for a {kind}, and a quotation has one", 0.0)
        if kind in _QUANTITIES and not _EVADES.search(sentence):
            return Verdict(False, f"other-kind: the question asks for a {kind}, and nothing here has one", 0.0)
    if cosines is None or len(cosines) < 2:
        return None
    behind = float(cosines[1:].max() - cosines[0])
    best = quotations[int(cosines[1:].argmax())]
    # A shortened form of the best quotation ("Hold both arrows.") is as much to the point as that.
    if behind > (FURTHER_LEANING if _LEANS.match(sentence) else FURTHER) and not set(content_stems(sentence)) <= set(
        content_stems(best)
    ):
        return Verdict(False, f"off-topic: {behind:.2f} further from the question than the best quotation", 0.0)
    return None


def _of_the_visitor(sentence: str, quotations: Sequence[str], *, own: bool) -> Verdict | None:
    """ "You ride a K3." says of the visitor what a page says of nobody; "You can return parts" and "You pay by card" are the page's."""
    match = _OF_THE_VISITOR.match(sentence)
    if match is None or sentence.strip() in {text.strip() for text in quotations}:
        return None
    verb = match["verb"].lower()
    if verb in _ADVISES and not own:
        return None
    stems = set(content_stems(verb)) or {verb}
    for text in quotations:
        if _YOU.search(text) and stems & {*content_stems(text), *text.lower().split()}:
            return None
        if not own and stems & set(content_stems(" ".join(text.split()[:2]))):
            return None  # an instruction: "Send them to the workshop" is "You send them to the workshop"
    return Verdict(False, "visitor: it says of the visitor what no quotation says of its reader", 0.0)

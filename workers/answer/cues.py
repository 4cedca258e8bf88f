"""By which words a message shows whether it asks, tells, or makes conversation. English, as the model is.

Checked against 2,232 hand-written questions of visitors: none is taken for small talk or for something told; about 80 of them ask
about something of the visitor's, and those go to the state only if something like it was told (route).
"""

from __future__ import annotations

import re

from workers.answer.sentences import split_sentences


def _one_of(*phrases: str) -> str:
    return "(?:" + "|".join(phrases) + ")"


def _words(table: str) -> str:
    """An alternative of the words of a table; each may itself be a small pattern without spaces."""
    return _one_of(*table.split())


def _whole(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"\W*{_one_of(*patterns)}\W*", re.IGNORECASE)


def _find(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_HELLO = r"(?:hi|hiya|hello|hey|howdy|hallo|greetings|good (?:morning|afternoon|evening|day))(?: there| again| all| everyone)?"
_PRAISE = _words("ok okay great perfect super cool nice good fine")
_SMALL_TALK = {
    "hello": _whole(_HELLO),
    "thanks": _whole(
        rf"(?:{_PRAISE}\W+)?(?:thank you|thanks?)(?: a lot| so much| very much| again| for (?:the|your) help)*(?:\W+bye)?",
        rf"(?:{_PRAISE}\W+)?(?:thx|ty|cheers|much appreciated)",
    ),
    "bye": _whole("good ?bye", "bye(?: bye)?", "see you(?: later| soon)?", "have a (?:nice|good|great) (?:day|evening|weekend)"),
    "ok": _whole(_PRAISE, "i see", "got it", "understood", "al ?right", "all right", "sounds good", "that help(?:s|ed)"),
    "self": _whole(
        "(?:and )?(?:who|what) (?:are|r) (?:you|u)",
        "are you (?:an? )?(?:real )?(?:human|person|robot|bot|machine|ai)",
        "what can you do(?: for me)?",
        "how can you help(?: me)?",
        "what(?:'s| is) your name",
    ),
}

_SAY = _words("say said tell told give gave given mention(?:ed)? write wrote written call called pick picked")
# The visitor asks what they said themselves: no content can answer that.
_SAYS_TOLD = _find(
    rf"\b(?:did|have) i (?:just |already |ever |not )?{_SAY}\b",
    r"\bi(?:'ve| have)? (?:just |already )?(?:told|gave|given|mentioned)(?: to)? you\b",
    r"\b(?:do|can|could|would) you (?:still )?(?:remember|recall) "
    r"(?:my|me|our|us|what i|who i|where i|which|when i|how many)\b",
    r"\bdo you (?:still )?know (?:(?:my|our) \w+(?: \w+)?|who i am|where i (?:live|work)|how old i am)\W*$",
    r"\bremind me (?:of|what|which|who|when|where)\b.*\b(?:my|i|our|we)\b",
    r"\bwhat do you know about (?:me|us)\b",
    r"^\W*(?:and |so )?(?:what|which|who|where|when|how many|how much)\b.{0,40}\b(?:my|our|am i|do i|did i)\b.{0,30}\bagain\W*$",
    r"^\W*(?:and |so |ok |but |hey |hi )*(?:tell me )?who (?:am i|i am)(?: again)?\W*$",
    # What no content holds, whoever the visitor is.
    r"^\W*(?:and |so |ok |hey )*(?:what|what's|whats) (?:is |was )?(?:my|our) (?:first |last |full |own )?"
    r"(?:name|surname|nickname|age|birthday)\W*$",
    r"^\W*(?:and |so |ok |hey )*(?:how old am i|where do i (?:live|work))\W*$",
)
_LEAD = r"^\W*(?:and |so |ok |now |please |hey |hi |can you |could you )*"
# What visitors should do, or may do, is a question to the content.
_ADVICE = r"(?!.*\b(?:can|could|should|must|may|might|would|have to|happens?|if)\b)"
# A question about something of the visitor's.
_ASKS_OWN = _find(
    rf"{_LEAD}(?:tell me |say )?(?:on |in |at |by |for )?(?:what|what's|whats|which|who|who's|when|where|"
    r"how many|how much|how old)\b"
    rf"{_ADVICE}.*\b(?:my|our|i|we|us|me|i'm|am|mine|ours)\b",
    rf"{_LEAD}(?:tell|give|show) me my\b",
)

_OPENINGS = _words(
    """how what what's whats which who whose when where why is are am was were do does did can could will would should may might
    must shall has tell show explain describe give find list help compare"""
)
_AUXILIARIES = _words("can could do does did is are was will would should may have has")
_SUBJECTS = _words("i you u we they he she it that this there anyone anybody someone any")
_ASKS = _find(
    r"\?",
    rf"^\W*(?:and |but |so |ok |or )?(?:{_OPENINGS}|have you|let me|please (?!note|remember|keep))\b",
    # Further on: an auxiliary before its subject, or a question word after a comma.
    rf"\b{_AUXILIARIES}(?:n't)? {_SUBJECTS}\b",
    rf"[,;–-]\W*(?:and |so |but )?(?:{_AUXILIARIES}|how|what|where|when|why)\b",
)
# Words with which a visitor reports trouble or a wish: that is a question, whatever its grammar.
_WANTS = _find(
    r"\b"
    + _words(
        r"""can'?t cannot couldn'?t won'?t doesn'?t don'?t didn'?t isn'?t aren'?t not never unable fail\w* error\w* broken broke
        crash\w* stuck slow wrong missing lost problem\w* issue\w* trouble\w* need\w* want\w* wish wonder\w* trying tried try help
        how why where what which when whether if question\w* should complain\w* late dead forgot\w* gone bad low scared sluggish
        ages whenever keeps?"""
    )
    + r"\b",
    r"\b(?:no longer|looking for|(?:would|'d) like to|like to know|every time|each time|after (?:every|each)|all the time)\b",
    r"\b(?:thinking of|about to)\b",
)
_OWNS = _words(
    """live work use run have got own drive ride rode speak prefer come came wear bought ordered booked moved study studied paid
    chose took signed registered started joined read play teach stay arrive"""
)
_NOTE = (
    r"(?:(?:please )?(?:note|remember|keep in mind)(?:,? that)?\W+|fyi\W+|btw\W+|by the way\W+|just so you know\W+"
    r"|and |also |so |oh )*"
)
_TELLS = re.compile(
    rf"\W*(?:{_HELLO}\W+)?{_NOTE}"
    + _one_of(
        r"(?:my|our)\b.{1,60}?(?:\bis\b|\bare\b|\bwas\b|\bends?\b|\bruns\b|'s\b|:)",
        r"(?:i|we)(?:'m| am|'re| are|m)\b",
        rf"(?:i|we)(?:'ve| have)? {_OWNS}\b",
        r"(?:i|we)(?:'d| would) (?:like|prefer) (?:the|it)\b",
        r"(?:i|we) (?:plan to|can) (?:visit|come|spend|arrive)\b",
        r"call me\b",
        r"(?:i|we)(?:'ll| will) (?:come|be|arrive|bring)\b",
        r"(?:it|this) is about\b",
        r"there are \w+ of us\b",
        r"the word\b",
        r"(?:order|invoice|customer|ticket|room|account|booking)\b.{0,20}\d",
    ),
    re.IGNORECASE,
)


def sentences_of(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


def small_talk(text: str) -> str | None:
    """`hello`, `thanks`, `bye`, `ok`, `self` (who are you), or None: the whole message must be that."""
    return next((kind for kind, pattern in _SMALL_TALK.items() if pattern.fullmatch(text)), None)


def asks(sentence: str) -> bool:
    return bool(_ASKS.search(sentence))


def tells(text: str) -> bool:
    """Whether a message only tells something of the visitor: every sentence does, none asks, wishes or reports trouble."""
    told = [part for part in sentences_of(text) if small_talk(part) is None]
    return bool(told) and all(_TELLS.match(part) and not asks(part) and not _WANTS.search(part) for part in told)


def asks_own(text: str) -> tuple[bool, bool]:
    """(asks about the visitor, says that it was told before)."""
    told = bool(_SAYS_TOLD.search(text))
    return told or bool(_ASKS_OWN.search(text)), told

"""Text → tokens: words with their stems, names, identifiers and quantities, each comparable by one key."""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

from workers.answer.verify.lexicon import FUNCTION, MULTIPLIERS, NUMBER_WORDS, QUANTIFIERS, SYNONYMS, UNITS

WORD, NAME, CODE, NUMBER = "word", "name", "code", "number"

_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "«": '"', "»": '"', "–": "-", "‑": "-", "−": "-", "…": " "})
_CHUNK = re.compile(r"\S+")
_LEADING = "([{\"'<`*_“¿¡|•"
_TRAILING = ")]}\"'>`*_.,;:!?|"
_QUANTITY = re.compile(
    r"(?P<sign>[-+])?(?P<money>[€$£¥])?"
    r"(?P<number>\d{1,3}(?:[,' ]\d{3})+(?:\.\d+)?|\d+(?:[.,:]\d+)*)"
    r"(?P<unit>%|°[CF]?|[€$£¥]|[a-zA-Zµ/]*\.?[a-z]?\.?)(?P<plus>\+)?"
)
_PLAIN_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_COMPOUND = re.compile(r"[^\W\d_]+(?:[-/][^\W\d_]+)+")
_BRACKETS = re.compile(r"[()\[\]{}\"'`<>]")
_MERIDIEM = {"am": 0, "pm": 12}
_PHRASES = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"\b(no|not) later than\b", "at-most"),
        (
            r"\b(?:no|not) more than\b|\bat (?:the )?most\b|\bup to(?: and including)?\b|\b(?:a )?maximum of\b|\bat the latest\b",
            "at-most",
        ),
        (r"\b(?:no|not) (?:less|fewer) than\b|\bat (?:the very )?least\b|\ba minimum of\b|\bminimum of\b", "at-least"),
        # "The maximum size is 56 bytes" is "at most 56 bytes".
        (r"\b(maximum|longest|largest)\b([^.;,\d]{0,40}\b(?:is|are|of)) (?=\d)", r"\1\2 at-most "),
        (r"\b(minimum|shortest|smallest)\b([^.;,\d]{0,40}\b(?:is|are|of)) (?=\d)", r"\1\2 at-least "),
        (
            r"\b(?:more|greater|larger|longer|higher|older) than(?= (?:\S+ )?\d)|\bin excess of\b|\bover(?= \d)|\babove(?= \d)",
            "more-than",
        ),
        (r"\b(?:less|fewer|smaller|shorter|lower|younger) than(?= (?:\S+ )?\d)|\bunder(?= \d)|\bbelow(?= \d)", "less-than"),
        (r"\b(?:has|have|had) to\b", "must"),
        (r"\bneeds? to\b|\b(?:is|are) (?:required|obliged) to\b", "must"),
        (r"\bnot only\b", "not-only"),
        (r"\bwhether or not\b", "whether"),
        (r"\bno longer\b", "not"),
        (r"\bprior to\b", "before"),
        (r"\b(?:instead of|rather than|in place of|as opposed to)\b", "instead"),
        (r"\b(?:other than|apart from|aside from|with the exception of|except for)\b", "except"),
        (r"\b(?:because of|due to|owing to)\b", "because"),
        (r"\bcan not\b", "cannot"),
        (r"\bas long as\b|\bprovided that\b|\bin case\b", "if"),
        (r"\b(?:as soon as|once)\b(?= \w+ \w+)", "when"),
        (
            r"\bfree of charge\b|\bat no (?:extra |additional )?(?:cost|charge)\b|\bwithout (?:extra |additional )?charge\b",
            "free",
        ),
        (r"\bp\.\s?m\.?", "pm"),
        (r"\ba\.\s?m\.?(?=\s|$|[,;])", "am"),
        (r"\bper cent\b", "percent"),
        (r"\bthe day before\b", "the day before"),
    )
]
BOUNDS = {"at-most": "most", "at-least": "least", "more-than": "more", "less-than": "less", "within": "most"}
_AFTER_BOUND = re.compile(r"\bor (?:more|older|later|newer|above|longer|higher|larger|up)\b", re.IGNORECASE)
_AFTER_UNDER = re.compile(r"\bor (?:less|fewer|younger|earlier|below|under|shorter|lower)\b", re.IGNORECASE)


@dataclass(slots=True)
class Token:
    """One word, name, identifier or quantity. `key` is what is compared; an empty `key` is a function word."""

    text: str
    lower: str
    kind: str
    key: str
    initial: bool = False  # first of its sentence: its capital says nothing
    breaks: str = ""  # punctuation before it: "," or a harder one
    unit: str | None = None  # of a number
    value: float | None = None
    forms: frozenset[str] = frozenset()  # other keys that match it as well
    bound: str = ""  # of a number: least, most, more, less
    denials: int = 0  # how many negations reach it
    denied: bool = False  # what the negation denies first
    exceptive: str = ""
    modal: str = ""
    possible: bool = False  # "may", "might", "can" of a thing, not of a person
    quantifier: str = ""
    prepositions: frozenset[str] = field(default_factory=frozenset)
    segment: int = 0

    @property
    def negated(self) -> bool:
        """Denied on balance: two negations cancel."""
        return self.denials % 2 == 1

    @property
    def content(self) -> bool:
        return bool(self.key)


def normalise(text: str) -> str:
    """NFKC, straight quotes, single spaces; what two spellings of the same sentence have in common."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_QUOTES).split())


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """A light stem: plural, -ed, -ing, -ly, -ion, -ment, -al and a final e go; -er, -less, -ful change the meaning and stay."""
    word = _IRREGULAR.get(word, word)
    if len(word) <= 3 or not word.isascii():
        return word
    if (word.endswith("ies") and len(word) > 4) or (word.endswith("ied") and len(word) > 4):
        word = word[:-3] + "y"
    elif word.endswith(("sses", "ches", "shes", "xes", "zzes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending, least in (("ingly", 4), ("edly", 4), ("ing", 3), ("ed", 3)):
        if (
            word.endswith(ending)
            and len(word) - len(ending) >= least - 1
            and any(vowel in word[: -len(ending)] for vowel in "aeiouy")
        ):
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    for ending, least in (("ly", 4), ("al", 5), ("ation", 4), ("ition", 4), ("ion", 4), ("ment", 3), ("ness", 4)):
        if word.endswith(ending) and len(word) - len(ending) >= least - 1:
            word = word[: -len(ending)]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    if len(word) > 3 and word.endswith("y"):
        word = word[:-1] + "i"
    if len(word) > 4 and word.endswith("ll"):
        word = word[:-1]
    return word


# Each entry: the plain form, then those that do not follow from it.
_IRREGULAR_TABLE = """
    write written wrote | send sent | keep kept | hold held | make made | take taken took | give given gave | find found | buy
    bought | pay paid | build built | lose lost | sell sold | tell told | choose chosen chose | run ran running | begin begun
    began beginning | child children | person persons | know known knew | go went goes | see seen saw | mean meant | speak
    spoke spoken | drive driven drove | grow grown grew | break broken broke | wear worn wore | show shown | teach taught |
    bring brought | meet met | lead led | stand stood | eat eaten ate | override overridden overrode | freeze frozen froze |
    hide hidden hid | steal stolen stole | get got gotten | bind bound | say said | think thought | become became | catch
    caught | draw drawn drew | feed fed | fall fallen fell | understand understood | drink drunk drank | swim swum swam |
    throw thrown threw | woman women | man men | foot feet | life lives | half halves | deliver delivery deliveries | index
    indices indexes | datum data | spend spent | lend lent | rise risen rose
"""
_IRREGULAR = {form: entry.split()[0] for entry in _IRREGULAR_TABLE.split("|") for form in entry.split()[1:]}
_SYNONYM_STEMS = {stem(word): "=" + stem(head) for word, head in SYNONYMS.items()}


def word_key(lower: str) -> str:
    stemmed = stem(lower.removesuffix("'s"))
    return _SYNONYM_STEMS.get(stemmed, stemmed)


def tokenise(text: str) -> list[Token]:
    """Tokens of one sentence or passage, in order, function words included."""
    text = normalise(text)
    for pattern, replacement in _PHRASES:
        text = pattern.sub(replacement, text)
    tokens: list[Token] = []
    initial, breaks = True, ""
    for match in _CHUNK.finditer(text):
        chunk = match.group()
        core = chunk.lstrip(_LEADING)
        if len(core) < len(chunk) and chunk[0] in "([{|•":
            breaks = breaks or "("
        bare = core.rstrip(_TRAILING)
        tail = core[len(bare) :]
        if bare:
            made = _read(bare, initial)
            if made:
                made[0].breaks = breaks
                tokens.extend(made)
                initial, breaks = False, ""
        elif chunk.strip("-") == "" and chunk:
            breaks = "-"
        tail = tail.replace("...", "")
        if any(mark in tail for mark in ".!?"):
            initial = True
        breaks = next((mark for mark in tail if mark in ".!?;:)]}"), "," if "," in tail else breaks)
    _join_quantities(tokens)
    _let_go_of_one(tokens)
    _count_once(tokens)
    return tokens


def _read(core: str, initial: bool) -> list[Token]:
    """Tokens of one chunk between spaces, stripped of the punctuation around it."""
    lower = core.lower()
    if not any(character.isalnum() for character in core) and lower not in UNITS:
        return []
    if lower in BOUNDS or lower == "not-only":
        return [Token(core, lower, WORD, "", initial)]
    if _PLAIN_WORD.fullmatch(core):
        return [_word(core, initial)]
    if core[0].isdigit() or (core[0] in "-+€$£¥" and len(core) > 1 and core[1].isdigit()):
        quantities = _quantities(core)
        if quantities:
            return quantities
    if _COMPOUND.fullmatch(core):
        parts = re.split(r"[-/]", core)
        if "/" in core:
            return [_word(part, initial and not index) for index, part in enumerate(parts)]
        if lower in SYNONYMS or lower.startswith("non-"):
            return [_word(core, initial)]
        if all(part.islower() or (initial and not index) for index, part in enumerate(parts)):
            token = Token(core, lower, WORD, "-".join(word_key(part) for part in parts), initial)
            number = NUMBER_WORDS.get(parts[0].lower())
            if number is not None and parts[1].lower() in NUMBER_WORDS:
                return [
                    Token(
                        core,
                        lower,
                        NUMBER,
                        f"#{number + NUMBER_WORDS[parts[1].lower()]}",
                        value=number + NUMBER_WORDS[parts[1].lower()],
                    )
                ]
            if number is not None and parts[1].lower() in UNITS:
                return [_number(core, float(number), UNITS[parts[1].lower()])]
            return [token]
        return [Token(core, lower, NAME, lower, initial)]
    stripped = core.rstrip("()")
    return [
        Token(core, lower, CODE, (stripped or core).lower() if stripped.islower() or stripped.isupper() else stripped, initial)
    ]


def _word(core: str, initial: bool) -> Token:
    lower = core.lower()
    if len(core) == 1 and core.isupper() and not initial and core != "I":
        return Token(core, lower, NAME, "'" + lower, initial)  # "form A"
    if lower in FUNCTION and not (core.isupper() and len(core) > 1 and not initial):
        # "us", "it", "or" in capitals are names; a quantifier is compared like content.
        return Token(core, lower, WORD, "%" + QUANTIFIERS[lower] if lower in QUANTIFIERS else "", initial)
    if lower in QUANTIFIERS:
        return Token(core, lower, WORD, "%" + QUANTIFIERS[lower], initial)
    if lower in NUMBER_WORDS:
        return _number(core, float(NUMBER_WORDS[lower]), None)
    inner_capital = any(character.isupper() for character in core[1:])
    # "HTTPS" is not the plural of "HTTP"; "PDFs" is that of "PDF".
    key = lower if core.isupper() and len(core) > 1 else word_key(lower)
    if inner_capital or (core[0].isupper() and not initial):
        return Token(core, lower, NAME, key, initial)
    return Token(core, lower, WORD, key, initial)


def _number(text: str, value: float, unit: str | None) -> Token:
    return Token(text, text.lower(), NUMBER, f"#{value:g}", value=value, unit=unit)


def _quantities(core: str) -> list[Token]:
    """Quantities in one chunk: "10MB", "€12", "9-17", "9:30am-5pm", "50%". Empty if the chunk is an identifier after all."""
    found: list[Token] = []
    pieces = re.split(r"(?<=[\w%°€$])-(?=[\d€$£])", core)
    if len(pieces) > 2:
        return []  # a telephone number or a date
    for piece in pieces:
        match = _QUANTITY.fullmatch(piece)
        if not match or piece.count(".") > 1 or piece.count("-") > 1:
            return []
        suffix = match["unit"].lower()
        if suffix in ("st", "nd", "rd", "th"):
            found.append(_number(piece, float(match["number"].replace(",", "")), None))
            continue
        if suffix and suffix not in UNITS and suffix.replace(".", "") not in UNITS:
            return []
        unit = UNITS.get(match["money"] or "") or UNITS.get(suffix) or UNITS.get(suffix.replace(".", ""))
        token = _time(piece, match["number"], unit) if ":" in match["number"] else None
        if token is None:
            number = match["number"].replace(" ", "").replace("'", "")
            grouped = re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number)
            number = number.replace(",", "" if grouped else ".")
            if number.count(".") > 1 or ":" in number:
                return []
            # A version or a price keeps its zeros: 1.10 is not 1.1, but 10.00 euros are ten.
            value = float(number) * (-1 if match["sign"] == "-" and not found else 1)
            token = _number(piece, value, unit)
            if "." in number and unit is None:
                token.key = "#" + number
        if match["plus"]:
            token.bound = "least"
        found.append(token)
    return found


def _time(text: str, digits: str, unit: str | None) -> Token | None:
    parts = digits.split(":")
    if len(parts) > 3 or not all(part.isdigit() for part in parts) or int(parts[1]) > 59 or int(parts[0]) > 24:
        return None
    token = _number(text, int(parts[0]) + int(parts[1]) / 60, unit or "clock")
    token.key = f"#{token.value:g}" if len(parts) == 2 else "#" + digits
    return token


def _join_quantities(tokens: list[Token]) -> None:
    """Give numbers the unit that follows, the bound around them, and read "two hundred", "5 million", "9 am to 5 pm"."""
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.kind == NUMBER and token.value is not None:
            following = tokens[index + 1] if index + 1 < len(tokens) else None
            if following and not following.breaks and following.kind == NUMBER and _adds_up(token, following):
                token.value += following.value or 0
                token.key = f"#{token.value:g}"
                del tokens[index + 1]
                continue
            if following and not following.breaks and following.lower in MULTIPLIERS:
                token.value *= MULTIPLIERS[following.lower]
                token.key = f"#{token.value:g}"
                del tokens[index + 1]
                continue
            if following and not following.breaks and following.lower in UNITS and (following.kind != NUMBER):
                unit = UNITS[following.lower]
                if unit in ("am", "pm") or token.unit in (None, "clock"):
                    token.unit = unit
                    del tokens[index + 1]
            if token.unit in ("am", "pm"):
                hours = (token.value or 0) % 12 + _MERIDIEM[token.unit]
                token.value, token.key, token.unit = hours, f"#{hours:g}", "clock"
            previous = tokens[index - 1] if index else None
            if previous and previous.lower in BOUNDS:
                token.bound = BOUNDS[previous.lower]
            elif index > 1 and tokens[index - 2].lower in BOUNDS and not tokens[index - 1].content:
                token.bound = BOUNDS[tokens[index - 2].lower]
            token.bound = token.bound or _bound_after(tokens, index)
        index += 1


def _adds_up(token: Token, following: Token) -> bool:
    """ "Two hundred five" in words; never two digits side by side."""
    return (
        token.text.isalpha()
        and following.text.isalpha()
        and (token.value or 0) >= 20
        and 0 < (following.value or 0) < (((token.value or 0) >= 100 and 100) or 10)
    )


def _bound_after(tokens: list[Token], index: int) -> str:
    """ "18 or older", "20.11 or later": the bound, and its words are then no claim of their own."""
    for end in range(index + 1, min(index + 5, len(tokens) - 1)):
        if tokens[end].lower == "or":
            words = f"or {tokens[end + 1].lower}"
            bound = "least" if _AFTER_BOUND.match(words) else "most" if _AFTER_UNDER.match(words) else ""
            if bound:
                tokens[end + 1].key = ""
            return bound
        if tokens[end].breaks:
            break
    return ""


def _let_go_of_one(tokens: list[Token]) -> None:
    """ "The old one", "one of them", "one that": a pronoun, not a number."""
    for index, token in enumerate(tokens):
        if token.lower != "one" or token.unit is not None:
            continue
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if following is None or following.breaks or not following.content:
            token.key, token.kind, token.value = "", WORD, None


def _count_once(tokens: list[Token]) -> None:
    """ "Replaced once a year" counts; "once the file is saved" does not."""
    for previous, token in itertools.pairwise(tokens):
        if token.lower == "once" and previous.content and not token.breaks:
            token.key = "once"

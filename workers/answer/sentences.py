"""Verbatim sentences of a passage, as spans: what is quoted as evidence, embedded at ingest, and checked in wording.

A rule set, not a model: it runs at ingest over every page and in the live path over every answer. A wrong split costs little
there (a neighbour can be quoted too), a lost character would break the text fragment that scrolls the reader's page, so spans
always cover everything that is not white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


# A full stop after these never ends a sentence.
_NEVER_FINAL = _words("""
    e.g i.e eg ie dr mr mrs ms prof st rev hon gen col sgt capt vs cf viz fig figs eq eqs approx ca resp incl excl tel ext sec
    sect chap ch vol pp ed eds trans dept est avg temp ref refs mt ft bzw z.b d.h evtl ggf nr s.o u.a par para art ver
""")
# A full stop after these ends a sentence only if the next word looks like a beginning (a capital letter, no digit).
_SOMETIMES_FINAL = _words("""
    etc inc ltd co corp llc a.m p.m am pm u.s u.k e.u al jr sr ave blvd rd min max hr hrs std no nos p ph.d b.c a.d usw
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun
""")
_BEGINNINGS = _words("the a an this that these those it they we you he she if in on at for when to there and but")
_STOP = re.compile(r"(?P<stop>[.!?…]+|[؟।]+)(?P<close>[\"'”’»)\]*_`]*)(?=\s|$)|(?P<wide>[。！？｡．]+)[」』”’）】〉》]*")
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“‘«—–/,;:]+$")
_IDENTIFIER = re.compile(r"[a-z][\w.+-]*(?:[-_/]|\.(?=\w)|\(\))[\w./+()-]*|[a-z]+\d[\w.]*")
_BRACKETS = re.compile(
    r"\([^()\n]{1,300}\)|\[[^\[\]\n]{1,300}\]|“[^”\n]{1,200}”|«[^»\n]{1,200}»|`[^`\n]{1,200}`|\"[^\"\n]{1,200}\""
)
_LIST_ITEM = re.compile(r"\s*(?:[-*+•‣▪●◦·–—]\s|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)]\s)")
_INLINE_ITEM = re.compile(r"(?<=\s)[•‣▪●]\s")
_PROMPT = re.compile(r"\s*(?:[$%]|>>>|C:\\[^>]*>)\s")
_PROSE = re.compile(r"(?:\S+\s+){6}.*[.!?:]\s*$")
_QUESTION_LINE = re.compile(r"\s*(?:Q|Question|Frage)\s?:\s")
_ANSWER_MARK = re.compile(r"(?<=\s)(?:A|Answer|Antwort)\s?:\s")
# No abbreviation is longer.
_WORD_REACH = 40
# A line at least this long that goes on in lower case was wrapped, not ended.
_WRAPPED_LINE = 45


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Spans `[start, end)` of the sentences of `text`, in order.

    The spans are disjoint, carry no white space at their ends and cover every character that is not white space. List items,
    headings and lines of code stand for themselves; a stop inside brackets or quotation marks does not end the one around it.
    """
    spans: list[tuple[int, int]] = []
    for start, end, is_code in _units(text):
        edges = [start, *([] if is_code else _boundaries(text, start, end)), end]
        for left, right in pairwise(edges):
            piece = text[left:right]
            stripped = piece.strip()
            if not stripped:
                continue
            left += len(piece) - len(piece.lstrip())
            spans.append((left, left + len(stripped)))
    return _join_marks(text, spans)


def _units(text: str) -> Iterator[tuple[int, int, bool]]:
    """Lines, or several where one sentence was wrapped over them: (start, end, is code)."""
    fenced = False
    pending: tuple[int, int] | None = None
    for match in re.finditer(r"[^\n\r\u2028\u2029\f\v]+", text):
        start, end = match.span()
        line = match.group()
        is_fence = line.lstrip().startswith(("```", "~~~"))
        if is_fence or fenced or _is_code(line):
            fenced ^= is_fence
            if pending:
                yield (*pending, False)
            pending = None
            yield start, end, True
            continue
        if pending and _continues(text, pending, start, line):
            pending = (pending[0], end)
            continue
        if pending:
            yield (*pending, False)
        pending = (start, end)
    if pending:
        yield (*pending, False)


def _is_code(line: str) -> bool:
    if _PROMPT.match(line):
        return True
    return line.startswith(("    ", "\t")) and not _PROSE.match(line) and not _LIST_ITEM.match(line)


def _continues(text: str, pending: tuple[int, int], start: int, line: str) -> bool:
    """Whether `line` goes on with the sentence that the unit before left open."""
    if text[pending[1] : start].count("\n") > 1 or _LIST_ITEM.match(line):
        return False
    before = text[pending[0] : pending[1]].rstrip()
    last_line = before.rsplit("\n", 1)[-1]
    if not before or before[-1] in ".!?…:;。！？":
        return False
    first = line.lstrip()[:1]
    return first.islower() and (len(last_line) >= _WRAPPED_LINE or before[-1] == ",")


def _boundaries(text: str, start: int, end: int) -> list[int]:
    """Places inside one unit where a sentence ends, ascending, each strictly between `start` and `end`."""
    unit = text[start:end]
    shielded = [match.span() for match in _BRACKETS.finditer(unit)]
    found = set()
    item = _LIST_ITEM.match(unit)
    for match in _STOP.finditer(unit):
        place = match.end()
        if item and place <= item.end():
            continue
        if any(left < match.start() and place < right for left, right in shielded):
            continue
        if match["wide"] or _is_final(unit, match):
            found.add(place)
    found.update(match.start() for match in _INLINE_ITEM.finditer(unit))
    if _QUESTION_LINE.match(unit):
        found.update(match.start() for match in _ANSWER_MARK.finditer(unit))
    return sorted(start + place for place in found if 0 < place < len(unit))


def _is_final(unit: str, match: re.Match[str]) -> bool:
    stop, following = match["stop"], unit[match.end() :].lstrip()
    if not following:
        return False  # the end of the unit is an end anyway
    first = following.lstrip("\"'“‘«([*_`¿¡")[:1]
    if stop[-1] in "؟।":
        return True
    if first.islower():
        return stop == "." and not match["close"].strip("`*_") and _ends_before_lower_case(unit, match.start(), following)
    if not first or first in ",;:)]}&+=/|<>%–—-":
        return first == "-" or first == "–"
    if stop != ".":
        return stop[-1] in "!?" or not first.isdigit()
    word = _word_before(unit, match.start())
    plain = word.lower()
    if plain in _NEVER_FINAL:
        return False
    if plain in _SOMETIMES_FINAL:
        return first.isupper() if plain not in ("no", "nos", "p") else not first.isdigit()
    # An initial ("J. Smith"), unless what follows can only be a beginning ("vitamin C. The body …"). I is the pronoun.
    if len(word) == 1 and word.isupper() and word != "I":
        return following.split(None, 1)[0].lower() in _BEGINNINGS
    return True


def _ends_before_lower_case(unit: str, place: int, following: str) -> bool:
    """A stop before a small letter: an end if a command or file name follows, or if an ordinary word stands before it."""
    word = _word_before(unit, place)
    if word.lower() in _NEVER_FINAL or word.lower() in _SOMETIMES_FINAL:
        return False
    if _IDENTIFIER.match(following):
        return len(word) > 1
    return len(word) >= 4 and word.isalpha() and word.islower()


def _word_before(unit: str, place: int) -> str:
    match = _WORD_BEFORE.search(unit, max(0, place - _WORD_REACH), place)
    return match.group() if match else ""


def _join_marks(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A piece without any letter or digit (a rule, a lone bullet, an underline of equal signs) joins its neighbour."""
    joined: list[tuple[int, int]] = []
    opening: int | None = None
    for start, end in spans:
        if not any(character.isalnum() for character in text[start:end]):
            if joined:
                joined[-1] = (joined[-1][0], end)
            elif opening is None:
                opening = start
            continue
        joined.append((start if opening is None else opening, end))
        opening = None
    if opening is not None:
        joined.append((opening, spans[-1][1]))
    return joined

"""Code among evidence: how much of the reader's patience it takes, and which of its lines matter.

A block of code is one "sentence" to ingest (a few lines stand or fall together there), and words are a poor measure of it. So
it is measured by its characters, and a long one is quoted by consecutive whole lines, verbatim.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Characters to a word of English, the space included; a sentence of prose measures about its words.
CHARACTERS_PER_WORD = 8
# Above this size (in words) only the lines of a block that matter are quoted.
BLOCK_SIZE = 30
# Of the characters of a line of code, at least this share are signs; in prose they are commas and stops, not counted here.
SIGNS_SHARE = 0.06

_SIGNS = re.compile(r"[{}()\[\]<>=|\\/$_`#&*;~^+@%]|--|::|->")
_PROMPT = re.compile(r"\s*(?:[$#%>]|>>>|\.\.\.|C:\\[^>]*>)\s")
_ENDS_PROSE = re.compile(r"[.!?:][\"'”’)]*\s*$")
_LINE = re.compile(r"[^\n]*\S[^\n]*")

Span = tuple[int, int]


def size(text: str) -> int:
    """How long a quotation reads, in words: a line of code of few long words counts by its characters."""
    return max(len(text.split()), len(text) // CHARACTERS_PER_WORD)


def is_code(text: str) -> bool:
    """Whether most lines of `text` look like code, commands or their output rather than prose."""
    lines = [match.group() for match in _LINE.finditer(text)]
    return bool(lines) and sum(_is_code_line(line, alone=len(lines) == 1) for line in lines) * 2 > len(lines)


def _is_code_line(line: str, *, alone: bool) -> bool:
    if _PROMPT.match(line):
        return True
    signs = len(_SIGNS.findall(line)) / len(line)
    if alone:
        # One line may be a sentence about paths and options.
        return signs >= SIGNS_SHARE and not _ENDS_PROSE.search(line)
    return signs >= SIGNS_SHARE or not _ENDS_PROSE.search(line)


def lines_that_matter(text: str, weigh: Callable[[str], float], room: int) -> Span | None:
    """The span of consecutive whole lines of `text` around the one that `weigh` values most, of at most `room` words in size.

    None if even that line is longer. Lines after it are taken before lines ahead of it: what follows continues it.
    """
    spans = [match.span() for match in _LINE.finditer(text)]
    if not spans:
        return None
    weights = [weigh(text[start:end]) for start, end in spans]
    first = last = max(range(len(spans)), key=lambda index: (weights[index], -index))

    def measured(low: int, high: int) -> int:
        return size(text[spans[low][0] : spans[high][1]])

    if measured(first, last) > room:
        return None
    while last + 1 < len(spans) and measured(first, last + 1) <= room:
        last += 1
    while first > 0 and measured(first - 1, last) <= room:
        first -= 1
    start, end = spans[first][0], spans[last][1]
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))

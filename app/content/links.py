"""The address of a citation: the page, the heading, and the quoted sentence, so that the browser scrolls to it and marks it.

    https://example.org/apt.html#init:~:text=For%20any%20work%20with%20APT,through%20apt%20update

Text fragments: WICG "Text Fragments", section 3 (`text=[prefix-,]start[,end][,-suffix]`). A browser that does not know them,
or does not find the text, goes to the heading.
"""

from __future__ import annotations

import re
from urllib.parse import quote

# An exact match must lie within one block of the page, and a long one breaks at the smallest difference: from here on, the
# first and last words are given, and the browser marks everything between them.
EXACT_WORDS = 12
EDGE_WORDS = 5
# A piece shorter than this is found in too many places.
PIECE_WORDS = 3
# Scripts without spaces: so many characters stand for the words.
EDGE_CHARACTERS = 10
# Where extraction may have joined two blocks (cells of a row, a term and its definition, lines), and the gaps of aligned code.
_SEAM = re.compile(r"(?<=[:;])\s+|\n+|\s{2,}")
_OUTER = re.compile(r"^[\W_]+|[\W_]+$")


def citation_url(url: str, fragment: str | None, *sentences: str) -> str:
    """`url` with the fragment of its heading (an id in the page, or None) and a text fragment for each sentence.

    The browser marks every sentence that it finds and scrolls to the first of the address that it finds.
    """
    base = url.partition("#")[0]
    place = quote(fragment or "", safe="!$'()*+,;:@/?=&._~-")
    directives = [directive for sentence in sentences if (directive := text_directive(sentence))]
    if directives:
        return f"{base}#{place}:~:{'&'.join(directives)}"
    return f"{base}#{place}" if place else base


def text_directive(sentence: str) -> str:
    """`text=start` or `text=start,end`, percent-encoded; empty when the sentence has no letter or digit."""
    pieces = [piece for piece in (_trim(part) for part in _SEAM.split(sentence)) if piece]
    if not pieces:
        return ""
    telling = [piece for piece in pieces if _size(piece) >= PIECE_WORDS] or [max(pieces, key=len)]
    first, last = telling[0], telling[-1]
    if first is last and _size(first) <= EXACT_WORDS:
        return f"text={_encode(first)}"
    start, end = _edge(first, 1), _edge(last, -1)
    if first is last and len(start) + len(end) >= len(first):
        return f"text={_encode(first)}"
    return f"text={_encode(start)},{_encode(end)}"


def _trim(text: str) -> str:
    """Without punctuation at its ends: a match begins and ends at a word boundary."""
    return _OUTER.sub("", " ".join(text.split()))


def _size(piece: str) -> int:
    """Words; in scripts without spaces, groups of characters."""
    words = piece.split()
    return max(len(words), sum(len(word) // EDGE_CHARACTERS for word in words if not word.isascii() and len(word) > 30))


def _edge(piece: str, direction: int) -> str:
    words = piece.split()
    if len(words) <= 2 and len(piece) > EDGE_CHARACTERS * 3 and not piece.isascii():
        return piece[:EDGE_CHARACTERS] if direction > 0 else piece[-EDGE_CHARACTERS:]
    return _trim(" ".join(words[:EDGE_WORDS] if direction > 0 else words[-EDGE_WORDS:]))


def _encode(text: str) -> str:
    """Percent-encoded; a dash, comma or ampersand would be read as syntax."""
    return quote(text, safe="").replace("-", "%2D")

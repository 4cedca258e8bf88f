"""What a document says, as blocks under their headings: the common ground of the readers of all formats."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["paragraph", "item", "row", "code"]

TITLE_LENGTH = 200
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u2060\ufeff\ufffc\ue000-\uf8ff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[\d.()]{1,6}")
_WORD = re.compile(r"\w+|[^\w\s]")
# "3.2 ", "Chapter 4. ", "A.1. ": a number before a heading says nothing without the table of contents.
_NUMBERING = re.compile(
    r"^(?:(?:chapter|section|appendix|part)\s+(?:\d+|[A-Z]|[IVX]+)(?:\.\d+)*[.:]?\s+|\d+(?:\.\d+)+\.?\s+|\d+[.)]\s+|[A-Z](?:\.\d+)+\.?\s+|§\s*)",
    re.I,
)
# Fitted to a WordPiece tokenizer: longer words fall into pieces of about so many characters.
WHOLE_WORD, PIECE = 7, 4


def names(table: str) -> frozenset[str]:
    """The words of a table of names."""
    return frozenset(table.split())


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item, table row or piece of code, with the headings from the top to it. `linked`: all of it stands in links."""

    kind: Kind
    text: str
    path: tuple[str, ...]
    linked: bool = False


@dataclass(slots=True)
class Page:
    """A page of a document; `document` names it within its package, `book` the work that it is a chapter of, if it says so."""

    document: str
    title: str
    blocks: list[Block] = field(default_factory=list)
    book: str = ""


class Outline:
    """Gathers blocks under the headings that are open."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.first = ""
        self._open: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(text for _, text in self._open)

    def heading(self, level: int, text: str) -> None:
        """Open a heading; those of the same level and below are closed."""
        text = heading_text(text)
        if not text:
            return
        self.first = self.first or text
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, text))

    def add(self, kind: Kind, text: str, linked: bool = False) -> None:
        # A number alone is a line's or a page's.
        if text.strip() and (kind == "code" or not _NUMBER.fullmatch(text)):
            self.blocks.append(Block(kind, text, self.path, linked))


def collapse(text: str) -> str:
    """White space as a browser renders it; characters that show nothing are dropped."""
    return " ".join(visible(text).split())


def visible(text: str) -> str:
    return _SURROGATES.sub("\ufffd", _INVISIBLE.sub("", text))


def heading_text(text: str) -> str:
    text = collapse(text).strip("¶# \u2693")
    return (_NUMBERING.sub("", text) or text).removesuffix(":")[:TITLE_LENGTH]


def code_text(text: str) -> str:
    """Lines as they stand, tabs expanded, without empty lines and the margin that all have in common."""
    lines = [line.rstrip() for line in visible(text).expandtabs(4).replace("\r", "").replace("\xa0", " ").split("\n")]
    lines = [line for line in lines if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return "\n".join(line[margin:] for line in lines)


def count_tokens(text: str) -> int:
    """About how many tokens a text has, without a tokenizer."""
    return sum(1 if len(word) <= WHOLE_WORD else 1 + math.ceil((len(word) - WHOLE_WORD) / PIECE) for word in _WORD.findall(text))


def table_rows(headings: list[str], rows: list[list[str]]) -> list[str]:
    """A line a row: "first cell: heading: value; heading: value"; two columns are "first cell: value"."""
    lines: list[str] = []
    for cells in rows:
        if not any(cells):
            continue
        first, rest = cells[0], cells[1:]
        named = len(headings) == len(cells) > 2
        values = [
            f"{headings[place]}: {text}" if named and headings[place] else text
            for place, text in enumerate(rest, start=1)
            if text
        ]
        lines.append(": ".join(part for part in (first, "; ".join(values)) if part))
    return lines


def without_title(page: Page) -> Page:
    """The page without a first heading that repeats its title, which stands beside every passage anyway."""
    page.blocks = [
        Block(block.kind, block.text, block.path[1:], block.linked)
        if block.path and block.path[0].lower() == page.title.lower()
        else block
        for block in page.blocks
    ]
    return page

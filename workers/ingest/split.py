"""Blocks to passages: by heading, of about 60 to 220 tokens, without overlap, and never across a heading.

Sections are cut where a paragraph ends if that keeps the passages of a section about equally long, and inside a paragraph
only between sentences. Nothing is lost and nothing added: a passage is its blocks, joined by line breaks. What could answer nobody
(an entry of a menu, a lone word) stays in the passage, where it is found, and is no sentence of it: it is never quoted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from workers.answer.sentences import split_sentences
from workers.answer.verify.context import annotate
from workers.answer.verify.lexicon import DETERMINERS
from workers.answer.verify.relations import has_verb
from workers.answer.verify.tokens import NUMBER, tokenise
from workers.ingest.extract import Block

MIN_TOKENS = 60
MAX_TOKENS = 220  # with title and headings before it, a passage stays within the encoder's 256 word pieces
# A page yields no more passages: what it says beyond them is a book's, and is reported as left out.
MAX_PASSAGES = 400
# A piece of code is quoted whole while it is short, else in pieces.
CODE_LINES, CODE_WORDS = 5, 40
ROW_WORDS = 80
# A piece of prose of fewer words is no sentence; up to FRAGMENT_WORDS it is one if it has a verb, a figure or an end mark.
SENTENCE_WORDS, FRAGMENT_WORDS = 3, 5
# Scripts without spaces: so many characters stand for a word.
WORD_CHARACTERS = 3

_WORD = re.compile(r"\w+|[^\w\s]")
_ENDS = re.compile(r"[.!?;…。！？؟।][\"'”’»)\]]*$")
# "Warranty: lifetime": a term and what is said of it.
_PAIR = re.compile(r"\w[^:]*[:：]\s*\w")
# Fitted to the encoder's tokenizer on 124,000 tokens of a technical handbook: within 2 % in total, 25 % for single paragraphs.
WHOLE_WORD, PIECE = 7, 4

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Draft:
    """A passage before it has vectors. `sentences` are spans in `text`."""

    heading_path: tuple[str, ...]
    fragment: str | None
    text: str
    sentences: list[Span]
    tokens: int


@dataclass(frozen=True, slots=True)
class Unit:
    """What is never cut: a block, or some sentences of a long one. `sentences` are spans in `text`."""

    text: str
    sentences: list[Span]
    tokens: int
    glue: str  # what stood between it and the unit before


def count_tokens(text: str) -> int:
    """About how many tokens a text has, without a tokenizer."""
    return sum(1 if len(word) <= WHOLE_WORD else 1 + math.ceil((len(word) - WHOLE_WORD) / PIECE) for word in _WORD.findall(text))


def split(blocks: Sequence[Block]) -> list[Draft]:
    """The passages of a page, in reading order."""
    drafts: list[Draft] = []
    for (path, fragment), section in groupby(blocks, key=lambda block: (block.heading_path, block.fragment)):
        units = [unit for block in section for unit in _units(block)]
        for group in _pack(units):
            drafts.append(_join(path, fragment, group))
    return drafts


def block_sentences(block: Block) -> list[Span]:
    """Spans of a block's sentences, covering its text. A table's row and a short piece of code are quoted whole."""
    if block.kind == "code":
        return _code_spans(block.text)
    if block.kind == "row" and len(block.text.split()) <= ROW_WORDS:
        return [(0, len(block.text))]
    return split_sentences(block.text)


def is_quotable(block: Block, sentence: str) -> bool:
    """Whether a sentence of `block` may be evidence: no entry of a menu, no lone word, no heading without a verb."""
    if block.kind in ("code", "row"):
        return True
    if block.linked and not (block.kind == "paragraph" and _ENDS.search(sentence) and _words(sentence) > FRAGMENT_WORDS):
        return False
    if _PAIR.search(sentence):
        return True
    words = _words(sentence)
    if words < SENTENCE_WORDS:
        return False
    if words > FRAGMENT_WORDS or _ENDS.search(sentence) or any(map(str.isdigit, sentence)):
        return True
    tokens = annotate(tokenise(sentence))
    # "Two bags per passenger", "Wipe the chain": a figure in words, an instruction to do something to something.
    said = has_verb(tokens) or any(token.kind == NUMBER for token in tokens) or any(t.lower in DETERMINERS for t in tokens[1:])
    return said or not sentence.isascii()


def _words(text: str) -> int:
    letters = sum(character.isalnum() and not character.isascii() for character in text)
    return max(len(re.findall(r"\w[^\s]*", text)), letters // WORD_CHARACTERS if letters * 2 > len(text) else 0)


def _code_spans(text: str) -> list[Span]:
    spans: list[Span] = []
    lines = words = 0
    for match in re.finditer(r"[^\n]*\S[^\n]*", text):
        size = len(match.group().split())
        start = match.start() + len(match.group()) - len(match.group().lstrip())
        if spans and lines < CODE_LINES and words + size <= CODE_WORDS:
            spans[-1] = (spans[-1][0], match.start() + len(match.group().rstrip()))
            lines, words = lines + 1, words + size
        else:
            spans.append((start, match.start() + len(match.group().rstrip())))
            lines, words = 1, size
    return spans


def _units(block: Block) -> Iterator[Unit]:
    """The units of a block, with those of its sentences that may be quoted."""
    for unit in _pieces(block):
        kept = [(start, end) for start, end in unit.sentences if is_quotable(block, unit.text[start:end])]
        yield replace(unit, sentences=kept)


def _pieces(block: Block) -> Iterator[Unit]:
    spans = block_sentences(block)
    total = count_tokens(block.text)
    if total <= MAX_TOKENS or not spans:
        yield Unit(block.text, spans, total, "\n")
        return
    spans = [piece for span in spans for piece in _cut_long(block.text, span)]
    target = total / math.ceil(total / MAX_TOKENS)
    begin, group, size, previous = 0, [], 0, 0
    for span in spans:
        tokens = count_tokens(block.text[span[0] : span[1]])
        if group and (size + tokens > MAX_TOKENS or size >= target):
            yield _cut(block.text, begin, previous, group, size)
            begin, group, size = span[0], [], 0
        group.append(span)
        size += tokens
        previous = span[1]
    yield _cut(block.text, begin, len(block.text), group, size)


def _cut(text: str, begin: int, end: int, spans: list[Span], tokens: int) -> Unit:
    glue = "\n" if begin == 0 or "\n" in text[:begin][len(text[:begin].rstrip()) :] else " "
    return Unit(text[begin:end], [(start - begin, stop - begin) for start, stop in spans], tokens, glue)


def _cut_long(text: str, span: Span) -> Iterator[Span]:
    """A "sentence" beyond a passage's size (a list without stops, a blob) is cut between words, or anywhere if it has none."""
    start, end = span
    if count_tokens(text[start:end]) <= MAX_TOKENS:
        yield span
        return
    begin, last, tokens = start, start, 0
    for match in re.finditer(r"\S{1,200}", text[start:end]):
        size = count_tokens(match.group())
        if tokens and tokens + size > MAX_TOKENS:
            yield begin, last
            begin, tokens = start + match.start(), 0
        tokens += size
        last = start + match.end()
    yield begin, last


def _pack(units: list[Unit]) -> Iterator[list[Unit]]:
    """Groups of units of about the same size, each at most MAX_TOKENS, most above MIN_TOKENS."""
    total = sum(unit.tokens for unit in units)
    target = total / max(math.ceil(total / MAX_TOKENS), 1)
    group: list[Unit] = []
    size = 0
    for unit in units:
        full = size + unit.tokens > MAX_TOKENS or (size >= MIN_TOKENS and size + unit.tokens / 2 > target)
        if group and full:
            carried = _introductions(group, unit)
            yield group[: len(group) - len(carried)]
            group, size = carried, sum(one.tokens for one in carried)
        group.append(unit)
        size += unit.tokens
    if group:
        yield group


def _introductions(group: list[Unit], following: Unit) -> list[Unit]:
    """A last unit that announces what follows ("… as follows:") goes with it."""
    last = group[-1]
    if len(group) > 1 and last.text.endswith(":") and last.tokens + following.tokens <= MAX_TOKENS:
        return [last]
    return []


def _join(path: tuple[str, ...], fragment: str | None, units: list[Unit]) -> Draft:
    text = units[0].text
    sentences = list(units[0].sentences)
    for unit in units[1:]:
        offset = len(text) + len(unit.glue)
        text += unit.glue + unit.text
        sentences += [(start + offset, end + offset) for start, end in unit.sentences]
    return Draft(path, fragment, text, sentences, sum(unit.tokens for unit in units))

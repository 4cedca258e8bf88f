"""A page's main text as blocks in reading order, each under its headings, with the place in the page that shows it.

The text is what a browser renders, white space collapsed, so that a quoted sentence can be found again in the page by a
text fragment. Two things are written by us: the colon and semicolon of a table's row ("apt: Version: 2.6; Size: 4 MB") and
the colon between a term and its definition; `app/content/links.py` knows to look on either side of them. The numbers of an ordered
list are left out: the browser draws them, they are not text of the page, and a text fragment with one finds nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser

from workers.ingest.main_text import content_root, prune, walk

# Raised when extraction changes: pages whose bytes did not change are then indexed anew. 2: link-only blocks are told apart.
EXTRACTION = 2
MAX_CHARACTERS = 400_000  # of a page's text; a book in one page is cut there
MAX_LINKS = 2000
TITLE_LENGTH = 200
BREAK = "\x01"  # stands for <br> among a paragraph's pieces: line breaks of the source are spaces
MIN_LETTERS = 20  # a page with fewer has no text worth finding

HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = """p div section article main header footer aside blockquote figure figcaption ul ol li dl dt dd table thead tbody tfoot
    tr td th caption form fieldset details summary address hr pre body center legend nav"""
BLOCK_TAGS = frozenset(_BLOCKS.split()) | HEADINGS.keys()
_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u2060\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SITE_SUFFIX = re.compile(r"\s+(?:[|·•»:—–-]|::|\u2022)\s+")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item, table row or piece of code, with the headings from the top to it and the id of the nearest.

    `linked`: every letter of it stands in a link, as in a menu or a table of contents.
    """

    kind: str  # paragraph, item, row, code, term
    text: str
    heading_path: tuple[str, ...]
    fragment: str | None
    linked: bool = False


@dataclass(slots=True)
class Page:
    """What a page says. `links` are absolute, as written in the page, with their fragments cut off."""

    title: str = ""
    blocks: list[Block] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    noindex: bool = False
    nofollow: bool = False
    refresh: str | None = None  # where a meta refresh leads
    cut: bool = False

    @property
    def words(self) -> int:
        return sum(len(block.text.split()) for block in self.blocks)

    @property
    def has_text(self) -> bool:
        return sum(character.isalnum() for block in self.blocks for character in block.text[:1000]) >= MIN_LETTERS

    @property
    def content_hash(self) -> str:
        said = [self.title, [[block.text, block.heading_path, block.fragment] for block in self.blocks]]
        digest = hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()
        return f"{EXTRACTION}:{digest}"


def extract(html: str, url: str) -> Page:
    """Read a decoded page. Never raises for odd markup: HTML has a tree for everything."""
    tree = LexborHTMLParser(html)
    page = Page()
    if tree.body is None:
        return page
    _read_head(tree, url, page)
    base = tree.css_first("base[href]")
    page.links = _links(tree, urljoin(url, base.attributes["href"] or "") if base else url, page)
    head_title = collapse(title.text(deep=True)) if (title := tree.css_first("head > title, title")) else ""
    site = tree.css_first('meta[property="og:site_name"]')
    site_name = collapse(site.attributes.get("content") or "") if site else ""
    prune(tree.body)
    reader = Reader()
    reader.read(content_root(tree.body))
    page.title = choose_title(head_title, reader.first_h1, site_name, url)
    page.blocks, page.cut = _without_title(reader.blocks, page.title), reader.cut
    return page


def collapse(text: str) -> str:
    """White space as a browser renders it; characters that show nothing are dropped."""
    return " ".join(_SURROGATES.sub("\ufffd", _INVISIBLE.sub("", text)).split())


def _read_head(tree: Any, url: str, page: Page) -> None:
    for meta in tree.css("meta[name], meta[http-equiv]"):
        name = (meta.attributes.get("name") or meta.attributes.get("http-equiv") or "").strip().lower()
        content = meta.attributes.get("content") or ""
        if name in ("robots", "retort"):
            rules = {rule.strip().lower() for rule in content.split(",")}
            page.noindex |= not rules.isdisjoint(("noindex", "none"))
            page.nofollow |= not rules.isdisjoint(("nofollow", "none"))
        elif name == "refresh" and (target := re.match(r"\s*\d*\s*[;,]\s*(?:url\s*=)?\s*['\"]?([^'\"\s>]+)", content, re.I)):
            page.refresh = urljoin(url, target.group(1)).partition("#")[0]


def _links(tree: Any, base: str, page: Page) -> list[str]:
    if page.nofollow:
        return []
    found: dict[str, None] = {}
    if page.refresh:
        found[page.refresh] = None
    for link in tree.css("a[href], area[href], link[rel=next][href]"):
        href = (link.attributes.get("href") or "").strip()
        if not href or href.startswith("#") or "nofollow" in (link.attributes.get("rel") or "").lower().split():
            continue
        try:
            target = urljoin(base, href).partition("#")[0]
            if urlsplit(target).scheme in ("http", "https"):
                found[target] = None
        except ValueError:
            continue
        if len(found) >= MAX_LINKS:
            break
    return list(found)


def choose_title(head: str, h1: str, site_name: str, url: str) -> str:
    """The page's own name: the title element without the site's name, or the first heading when they agree."""
    if head and h1 and h1.lower() in head.lower():
        return h1[:TITLE_LENGTH]
    if site_name and head.lower() != site_name.lower():
        for piece in _SITE_SUFFIX.findall(head):
            head = head.removesuffix(piece + site_name).removeprefix(site_name + piece)
    if not head or head.lower() in ("untitled", "home", "document", "index") or head == site_name:
        head = h1 or head
    if not head:
        head = urlsplit(url).path.rstrip("/").rpartition("/")[2] or urlsplit(url).netloc
    return head[:TITLE_LENGTH]


def _without_title(blocks: list[Block], title: str) -> list[Block]:
    """Heading paths without a first heading that merely repeats the title: the title is shown beside them anyway."""
    return [
        replace(block, heading_path=block.heading_path[1:])
        if block.heading_path and block.heading_path[0].lower() == title.lower()
        else block
        for block in blocks
    ]


class Reader:
    """Walks the content and gathers blocks."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.first_h1 = ""
        self.cut = False
        self._characters = 0
        self._inline: list[str] = []
        self._plain = False  # whether a letter among these stands outside of links
        self._links = 0  # links that are open
        self._headings: list[tuple[int, str, str | None]] = []
        self._anchor: str | None = None  # the last id seen since there was text: names the heading that follows
        self._heading_id: str | None = None
        self._in_heading = 0
        self._containers: list[str] = []

    def read(self, root: Any) -> None:
        skip: int | None = None
        for node, entering in walk(root):
            if skip is not None:
                if not entering and node.mem_id == skip:
                    skip = None
                continue
            if self.cut:
                break
            if node.tag == "-text":
                if entering:
                    text = (node.text_content or "").replace(BREAK, " ")
                    self._inline.append(text)
                    self._plain |= not self._links and any(map(str.isalnum, text))
            elif entering and self._enter(node):
                skip = node.mem_id
            elif not entering:
                self._leave(node)
        self._flush("paragraph")

    def _enter(self, node: Any) -> bool:
        """True when the element has been read whole."""
        tag = node.tag
        if tag == "br":
            self._inline.append(BREAK)
            return False
        if tag in BLOCK_TAGS:
            self._flush(self._kind())
        identifier = node.attributes.get("id") or (node.attributes.get("name") if tag == "a" else None)
        if identifier and not re.search(r"\s", identifier):
            if self._in_heading:
                self._heading_id = self._heading_id or identifier
            else:
                self._anchor = identifier
        if tag == "a" and node.attributes.get("href") is not None:
            self._links += 1
        if tag in HEADINGS:
            self._in_heading = HEADINGS[tag]
            self._heading_id = node.attributes.get("id") or None
        elif tag == "pre":
            self._code(node)
            return True
        elif tag == "table" and is_data_table(node):
            for line in table_lines(node):
                self._emit("row", line)
            return True
        elif tag in ("li", "dt", "dd"):
            self._containers.append(tag)
        return False

    def _leave(self, node: Any) -> None:
        tag = node.tag
        if tag in HEADINGS:
            self._heading(HEADINGS[tag])
        elif tag in BLOCK_TAGS:
            self._flush(self._kind())
        if tag in ("li", "dt", "dd") and self._containers:
            self._containers.pop()
        elif tag == "a" and node.attributes.get("href") is not None:
            self._links -= 1

    def _kind(self) -> str:
        innermost = self._containers[-1] if self._containers else ""
        return {"li": "item", "dt": "term"}.get(innermost, "paragraph")

    def _flush(self, kind: str) -> None:
        if not self._inline:
            return
        lines = (collapse(line) for line in "".join(self._inline).split(BREAK))
        self._inline.clear()
        if self._in_heading:
            self._inline.append(f" {' '.join(line for line in lines if line)} ")
            return
        text = "\n".join(line for line in lines if line)
        linked, self._plain = not self._plain, False
        if text:
            self._emit(kind, text, linked)

    def _heading(self, level: int) -> None:
        text = collapse("".join(self._inline))
        self._inline.clear()
        self._plain = False
        self._in_heading = 0
        if not text:
            return
        identifier = self._heading_id or self._anchor
        self._anchor = None
        if level == 1 and not self.first_h1:
            self.first_h1 = text[:TITLE_LENGTH]
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, text[:TITLE_LENGTH], identifier))

    def _emit(self, kind: str, text: str, linked: bool = False) -> None:
        self._anchor = None
        before = self.blocks[-1] if self.blocks else None
        path = tuple(heading[1] for heading in self._headings)
        fragment = next((heading[2] for heading in reversed(self._headings) if heading[2]), None)
        if before and before.kind == "term" and before.heading_path == path and kind != "term" and len(before.text) <= 120:
            glue = " " if before.text[-1] in ".?!:;" else ": "
            self.blocks.pop()
            self._characters -= len(before.text)
            text, kind, linked = before.text + glue + text, "item", before.linked and linked
        room = MAX_CHARACTERS - self._characters
        if len(text) > room:
            self.cut = True
            text = text[:room].rpartition(" ")[0]
        self._characters += len(text)
        if text.strip():
            self.blocks.append(Block(kind, text, path, fragment, linked))

    def _code(self, node: Any) -> None:
        raw = _SURROGATES.sub("\ufffd", _INVISIBLE.sub("", node.text(deep=True))).expandtabs(4)
        lines = [line.rstrip() for line in raw.replace("\r\n", "\n").replace("\xa0", " ").split("\n")]
        text = "\n".join(line for line in lines if line.strip())
        if text:
            self._emit("code", text)


def is_data_table(table: Any) -> bool:
    """Whether a table holds data; old pages lay out whole columns of text in tables."""
    if (table.attributes.get("role") or "") in ("presentation", "none"):
        return False
    if table.css_first("table table, h1, h2, h3, pre, ul, ol"):
        return False
    rows = table.css("tr")
    if not rows or max((sum(1 for cell in row.iter() if cell.tag in ("td", "th")) for row in rows), default=0) < 2:
        return False
    if table.css_first("th") is not None:
        return True
    cells = table.css("td")
    return sum(len(cell.text(deep=True)) for cell in cells) / max(len(cells), 1) < 200


def table_lines(table: Any) -> list[str]:
    """One line a row: "first cell: heading: value; heading: value". The heading row itself is not repeated as a line."""
    lines: list[str] = []
    headings: list[str] = []
    caption = table.css_first("caption")
    if caption and (title := collapse(caption.text(deep=True))):
        lines.append(title)
    for row in table.css("tr"):
        cells = [cell for cell in row.iter() if cell.tag in ("td", "th")]
        texts = [collapse(cell.text(deep=True, separator=" ")) for cell in cells]
        if not headings and len(cells) > 1 and all(cell.tag == "th" for cell in cells):
            headings = texts
            continue
        if not any(texts):
            continue
        first, rest = texts[0], texts[1:]
        named = [
            f"{headings[place]}: {text}" if len(headings) == len(texts) and len(texts) > 2 and headings[place] else text
            for place, text in enumerate(rest, start=1)
            if text
        ]
        lines.append(": ".join(part for part in (first, "; ".join(named)) if part))
    return lines or [" · ".join(headings)] if headings else lines

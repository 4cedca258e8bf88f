"""HTML pages of documentation (Sphinx, DocBook, texinfo, doxygen, POD, help systems) to blocks, without their furniture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser

from retnet_core.distill.blocks import Kind, Outline, Page, code_text, collapse, heading_text, table_rows, without_title

Node = Any  # selectolax.lexbor.LexborNode

BREAK = "\x01"  # stands for <br> among a paragraph's pieces
FURNITURE = """
    script, style, noscript, template, svg, iframe, object, nav, footer, button, select, textarea, form, head, map, annotation,
    .sphinxsidebar, .related, .navheader, .navfooter, .headerlink, .header > p, .nav-panel, .navigation, .breadcrumb, .breadcrumbs,
    .wy-breadcrumbs, .rst-versions, .toctree-wrapper, .toc, .TOC, #toc, #TOC, .minitoc, .table-of-contents, .region-contents, .node,
    #top, #nav-path, .navpath, .permalink, .anchorjs-link, .lineno, .linenos, .copyright, .copyrightfooter, .legalnotice, .revhistory,
    .summary-toc, .footer, #footer, .indexterm, .shortcontents, .navigational, .pagination, .prevnext, .edit-this-page, .backlink,
    .admonition-title, div.note > h3, div.tip > h3, div.warning > h3, div.caution > h3, div.important > h3, div.sidebar > .title,
    figcaption, div.figure, .noprint, .printfooter, .footnote-reference, .viewcode-link, .viewcode-back,
    .catlinks, .mw-editsection, #siteSub, #jump-to-nav, .langbox, .navbar, #pageheader, .relinfo, .bookmark
""".replace("\n", " ")
# Of these, the ones that are little but links are furniture too.
SUSPECTS = (
    "div.header, header, div.contents, div.sidebar, aside, #header, #sidebar, .menu, #menu, table.menu, .index, p.links, center"
)
SUSPECT_SHARE = 0.4
KEPT = frozenset(("body", "main", "article"))  # whatever their classes say
LINK_LIST = 0.85
MAIN = (
    "main, [role=main], article, div.body, #content, #main, #main-content, #DisplayArea, #bodyContent, .document, .markdown-body"
)
MAIN_SHARE = 0.4
HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = """p div section article main header aside blockquote figure figcaption ul ol li dl dt dd table thead tbody tfoot tr td th
    caption fieldset details summary address hr pre body center legend"""
BLOCK_TAGS = frozenset(_BLOCKS.split()) | HEADINGS.keys()
NEVER_TITLE = frozenset(("untitled", "home", "document", "index", "no title", "top", "contents"))
_MARKDOWN = MarkdownIt("commonmark").enable("table")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.S)
# "Next: Filters", "Figure 3. The filter"
_LEADS_ON = re.compile(
    r"(?:\[ ?)?(?:next|previous|prev|up) ?: [^\n]{1,150}$|figure [\dA-Z]+(?:[.-]\d+)*[.:]? ?[^\n.]{0,120}\.?$", re.I
)
_SUFFIX = re.compile(r"\s+(?:[|·•»—–-]|::)\s+[^|·•»—–]*(?:documentation|manual|docs|help|guide|handbook|reference)\b[^|]*$", re.I)


def read_html(text: str, document: str) -> list[Page]:
    """The page as blocks, or nothing where there is no body. Never raises for odd markup."""
    tree = LexborHTMLParser(text)
    if tree.body is None:
        return []
    title = tree.css_first("title")
    head = collapse(title.text(deep=True)) if title else ""
    for node in _outermost([node for node in tree.body.css(FURNITURE) if node.tag not in KEPT]):
        node.decompose()
    _drop_links(tree.body)
    reader = _Reader()
    reader.read(_root(tree.body))
    return [without_title(Page(document, _title(head, reader.outline.first, document), reader.outline.blocks))]


def read_markdown(text: str, document: str) -> list[Page]:
    """Markdown by way of its HTML; front matter is left out."""
    return read_html(f"<body>{_MARKDOWN.render(_FRONT_MATTER.sub('', text))}</body>", document)


def _title(head: str, first: str, document: str) -> str:
    """The page's own name: the first heading where the title contains it, else the title without the site's name."""
    if first and (first.lower() in head.lower() or not head or head.lower() in NEVER_TITLE):
        return first
    return heading_text(_SUFFIX.sub("", head)) or document.rpartition("/")[2].partition(".")[0]


def _length(node: Node) -> int:
    return len(" ".join(node.text(deep=True).split()))


def _share(node: Node) -> float:
    length = _length(node)
    return sum(_length(link) for link in node.css("a[href]")) / length if length else 1.0


def _drop_links(body: Node) -> None:
    """Furniture by its share of links, and lists of nothing but links: menus and tables of contents."""
    chosen = [node for node in body.css(SUSPECTS) if node.tag not in KEPT and _share(node) >= SUSPECT_SHARE]
    chosen += [node for node in body.css("ul, ol, dl, table") if len(node.css("a[href]")) >= 4 and _share(node) >= LINK_LIST]
    for node in _outermost(chosen):
        node.decompose()


def _outermost(nodes: list[Node]) -> list[Node]:
    identifiers = {node.mem_id for node in nodes}
    kept: dict[int, Node] = {}
    for node in nodes:
        parent = node.parent
        while parent is not None and parent.mem_id not in identifiers:
            parent = parent.parent
        if parent is None:
            kept[node.mem_id] = node
    return list(kept.values())


def _root(body: Node) -> Node:
    """The innermost element named as content that holds most of the text."""
    total = _length(body)
    fitting = [node for node in body.css(MAIN) if _length(node) >= total * MAIN_SHARE]
    largest = max((_length(node) for node in fitting), default=0)
    fitting = [node for node in fitting if _length(node) >= largest * 0.9]
    return fitting[-1] if fitting else body


def _walk(root: Node) -> Iterator[tuple[Node, bool]]:
    """(node, entering) in document order, without recursion: pages may nest thousands deep."""
    stack = [(root, True)]
    while stack:
        node, entering = stack.pop()
        yield node, entering
        if entering:
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(list(node.iter(include_text=True))))


class _Reader:
    """Walks the content and gathers blocks."""

    def __init__(self) -> None:
        self.outline = Outline()
        self._inline: list[str] = []
        self._plain = False  # whether a letter among these stands outside of links
        self._links = 0  # links that are open
        self._heading = 0
        self._containers: list[str] = []
        self._term = ""  # of a definition list, waiting for what is said of it

    def read(self, root: Node) -> None:
        skip: int | None = None
        for node, entering in _walk(root):
            if skip is not None:
                if not entering and node.mem_id == skip:
                    skip = None
            elif node.tag == "-text":
                if entering:
                    text = (node.text_content or "").replace(BREAK, " ")
                    self._inline.append(text)
                    self._plain |= not self._links and any(map(str.isalnum, text))
            elif entering:
                if self._enter(node):
                    skip = node.mem_id
            else:
                self._leave(node)
        self._flush()
        self._emit("paragraph", "")

    def _enter(self, node: Node) -> bool:
        """True when the element has been read whole."""
        tag = node.tag
        if tag == "br":
            self._inline.append(BREAK)
        elif tag == "a" and node.attributes.get("href") is not None:
            self._links += 1
        elif tag == "sup" and re.fullmatch(r"\W*(\d{1,3}|[a-z*†‡])\W*", node.text(deep=True)) and node.css_first("a"):
            return True  # [1] and the like
        elif tag == "math":
            self._inline.append(" ")
            return True
        if tag not in BLOCK_TAGS:
            return False
        self._flush()
        if tag in HEADINGS:
            self._heading = HEADINGS[tag]
        elif tag == "pre":
            self._emit("code", code_text(node.text(deep=True)))
            return True
        elif tag == "table" and _is_data(node):
            for kind, line in _lines(node):
                self._emit(kind, line)
            return True
        elif tag in ("li", "dt", "dd"):
            self._containers.append(tag)
        return False

    def _leave(self, node: Node) -> None:
        tag = node.tag
        if tag in HEADINGS:
            text = collapse("".join(self._inline).replace(BREAK, " "))
            self._inline.clear()
            self._emit("paragraph", "")
            self.outline.heading(HEADINGS[tag], text)
            self._heading, self._plain = 0, False
        elif tag in BLOCK_TAGS:
            self._flush()
        if tag in ("li", "dt", "dd") and self._containers:
            self._containers.pop()
        elif tag == "a" and node.attributes.get("href") is not None:
            self._links -= 1

    def _flush(self) -> None:
        if not self._inline:
            return
        if self._heading:
            self._inline.append(" ")
            return
        lines = (collapse(line) for line in "".join(self._inline).split(BREAK))
        self._inline.clear()
        text = "\n".join(line for line in lines if line)
        linked, self._plain = not self._plain, False
        innermost = self._containers[-1] if self._containers else ""
        if innermost == "dt":
            self._term = "; ".join(part for part in (self._term, text) if part)
        elif text and not _LEADS_ON.match(text):
            self._emit("item" if innermost == "li" else "paragraph", text, linked)

    def _emit(self, kind: Kind, text: str, linked: bool = False) -> None:
        term, self._term = self._term, ""
        if term and len(term) <= 120 and text and kind != "code":
            kind, text, linked = "item", f"{term}{' ' if term[-1] in '.?!:;' else ': '}{text}", False
        elif term:
            self.outline.add("paragraph", term)
        self.outline.add(kind, text, linked)


def _is_data(table: Node) -> bool:
    """Whether a table holds data; old pages lay out whole columns of text in tables."""
    if (table.attributes.get("role") or "") in ("presentation", "none"):
        return False
    if table.css_first("table table, h1, h2, h3, pre, ul, ol"):
        return False
    widths = [sum(1 for cell in row.iter() if cell.tag in ("td", "th")) for row in table.css("tr")]
    if max(widths, default=0) < 2:
        return False
    cells = table.css("td")
    return table.css_first("th") is not None or sum(len(cell.text(deep=True)) for cell in cells) / max(len(cells), 1) < 200


def _lines(table: Node) -> list[tuple[Kind, str]]:
    """The caption, and one line a row; the heading row itself is no line."""
    lines: list[tuple[Kind, str]] = []
    headings: list[str] = []
    rows: list[list[str]] = []
    caption = table.css_first("caption")
    if caption and (title := collapse(caption.text(deep=True))):
        lines.append(("paragraph", title))
    for row in table.css("tr"):
        cells = [cell for cell in row.iter() if cell.tag in ("td", "th")]
        texts = [collapse(cell.text(deep=True, separator=" ")) for cell in cells]
        if not headings and len(cells) > 1 and all(cell.tag == "th" for cell in cells):
            headings = texts
        elif texts:
            rows.append(texts)
    return lines + [("row", line) for line in table_rows(headings, rows)]

"""DocBook and Mallard sources (KDE and GNOME help) to blocks: entities resolved, menus as "File → Open", keys as "Ctrl+O"."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from retnet_core.distill.blocks import Kind, Outline, Page, code_text, collapse, heading_text, names, table_rows

INCLUDE_DEPTH = 4
INCLUDED_BYTES = 8_000_000
# A page ends where one of these begins: what a web version would show as a page of its own.
_PAGES = names("chapter article preface appendix refentry page glossary")
_SECTIONS = (
    _PAGES
    | names("book part partintro section sect1 sect2 sect3 sect4 sect5 simplesect reference qandadiv")
    | {f"refsect{level}" for level in (1, 2, 3)}
)
_DROPPED = names("""info bookinfo articleinfo chapterinfo sectioninfo sect1info refentryinfo refmeta indexterm index toc mediaobject screenshot media
    inlinemediaobject graphic inlinegraphic figure remark comment links desc cite credit legalnotice revhistory bibliography footnote
    footnoteref titleabbrev anchor colspec co abstract authorgroup copyright subtitle releaseinfo""")
_PARAGRAPHS = names("para p simpara bridgehead attribution member seg")
_ITEMS = names("listitem item step answer question callout")
_CODE = names("programlisting screen literallayout synopsis cmdsynopsis funcsynopsis")
_JOINED = {"menuchoice": " → ", "guiseq": " → ", "keycombo": "+", "keyseq": "+", "simplelist": ", "}
_DECLARED = re.compile(r"""<!ENTITY\s+([\w.-]+)\s+(?:SYSTEM\s+)?(["'])(.*?)\2\s*(?:NDATA\s+\w+)?>""", re.S)
_FILE = re.compile(r"""<!ENTITY\s+([\w.-]+)\s+SYSTEM\s+["']([^"']+)["']""")
_DOCTYPE = re.compile(r"<!DOCTYPE[^\[>]*(?:\[(.*?)\]\s*)?>", re.S)
_REFERENCE = re.compile(r"&([A-Za-z][\w.:-]*);")
_INCLUDE = re.compile(r"""<(?:\w+:)?include\b[^>]*?\bhref=["']([^"'#]+)["'][^>]*?(?:/>|>.*?</(?:\w+:)?include>)""", re.S)
_PREDEFINED = frozenset(("lt", "gt", "amp", "quot", "apos"))
UNRESOLVED = "\ufffd"
"""Stands for an entity that nothing declares; passages with it are dropped."""


def read_entities(folder: Path) -> dict[str, str]:
    """The entities that a documentation system shares among all handbooks: every `.entities` file under `folder` (English: `en`)."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.entities")):
        language = path.parent.name
        if language in ("entities", "customization", "en"):
            for name, _, value in _DECLARED.findall(path.read_text("utf-8", "replace")):
                found.setdefault(name, value)
    return found


def read_docbook(text: str, document: str, path: Path, entities: Mapping[str, str]) -> list[Page]:
    """The pages of a DocBook or Mallard file. `path`: where files that it includes stand. Raises `ValueError` for what is no XML."""
    declared: dict[str, str] = dict(entities)
    text = _resolve(text, path.parent, declared, INCLUDE_DEPTH)
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - the DOCTYPE is gone and every entity resolved with a bound
    except ElementTree.ParseError as error:
        raise ValueError(f"{document}: {error}") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else "comment"
    if root.tag not in _SECTIONS:
        return []
    reader = _Reader(root, document, path.parent)
    reader.read()
    return [page for page in reader.pages if page.blocks]


def _resolve(text: str, folder: Path, declared: dict[str, str], depth: int) -> str:
    """The text without its DOCTYPE, entities replaced by what they stand for, files by their content."""
    text = re.sub(r"<\?xml[^>]*\?>", "", text)
    if doctype := _DOCTYPE.search(text):
        inside = re.sub(r"<!--.*?-->", "", doctype[1] or "", flags=re.S)
        files = dict(_FILE.findall(inside))
        for name, _, value in _DECLARED.findall(inside):
            declared[name] = value if name not in files else _DOCTYPE.sub("", _included(folder / files[name]))
        text = text[: doctype.start()] + text[doctype.end() :]
    if depth:
        text = _INCLUDE.sub(lambda match: _resolve(_included(folder / match[1]), folder, declared, depth - 1), text)
    return _replace(text, declared, depth)


def _included(path: Path) -> str:
    """The content of a file that lies beside the document (or below), or nothing."""
    if ".." in path.parts or not path.is_file() or path.is_symlink() or path.stat().st_size > INCLUDED_BYTES:
        return ""
    return re.sub(r"<\?xml[^>]*\?>", "", path.read_text("utf-8", "replace"))


def _replace(text: str, declared: Mapping[str, str], depth: int) -> str:
    def meaning(match: re.Match[str]) -> str:
        name = match[1]
        if name in _PREDEFINED:
            return match[0]
        if name in declared:
            return _replace(declared[name], declared, depth - 1) if depth else UNRESOLVED
        character = html.unescape(match[0])
        return character if character != match[0] else UNRESOLVED

    return _REFERENCE.sub(meaning, text)


class _Reader:
    """Walks the tree and gathers pages. Recursion is as deep as the markup, which handbooks nest a dozen deep."""

    def __init__(self, root: ElementTree.Element, document: str, folder: Path) -> None:
        self.pages: list[Page] = []
        self._root, self._document, self._folder = root, document, folder
        self._outline = Outline()
        self._book = ""
        self._titles = {
            identifier: collapse("".join(title.itertext()))
            for element in root.iter()
            if (identifier := element.get("id") or element.get("{http://www.w3.org/XML/1998/namespace}id"))
            and (title := element.find("title")) is not None
        }

    def read(self) -> None:
        if self._root.tag in ("book", "article"):
            self._book = self._title(self._root) or self._title_in_info(self._root)
        self._open(self._root)
        self._section(self._root, 1)

    def _open(self, element: ElementTree.Element) -> None:
        self._outline = Outline()
        name = element.get("id") or ""
        document = self._document if element is self._root or not name else f"{self._document}#{name}"
        title = self._title(element) or self._title_in_info(element) or self._book
        book = "" if title == self._book else self._book
        self.pages.append(Page(document, title or name, self._outline.blocks, book))

    def _title(self, element: ElementTree.Element) -> str:
        for name in ("title", "refnamediv/refname"):
            if (title := element.find(name)) is not None:
                return heading_text(self._inline(title))
        return ""

    def _title_in_info(self, element: ElementTree.Element) -> str:
        for child in element:
            if child.tag.endswith("info") and (title := child.find("title")) is not None:
                return heading_text(self._inline(title))
        return ""

    def _section(self, element: ElementTree.Element, level: int) -> None:
        for child in element:
            tag = child.tag
            if tag in _PAGES:
                outer = self._outline
                self._open(child)
                self._section(child, 1)
                self._outline = outer
            elif tag in _SECTIONS:
                self._outline.heading(level, self._title(child) or "")
                self._section(child, level + 1)
            else:
                self._block(child, "paragraph", level)

    def _block(self, element: ElementTree.Element, kind: Kind, level: int) -> None:
        tag = element.tag
        if tag in _DROPPED or tag in ("title", "refnamediv"):
            return
        if tag in _PARAGRAPHS:
            self._paragraph(element, kind, level)
        elif tag in _CODE or (tag == "code" and kind != "row"):
            self._outline.add("code", code_text("".join(element.itertext())))
        elif tag in ("table", "informaltable"):
            self._table(element)
        elif tag in ("varlistentry", "glossentry", "qandaentry") or (tag == "item" and element.find("title") is not None):
            self._entry(element, level)
        elif tag in _ITEMS:
            self._children(element, "item", level)
        elif tag in ("formalpara", "example", "procedure", "steps", "list", "itemizedlist", "orderedlist"):
            if (title := self._title(element)) and tag != "example":
                self._outline.add("paragraph", title)
            self._children(element, kind, level)
        else:
            self._children(element, kind, level)

    def _children(self, element: ElementTree.Element, kind: Kind, level: int) -> None:
        for child in element:
            if child.tag in _SECTIONS:
                self._outline.heading(level, self._title(child))
                self._section(child, level + 1)
            else:
                self._block(child, kind, level)

    def _paragraph(self, element: ElementTree.Element, kind: Kind, level: int) -> None:
        """A paragraph's text; lists and code inside of it are blocks of their own."""
        inner = [child for child in element if _holds_blocks(child)]
        if not inner:
            self._outline.add(kind, collapse(self._inline(element)))
            return
        pieces = [element.text or ""]
        for child in element:
            if child in inner:
                self._outline.add(kind, collapse("".join(pieces)))
                self._block(child, kind, level)
                pieces = [child.tail or ""]
            else:
                pieces += [self._inline(child), child.tail or ""]
        self._outline.add(kind, collapse("".join(pieces)))

    def _entry(self, element: ElementTree.Element, level: int) -> None:
        """A term and what is said of it, in one line if that is short enough; a question and its answer."""
        heads = [child for child in element if child.tag in ("term", "glossterm", "title", "question")]
        term = "; ".join(text for head in heads if (text := collapse(self._inline(head))))
        before = len(self._outline.blocks)
        for child in element:
            if child not in heads:
                self._block(child, "item", level)
        said = self._outline.blocks[before:]
        if not term or not said:
            return
        first = said[0]
        glue = " " if term[-1] in ".?!:;" else ": "
        if first.kind == "code" or len(term) > 120:
            self._outline.blocks.insert(before, type(first)("paragraph", term, first.path))
        else:
            self._outline.blocks[before] = type(first)("item", f"{term}{glue}{first.text}", first.path)

    def _table(self, element: ElementTree.Element) -> None:
        if title := self._title(element):
            self._outline.add("paragraph", title)
        headings: list[str] = []
        rows: list[list[str]] = []
        in_head = {id(row) for head in element.iter("thead") for row in head.iter()}
        for row in element.iter():
            if row.tag not in ("row", "tr"):
                continue
            cells = [collapse(self._inline(cell)) for cell in row if cell.tag in ("entry", "td", "th")]
            if id(row) in in_head or (not headings and not rows and cells and all(cell.tag == "th" for cell in row)):
                headings = headings or cells
            else:
                rows.append(cells)
        for line in table_rows(headings, rows):
            self._outline.add("row", line)

    def _inline(self, element: ElementTree.Element) -> str:
        tag = element.tag
        if tag in _DROPPED or tag == "shortcut":
            return ""
        if tag in ("xref", "link") and not (element.text or "").strip() and not len(element):
            return self._reference(element)
        if tag in _JOINED and len(element):
            parts = (collapse(self._inline(child)) for child in element)
            return _JOINED[tag].join(part for part in parts if part)
        inner = (element.text or "") + "".join(self._inline(child) + (child.tail or "") for child in element)
        if tag in ("para", "p", "simpara", "listitem", "item", "li"):
            return f" {inner} "
        if tag == "quote":
            return f"“{inner.strip()}”"
        if tag == "ulink" and not inner.strip():
            return element.get("url") or ""
        return inner

    def _reference(self, element: ElementTree.Element) -> str:
        """The title of what a reference without words points to."""
        target = element.get("linkend") or element.get("xref") or ""
        if target in self._titles:
            return self._titles[target]
        page = self._folder / f"{target.partition('#')[0]}.page"
        if target and "/" not in target and page.is_file():
            found = re.search(r"<title>(.*?)</title>", page.read_text("utf-8", "replace"), re.S)
            return collapse(re.sub(r"<[^>]+>", "", found[1])) if found else UNRESOLVED
        return element.get("href") or UNRESOLVED


def _holds_blocks(element: ElementTree.Element) -> bool:
    tag = element.tag
    return tag in _CODE or tag in (
        "itemizedlist", "orderedlist", "variablelist", "list", "steps", "terms", "table", "informaltable", "note", "tip", "warning", "caution",
        "important", "procedure", "blockquote", "example", "informalexample", "para", "p", "segmentedlist", "qandaset",
    )  # fmt: skip

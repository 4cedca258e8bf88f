"""Texts without markup tags to blocks: plain text, reStructuredText, info, POD and dictionaries of dictd."""

from __future__ import annotations

import re
from collections.abc import Iterator

from retnet_core.distill.blocks import Outline, Page, code_text, collapse, heading_text, names, table_rows, without_title

UNDERLINES = "=-~^\"'*+#.:_`"
_UNDERLINE = re.compile(rf"^([{re.escape(UNDERLINES)}])\1{{2,}}\s*$")
_NUMBER = re.compile(r"^(?:\d+|[A-Z])(?:\.\d+)*\.?\s+(?=\S)")
_BULLET = re.compile(r"^\s*(?:[-*+•o]|\(?\d{1,2}[.)]|#\.|\(?[a-z][.)])\s+(?=\S)")
_GRID = re.compile(r"^\s*(?:\+[-=+]{4,}|=+(?:\s+=+)+\s*$|-+(?:\s+-+)+\s*$|\|.*\|\s*$)")
_ROLE = re.compile(r":[\w:+.-]+:`~?!?([^`<]*?)\s*(?:<[^`>]*>)?`")
_HYPERLINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?|`([^`]+)`__?")
_EMPHASIS = re.compile(r"(?<![\w*])(\*\*?)(?=\S)([^*\n]+?)(?<=\S)\1(?![\w*])")
LIST_LINE = 50  # characters: filled lines are longer, so lines all shorter are a list
_ADMONITIONS = names("note warning tip important hint caution attention danger seealso versionadded admonition")
_CODE = names("code code-block sourcecode parsed-literal literalinclude highlight prompt doctest")


def read_text(text: str, document: str) -> list[Page]:
    """Plain text or reStructuredText: headings by underlines or capitals, lists, literal blocks, simple tables."""
    outline = Outline()
    levels: dict[str, int] = {}
    chunks = list(_chunks(text))
    literal_below = -1  # after "::", deeper lines are code
    for place, chunk in enumerate(chunks):
        indent = min(map(_indent, chunk))
        if literal_below >= 0 and indent > literal_below:
            outline.add("code", code_text("\n".join(chunk)))
            continue
        literal_below = -1
        if chunk[0].lstrip().startswith(".. "):
            chunk, literal_below = _directive(chunk, indent, outline)
            if not chunk:
                continue
        chunk = _heading(chunk, levels, outline, place == 0 or not outline.first)
        if not chunk:
            continue
        if chunk[-1].rstrip().endswith("::"):
            literal_below = indent
            chunk[-1] = re.sub(r"\s*::$", ":", chunk[-1].rstrip())
            if chunk[-1].strip() == ":":
                chunk = chunk[:-1]
        _paragraphs(chunk, outline)
    name = document.rpartition("/")[2].partition(".")[0].replace("_", " ").replace("-", " ")
    return [without_title(Page(document, outline.first if _titled(outline) else name, outline.blocks))]


def _titled(outline: Outline) -> bool:
    """Whether the first heading stands above everything, as a title does."""
    return bool(outline.first) and all(block.path[:1] == (outline.first,) for block in outline.blocks)


def _chunks(text: str) -> Iterator[list[str]]:
    chunk: list[str] = []
    for line in text.expandtabs(8).replace("\r", "").replace("\f", "\n").split("\n"):
        if line.strip():
            chunk.append(line.rstrip())
        elif chunk:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _directive(chunk: list[str], indent: int, outline: Outline) -> tuple[list[str], int]:
    """What is left to read of a directive's first chunk, and the indent below which following chunks are left out as code (-1: none)."""
    match = re.match(r"\s*\.\.\s+([\w:-]+)::\s*(.*)", chunk[0])
    if not match:
        return [line for line in chunk[1:] if _indent(line) <= indent], -1  # a comment, label or substitution
    name = match[1].rpartition(":")[2]
    body = [line for line in chunk[1:] if not re.match(r"\s*:[\w-]+:", line)]
    if name in _ADMONITIONS:
        return ([" " * (indent + 3) + match[2]] if match[2] else []) + body, -1
    if name in _CODE:
        if body:
            outline.add("code", code_text("\n".join(body)))
        return [], indent
    return [line for line in body if _indent(line) <= indent], -1


def _heading(chunk: list[str], levels: dict[str, int], outline: Outline, first: bool) -> list[str]:
    """Opens the heading that a chunk begins with, and returns the rest."""
    if len(chunk) > 1 and _UNDERLINE.match(chunk[0]) and len(chunk) > 2 and _UNDERLINE.match(chunk[2]):
        outline.heading(levels.setdefault("over" + chunk[0][0], len(levels) + 1), _inline(chunk[1]))
        return chunk[3:]
    if len(chunk) > 1 and _UNDERLINE.match(chunk[1]) and not _UNDERLINE.match(chunk[0]) and len(chunk[0]) < 120:
        outline.heading(levels.setdefault(chunk[1][0], len(levels) + 1), _inline(chunk[0]))
        return chunk[2:]
    if len(chunk) == 1:
        line = chunk[0].strip()
        if _UNDERLINE.match(line):
            return []
        letters = sum(map(str.isalpha, line))
        capitals = line.isupper() and letters >= 4 and letters > len(line) / 2
        numbered = re.match(r"^\d+(\.\d+)*[.)]?\s+[A-Z]", line) and not line.endswith((".", ":", ",", ";"))
        if len(line) < 70 and _indent(chunk[0]) <= 2 and (capitals or numbered):
            outline.heading(levels.setdefault("capitals", len(levels) + 1), line.capitalize() if capitals else line)
            return []
        if first and not outline.blocks and len(line) < 70 and not line.endswith((".", ":", ",")) and line[0].isupper():
            outline.heading(1, line)
            levels.setdefault("title", 1)
            return []
    return chunk


def _paragraphs(chunk: list[str], outline: Outline) -> None:
    """List items, rows of a table, definition lists, or one paragraph of filled lines."""
    if any(_GRID.match(line) for line in chunk):
        _grid(chunk, outline)
        return
    if _looks_like_code(chunk):
        outline.add("code", code_text("\n".join(chunk)))
        return
    if len(chunk) > 2 and max(map(len, chunk)) < LIST_LINE and not any(map(_BULLET.match, chunk)):
        for line in chunk:
            outline.add("item", _inline(line))
        return
    items: list[tuple[bool, list[str]]] = []
    for line in chunk:
        if _BULLET.match(line):
            items.append((True, [_BULLET.sub("", line)]))
        elif items:
            items[-1][1].append(line)
        else:
            items.append((False, [line]))
    for listed, lines in items:
        if not listed and len(lines) > 1 and _indent(lines[1]) > _indent(lines[0]) and len(lines[0].strip()) < 80:
            term = _inline(lines[0]).rstrip(":")
            outline.add("item", f"{term}: {_inline(' '.join(lines[1:]))}")
        else:
            outline.add("item" if listed else "paragraph", _inline(_joined(lines)))


def _joined(lines: list[str]) -> str:
    """Filled lines as one: a word divided at a line's end stays divided where its hyphen belongs to it, which is all we can know."""
    return " ".join(line.strip() for line in lines)


def _looks_like_code(chunk: list[str]) -> bool:
    """Deep, ragged or full of marks: an example, a drawing or a listing of files."""
    text = "\n".join(chunk)
    marks = sum(not (c.isalnum() or c.isspace() or c in ".,;:'\"()-?!/") for c in text)
    shell = sum(bool(re.match(r"\s*[$#%>]\s", line)) for line in chunk)
    prompts = any(re.match(r"\s*\$ \S", line) for line in chunk)
    ruled = any(re.match(r"\s*[-=~]{3,}(?:\s+[-=~]{3,})+\s*$", line) for line in chunk)
    if prompts or ruled:
        return True
    ragged = len(chunk) > 1 and sum(bool(re.search(r"\S {3,}\S", line)) for line in chunk) > len(chunk) / 2
    return marks > len(text) * 0.12 or shell > len(chunk) / 2 or ragged


def _grid(chunk: list[str], outline: Outline) -> None:
    """A simple table of reStructuredText ("=== ===") as rows; grids and drawings as code."""
    rules = [place for place, line in enumerate(chunk) if re.match(r"^\s*=+(?:\s+=+)+\s*$", line)]
    if len(rules) < 2:
        outline.add("code", code_text("\n".join(chunk)))
        return
    starts = [match.start() for match in re.finditer(r"=+", chunk[rules[0]])]
    spans = list(zip(starts, [*starts[1:], 10_000], strict=True))

    def cells(line: str) -> list[str]:
        return [_inline(line[start:end]) for start, end in spans]

    head = [""] * len(spans)
    if len(rules) > 2:
        for line in chunk[rules[0] + 1 : rules[1]]:
            head = [" ".join(filter(None, pair)) for pair in zip(head, cells(line), strict=True)]
    rows: list[list[str]] = []
    for line in chunk[rules[-2] + 1 : rules[-1]]:
        if re.match(r"^\s*-[\s-]*$", line):
            continue
        row = cells(line)
        if row[0] or not rows:
            rows.append(row)
        else:
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], row, strict=True)]
    for line in table_rows(head, rows):
        outline.add("row", line)


def _inline(text: str) -> str:
    text = _ROLE.sub(lambda match: match[1], text)
    text = _HYPERLINK.sub(lambda match: match[1] or match[2], text)
    text = re.sub(r"``([^`]+)``", r"\1", text)
    text = _EMPHASIS.sub(r"\2", text)
    text = re.sub(r"(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)", r"\1", text)
    return collapse(re.sub(r"(?<=\w)\|(?=\s)|\|(\w+)\|", r"\1", text))


def read_info(text: str, document: str) -> list[Page]:
    """An info file: a page a chapter. Menus, indexes and the lines that lead from node to node are left out."""
    pages: list[Page] = []
    outline = Outline()
    for node in re.split(r"\x1f\n?", text):
        header, _, body = node.lstrip("\n").partition("\n")
        match = re.match(r"File: [^,]*,\s+Node: ([^,]*)", header)
        if not match or re.search(r"\bIndex\b", match[1]):
            continue
        body = re.sub(r"^\* Menu:.*?(?=^\S(?<!\*)|\Z)", "", body, flags=re.M | re.S)
        body = re.sub(r"^\* .*\n(?:\s{10,}.*\n)*", "", body, flags=re.M)
        body = re.sub(r"\*[Nn]ote\s+([^:]+?)::", r"\1", body)
        body = re.sub(r"\*[Nn]ote\s+([^:]+?):\s*[^.,]*[.,]", r"\1", body)
        found = re.match(r"\s*(\S[^\n]*)\n([*=.-])\2{2,}\n", body)
        level = "*=-.".index(found[2]) + 1 if found else 4
        if found:
            body = body[found.end() :]
            if level == 1 or not pages:
                outline = Outline()
                pages.append(Page(f"{document}#{match[1].strip()}", heading_text(_NUMBER.sub("", found[1])), outline.blocks))
            else:
                outline.heading(level, _NUMBER.sub("", found[1]))
        elif not pages:
            continue
        _info_body(body, outline)
    return [page for page in pages if page.blocks]


def _info_body(body: str, outline: Outline) -> None:
    for chunk in _chunks(body):
        indent = min(map(_indent, chunk))
        if re.match(r"\s*--? ", chunk[0]) and chunk[0].lstrip().startswith("-- "):
            term = collapse(chunk[0].lstrip()[3:])
            rest = collapse(" ".join(chunk[1:]))
            outline.add("item", f"{term}: {rest}" if rest else term)
        elif indent >= 8 or (indent >= 4 and len(chunk[0].strip()) < 60 and len(chunk) > 1 and not _BULLET.match(chunk[0])):
            outline.add("code", code_text("\n".join(chunk)))
        else:
            _paragraphs(chunk, outline)


def read_pod(text: str, document: str) -> list[Page]:
    """Perl's documentation: commands at the margin, indented lines are code."""
    outline = Outline()
    term = ""
    ignored = False
    for chunk in _chunks(text):
        first = chunk[0]
        command = re.match(r"=(\w+)\s*(.*)", first)
        if command:
            name, rest = command[1], _pod_inline(" ".join([command[2], *chunk[1:]]))
            ignored = name in ("begin", "for") or (ignored and name != "end")
            term = ""
            if name.startswith("head"):
                outline.heading(int(name[4:] or 1), rest.capitalize() if rest.isupper() else rest)
            elif name == "item":
                term = "" if re.fullmatch(r"[*o]?|\d+\.?", rest.strip()) else rest.removeprefix("* ")
        elif ignored or not re.search(r"^=\w", text, re.M):
            continue
        elif first[0].isspace():
            outline.add("code", code_text("\n".join(chunk)))
        else:
            said = _pod_inline(" ".join(chunk))
            outline.add("item" if term else "paragraph", f"{term}: {said}" if term and len(term) < 120 else said)
            term = ""
    name = document.rpartition("/")[2].removesuffix(".pod")
    return [Page(document, name, outline.blocks)]


def _pod_inline(text: str) -> str:
    text = re.sub(r"[A-Z]<<+\s+(.*?)\s+>>+", r"\1", text)
    for _ in range(3):  # codes nest
        text = re.sub(r"E<(\w+)>", lambda match: {"lt": "\x02", "gt": "\x03", "verbar": "|", "sol": "/"}.get(match[1], ""), text)
        text = re.sub(r"[XZ]<[^<>]*>", "", text)
        text = re.sub(r"L<([^<>]*)>", lambda match: _pod_link(match[1]), text)
        text = re.sub(r"[BCFIS]<([^<>]*)>", r"\1", text)
    return collapse(text.replace("\x02", "<").replace("\x03", ">"))


def _pod_link(target: str) -> str:
    words, bar, place = target.partition("|")
    if bar or re.match(r"https?:", words):
        return words
    page, _, section = place.partition("/") if bar else words.partition("/")
    section = section.strip('"')
    return f"“{section}” in {page}" if page and section else page or f"“{section}”"


def read_dictionary(text: str, document: str) -> list[Page]:
    """A dictionary of dictd, or the Jargon file: an entry a page, the headword at the margin over its indented text."""
    pages: list[Page] = []
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        head = collapse(re.sub(r"[{}]", "", head))
        if not body.strip() or head.startswith("00-database") or len(head) > 80:
            continue
        outline = Outline()
        for chunk in _chunks(re.sub(r"[{}]", "", body)):
            kind = "code" if _looks_like_code(chunk) else "paragraph"
            outline.add(kind, collapse(" ".join(chunk)) if kind == "paragraph" else code_text("\n".join(chunk)))
        pages.append(Page(f"{document}#{head}", head, outline.blocks))
    return pages

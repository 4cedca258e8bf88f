"""Manual pages to blocks, by way of groff: set on one very long line a paragraph, so that a line is a paragraph."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import takewhile

from retnet_core.distill.blocks import Outline, Page, code_text, collapse, names

SECONDS = 20  # for one page
LINE = 30000  # characters: longer than any paragraph
_RULE = re.compile(r"[│─┌┐└┘├┤┬┴┼]|-{6,}|_{6,}")
# These say nothing to a reader, or nothing in sentences.
_SKIPPED = frozenset(
    (
        *names(
            "synopsis author authors copyright colophon license licensing bugs history standards maintainer credits translation"
        ),
        *("see also", "reporting bugs", "conforming to", "acknowledgements", "acknowledgments"),
    )
)
_BULLET = re.compile(r"\s*[•·o*-]\s+(?=\S)")
_CODE_END = re.compile(r"[{};]\s*$|^\s*[})]")
_GAP = re.compile(r"(?<=\S)\s{2,}(?=\S)")


def installed() -> bool:
    return shutil.which("groff") is not None


def read_manual(source: bytes, document: str) -> list[Page]:
    """A page in man or mdoc; sections such as SYNOPSIS and AUTHORS are left out. Raises `ValueError` where groff fails."""
    if re.match(rb"\.so \S+\s*$", source.strip()):
        return []  # another page's name
    command = ["groff", "-mandoc", "-t", "-Kutf8", "-Tutf8", "-P-cbou", f"-rLL={LINE}n", "-rHY=0"]
    try:
        done = subprocess.run(command, input=source, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{document}: not set within {SECONDS} s") from None
    if done.returncode:
        raise ValueError(f"{document}: groff ended with {done.returncode}")
    name = re.sub(r"\.(gz|xz|bz2)$", "", document.rpartition("/")[2])
    name, _, section = name.rpartition(".")
    title = f"{name}({section})"
    outline = Outline()
    _read(done.stdout.decode("utf-8", "replace"), outline)
    return [Page(document, title, outline.blocks)]


def _read(text: str, outline: Outline) -> None:
    lines = [line.rstrip() for line in text.replace("\xa0", " ").split("\n")]
    while lines and not lines[0]:
        lines.pop(0)
    body = lines[1:]  # the page's head; its foot stands at the margin too and is no heading
    while body and not body[-1]:
        body.pop()
    body = body[:-1]
    skipped = False
    for group in _groups(body):
        indent = _indent(group[0])
        if indent == 0 and len(group[0]) < 80:
            skipped = group[0].strip().lower() in _SKIPPED
            outline.heading(1, _sentence_case(group[0]))
            group = group[1:]
        elif indent <= 4 and len(group[0]) < 100 and not group[0].endswith("."):
            outline.heading(2, group[0])
            group = group[1:]
        if group and not skipped:
            _group(group, outline)


def _groups(lines: list[str]) -> list[list[str]]:
    """Lines between empty lines; a heading ends what came before it."""
    groups: list[list[str]] = [[]]
    for line in lines:
        if not line:
            groups.append([])
        elif groups[-1] and _indent(line) == 0:
            groups.append([line])
        else:
            groups[-1].append(line)
    return [group for group in groups if group]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _group(group: list[str], outline: Outline) -> None:
    """A paragraph; a tag over its deeper text; or lines that stood as they are: code."""
    if any(_RULE.search(line) for line in group):
        outline.add("code", code_text("\n".join(group)))
        return
    if any(_CODE_END.search(line) for line in group):
        outline.add("code", code_text("\n".join(group)))
        return
    margin = _indent(group[0])
    tags = list(takewhile(lambda line: _indent(line) == margin and len(line.strip()) < 100, group))
    rest = group[len(tags) :]
    if rest and len(tags) <= 4 and all(_indent(line) > margin for line in rest):
        if len(rest) > 1 and max(map(len, rest)) < 90:
            outline.add("code", code_text("\n".join(group)))
            return
        outline.add("item", f"{'; '.join(map(collapse, tags))}: {collapse(rest[0])}")
        for line in rest[1:]:
            outline.add("item", collapse(line))
    elif len(group) > 1 and max(map(len, group)) < 110 and 2 * sum(bool(_BULLET.match(line)) for line in group) < len(group):
        outline.add("code", code_text("\n".join(group)))
    else:
        _lines(group, outline)


def _lines(group: list[str], outline: Outline) -> None:
    """Paragraphs, list items, and tags that stand on the line of what is said of them."""
    for line in group:
        bullet = _BULLET.match(line)
        gap = _GAP.search(line.strip())
        if bullet:
            outline.add("item", collapse(line[bullet.end() :]))
        elif gap and gap.start() <= 30:
            outline.add("item", f"{line.strip()[: gap.start()]}: {collapse(line.strip()[gap.end() :])}")
        else:
            outline.add("item" if _indent(line) > 8 else "paragraph", collapse(line))


def _sentence_case(text: str) -> str:
    return text.capitalize() if text.isupper() else text

"""Characters as Markdown that shows exactly them (CommonMark 0.31, and the tables, strikethrough and task lists of GFM).

What a page, a visitor or an owner wrote is no markup: `__init__` is a name, and `<img …>` is text about HTML. The widget draws
wording by the same rules, app/frontend/shared/literal.ts; both are held to tests/conversations/markdown_cases.json.
"""

from __future__ import annotations

import re

_INLINE = re.compile(r"(?P<mark>`+|\*+|_+)|[\[<~|]|&(?=#?\w+;)|\\(?=[!-/:-@\[-`{-~]|$)")
_RULE = re.compile(r"[-=:+*_|\s]+")  # a whole line of it underlines, divides or makes a table
_START = re.compile(r"#{1,6}(?=\s|$)|>")
_ITEM = re.compile(r"([-+*]|\d{1,9}[.)])(?=\s|$)")


def escape(text: str, sources: str | None = None) -> str:
    """Markdown that is drawn as `text`, white space aside. Neither HTML nor an image nor a link with another text comes out of it.

    With `sources`, the words that the writer had at hand, the writer's own emphasis, code and lists stay marks: those that do
    not stand in `sources` beside the same character. All other marks are characters either way.
    """
    return "\n".join(_line(line.strip(), sources) for line in text.splitlines())


def _line(line: str, sources: str | None) -> str:
    if line and _RULE.fullmatch(line):
        return f"\\{line[0]}{_inline(line[1:], None)}"
    if _START.match(line):
        return f"\\{line[0]}{_inline(line[1:], sources)}"
    if item := _ITEM.match(line):
        rest = line[item.end() :]
        if _stands(line, 0, item.end(), sources):
            return f"{item[0][:-1]}\\{item[0][-1]}{_inline(rest, sources)}"
        return f"{item[0]} {_line(rest.strip(), sources)}"
    return _inline(line, sources)


def _inline(line: str, sources: str | None) -> str:
    parts: list[str] = []
    at = 0
    while found := _INLINE.search(line, at):
        start, end = found.span()
        parts.append(line[at:start])
        at, mark = end, found[0]
        if not found["mark"]:
            parts.append(f"\\{mark}")
        elif mark[0] == "_" and line[start - 1 : start].isalnum() and line[end : end + 1].isalnum():
            parts.append(mark)  # within a word it marks nothing
        elif _stands(line, start, end, sources):
            parts.append("".join(f"\\{one}" for one in mark))
        elif mark[0] == "`":
            close = re.compile(rf"(?<!`){mark}(?!`)").search(line, end)
            at = close.end() if close else end  # in code nothing is a mark, not even a backslash
            parts.append(line[start:at] if close else "".join(f"\\{one}" for one in mark))
        else:
            parts.append(mark)
    return "".join(parts) + line[at:]


def _stands(line: str, start: int, end: int, sources: str | None) -> bool:
    """Whether the mark at [start, end) stands in the sources, with its neighbour on one side at least."""
    if sources is None:
        return True
    before, after = start > 0 and line[start - 1 : end], end < len(line) and line[start : end + 1]
    return bool((before and before in sources) or (after and after in sources))

"""A labelled set of questions as an owner writes it: JSONL, one question a line (docs/evaluate.md)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from retnet_core.distill.handwritten.rows import KINDS, UNANSWERED

OWN_KEYS = ("question", "turns", "answerable", "facts", "pages", "note")
# A hand-written row of retnet_core/distill/handwritten is a labelled question as it stands; these of its keys say nothing here.
ROW_KEYS = ("kind", "passages", "evidence", "answer", "style", "half")

ENDINGS = (".html", ".htm", ".md")  # of pages; an address is the same without


class SetError(ValueError):
    """A set that cannot be used; names the file, the line and what to do."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """`turns`: the visitor's messages, the last is the question; `facts`: regular expressions; `pages`: where a citation may lead."""

    line: int
    turns: tuple[str, ...]
    answerable: bool
    facts: tuple[str, ...]
    pages: tuple[str, ...]

    @property
    def question(self) -> str:
        return self.turns[-1]

    def held_by(self, text: str) -> bool:
        """Whether every fact is in the text; white space counts as one space, case not at all."""
        plain = " ".join(text.split())
        return all(re.search(fact, plain, re.IGNORECASE) for fact in self.facts)

    def cites(self, url: str) -> bool:
        """Whether an address leads to one of the pages: the same but for fragment and ending, or a whole end of it."""
        address = _plain(url)
        return any(address == page or address.endswith("/" + page) for page in map(_plain, self.pages))


def _plain(address: str) -> str:
    path = urldefrag(address).url.strip("/")
    return next((path.removesuffix(ending) for ending in ENDINGS if path.endswith(ending)), path)


def read_set(path: Path) -> list[Labelled]:
    """The questions of a file. Raises SetError with the line of the first that cannot be used, or when there is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SetError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SetError(f"{path.name}, line {line}: this is not text in UTF-8; save the file as UTF-8.") from error
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise SetError(f"{path.name}, line {number}: no JSON ({error}); write one object in braces a line.") from error
        try:
            found.append(_labelled(number, values))
        except SetError as error:
            raise SetError(f"{path.name}, line {number}: {error}") from None
    if not found:
        raise SetError(f"{path.name} holds no question; docs/evaluate.md shows how one is written.")
    return found


def _labelled(number: int, values: Any) -> Labelled:
    if not isinstance(values, Mapping):
        raise SetError('a question is an object in braces, such as {"question": "When do you open?", "facts": ["9"]}.')
    for name in values:
        if name not in OWN_KEYS + ROW_KEYS:
            near = difflib.get_close_matches(name, OWN_KEYS, 1)
            raise SetError(
                f"there is no key {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(OWN_KEYS)}.")
            )
    if ("question" in values) == ("turns" in values):
        raise SetError('give either "question" or "turns" (all messages of the visitor, the question last).')
    turns = _texts(values, "turns") if "turns" in values else _texts({"question": [values["question"]]}, "question")
    if not turns:
        raise SetError("there is no message in turns.")
    facts, pages = (_texts(values, name) if name in values else () for name in ("facts", "pages"))
    for fact in facts:
        try:
            re.compile(fact)
        except re.error as error:
            raise SetError(
                f"the fact {fact!r} is no regular expression ({error}); put a backslash before signs such as ( and +."
            ) from None
    answerable = values.get("answerable", values.get("kind") not in UNANSWERED)
    if "kind" in values and values["kind"] not in KINDS:
        raise SetError(f"there is no kind {values['kind']!r}; there are {', '.join(KINDS)}.")
    if not isinstance(answerable, bool):
        raise SetError("answerable is true or false.")
    if not answerable and (facts or pages):
        raise SetError("a question that the content does not answer has neither facts nor pages.")
    return Labelled(number, turns, answerable, facts, pages)


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = values[name]
    if not isinstance(found, list) or not all(isinstance(one, str) and one.strip() for one in found):
        raise SetError(f"{name} is {'a text that is not empty' if name == 'question' else 'a list of texts that are not empty'}.")
    return tuple(found)

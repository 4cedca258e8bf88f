"""Lists and tables to find a value in, in many layouts, with keys and values of wide vocabularies."""

from __future__ import annotations

import random
from dataclasses import dataclass

from retnet_core.distill.mixture.words import VALUE_KINDS, Words, value

_COLUMN_TABLE = """
    code price room phone extension city colour gate deadline table author version weight owner size contact shelf day time platform status fee
    length licence port track seat bus stop dose serial password rating capacity floor tutor fabric region voltage grade
"""
COLUMNS = _COLUMN_TABLE.split()
"""Headers of columns; those of `MEASURED` are never trained on."""
MEASURED = ("locker", "badge", "tariff", "berth", "batch")
PAIR_LAYOUTS = (
    "{key}: {value}", "{key} | {value}", "The {header} of {key} is {value}.", "- {key} = {value}", "{key} has the {header} {value}.",
    "{key}\t{value}", "* {key} ({value})", "{key} -> {value}", "{header} {value}: {key}", "{key}, {header} {value}", "For {key} it is {value}.",
    "{key}; {value}", "{key}: {header}: {value}",
)  # fmt: skip
MEASURED_LAYOUTS = ("{key} ... {value}", "{header} of {key} = {value}", "{key} – {value}", "{key} / {header}: {value}")
ASKED = (
    "What is the {header} of {key}?", "{header} of {key}?", "which {header} does {key} have", "tell me the {header} for {key}", "{key} {header}",
    "i need the {header} for {key}", "Can you look up {key}'s {header}?", "what's {key}'s {header}", "{key}: which {header}?",
    "do you know the {header} of {key}", "looking for {key}, what {header}",
)  # fmt: skip
MEASURED_ASKED = ("Which {header} belongs to {key}?", "please give me {header} of {key}")
ANSWERS = ("{value}.", "The {header} of {key} is {value}.", "{key}: {value}.", "It is {value}.")
TITLES = [
    "List",
    "Overview",
    "Directory",
    "Register",
    "Stock",
    "Timetable",
    "Data",
    "Table",
    "Index",
    "Prices",
    "Contacts",
    "Schedule",
]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A passage that holds a list, and a question about it."""

    title: str
    text: str
    question: str
    answer: str


def pairs(words: Words, drawn: random.Random, count: int, *, measuring: bool = False) -> Lookup:
    """`count` keys with a value each, one of them asked for. When measuring, the answer is the value alone."""
    header = drawn.choice(MEASURED if measuring else COLUMNS)
    keys = _keys(words, drawn, count)
    kind = 0 if measuring else drawn.randrange(VALUE_KINDS)
    values = _apart(lambda: value(words, drawn, kind), count)
    layout = drawn.choice(MEASURED_LAYOUTS if measuring else PAIR_LAYOUTS)
    lines = [layout.format(key=key, value=one, header=header) for key, one in zip(keys, values, strict=True)]
    sought = drawn.randrange(count)
    asked = drawn.choice(MEASURED_ASKED if measuring else ASKED).format(key=keys[sought], header=header)
    said = "{value}." if measuring else drawn.choice(ANSWERS)
    title = drawn.choice(TITLES) + drawn.choice(("", f" ({header})", f": {header}"))
    between = " " if lines[0].endswith(".") and drawn.random() < 0.5 else "\n"
    return Lookup(title, between.join(lines), asked, said.format(key=keys[sought], value=values[sought], header=header))


def table(words: Words, drawn: random.Random, rows: int) -> Lookup:
    """Rows as the product reads tables, "First cell: Header: value; Header: value", one cell asked for."""
    headers = drawn.sample(COLUMNS, drawn.randint(2, 4))
    keys = _keys(words, drawn, rows)
    kinds = [drawn.randrange(VALUE_KINDS) for _ in headers]
    cells = [[value(words, drawn, kind) for kind in kinds] for _ in keys]
    lines = [
        f"{key}: " + "; ".join(f"{header.capitalize()}: {cell}" for header, cell in zip(headers, row, strict=True))
        for key, row in zip(keys, cells, strict=True)
    ]
    row, column = drawn.randrange(rows), drawn.randrange(len(headers))
    names = {"key": keys[row], "header": headers[column], "value": cells[row][column]}
    return Lookup(
        drawn.choice(TITLES), "\n".join(lines), drawn.choice(ASKED).format(**names), drawn.choice(ANSWERS).format(**names)
    )


def _keys(words: Words, drawn: random.Random, count: int) -> list[str]:
    one = drawn.choice((words.name, words.name, words.thing))
    return _apart(lambda: one(drawn), count)


def _apart(made, count: int) -> list[str]:  # type: ignore[no-untyped-def]
    """So many texts, all different."""
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(made())
    return list(found)

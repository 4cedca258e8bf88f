"""The tables of docs/retnet.md that show results: each is known by its heading, and made anew from `benchmarks/results`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks._results import Missing, Results

PAGE = Path(__file__).parents[1] / "docs" / "retnet.md"
ABSENT = "–"


def cost() -> list[str]:
    """What a token and the memory take at each turn."""
    results = Results.read("turns-2-cores.json")
    lines = []
    for match, memory in results.matching(r"memory, (turn (\d+) \((\d+) tokens\))"):
        written, read = (_with_quartiles(results, f"a token {what}, {match[1]}") for what in ("written", "read"))
        sizes = f"{int(memory['value']):,} | {int(memory['peer_value']):,}"
        lines.append(f"| {int(match[2]):,} | {int(match[3]):,} | {written} | {read} | {sizes} |")
    return lines


def _with_quartiles(results: Results, name: str) -> str:
    try:
        low, high = (results.value(f"{name}, {edge} quartile") for edge in ("first", "third"))
        return f"{results.value(name):.2f} ({low:.2f}–{high:.2f})"
    except Missing:
        return ABSENT


def reading() -> list[str]:
    """Tokens read in 20 turns, from prefix states and without."""
    results = Results.read("turns-2-cores.json")
    lines = []
    for kind, named in (("grounded", "question and evidence in a fork"), ("chat", "plain chat")):
        for what in ("in turn 20", "in 20 turns"):
            row = f"{kind}, tokens read {what}"
            lines.append(f"| {named}, {what} | {results.value(row):,.0f} | {results.value(row, 'peer_value'):,.0f} |")
    return lines


LAYOUTS = {
    "list": "list, asked before and after",
    "late list": "list, asked after",
    "sentences": "sentences, asked after",
    "lines": "plain lines, asked after",
}
"""The layouts of `retort bench recall`, as the page names them."""


def recall() -> list[str]:
    """The right values of both models, per cent, with their intervals."""
    results = Results.read("recall.json")
    lines = []
    for layout, named in LAYOUTS.items():
        found = list(results.matching(rf"{layout}, (\d+) pairs, (\d+) tokens away: picked"))
        for match, row in sorted(found, key=lambda one: (int(one[0][2]), int(one[0][1]))):
            cells = []
            for key in ("value", "peer_value"):
                low, high = (results.value(f"{row['name']}, {end}", key) for end in ("from", "to"))
                cells.append(f"{row[key]:.0f} ({low:.0f}–{high:.0f})")
            lines.append(f"| {named} | {match[1]} | {int(match[2]):,} | {' | '.join(cells)} | {100 / int(match[1]):.0f} |")
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {
    "| turn | tokens before it | ms a token written (quartiles) | ms a token read (quartiles) | state, bytes | KV cache, bytes |": cost,
    "| tokens read | from the prefix state | whole conversation again |": reading,
    "| layout | pairs | tokens between | RetNet, % right | SmolLM2-135M-Instruct, % right | guessing, % |": recall,
}


def with_tables(page: str) -> str:
    """The page with every table made anew; one whose results are missing stays as it is. Raises `LookupError` for a heading that is not there."""
    lines = page.split("\n")
    for heading, make in TABLES.items():
        if heading not in lines:
            raise LookupError(f"docs/retnet.md has no table with the heading {heading!r}")
        try:
            rows = make()
        except Missing:
            continue
        first = lines.index(heading) + 2
        end = next(place for place in range(first, len(lines)) if not lines[place].startswith("|"))
        lines[first:end] = rows
    return "\n".join(lines)

"""docs/retnet.md shows the code as it is, and the pictures as the results draw them."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

from benchmarks._tables import with_tables
from retnet_core.config import RetNetConfig
from retnet_core.state import shapes_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "retnet.md").read_text()
QUOTE = re.compile(
    r"\[`(?P<name>\w+)`, lines? (?P<said>[\d–]+)\]\(\.\./(?P<path>[\w/.]+)#L(?P<first>\d+)(?:-L(?P<last>\d+))?\)\n\n"
    r"```python\n(?P<code>.*?)```\n",
    re.S,
)
QUOTES = list(QUOTE.finditer(PAGE))


def test_the_three_forms_and_their_decay_are_quoted() -> None:
    assert {quote["name"] for quote in QUOTES} >= {
        "retention_parallel", "retention_recurrent", "retention_chunkwise", "recurrent_step_", "gated_log_decay",
    }  # fmt: skip
    assert PAGE.count("```python") == len(QUOTES), "every block of code names the lines that it quotes"


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: quote["name"])
def test_a_quote_is_what_stands_at_its_lines(quote: re.Match[str]) -> None:
    source = (ROOT / quote["path"]).read_text()
    lines, wanted = source.splitlines(), quote["code"].splitlines()
    places = [
        start + 1
        for start in range(len(lines) - len(wanted) + 1)
        if textwrap.dedent("\n".join(lines[start : start + len(wanted)])).splitlines() == wanted
    ]
    function = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == quote["name"])
    assert function.end_lineno is not None
    places = [place for place in places if function.lineno < place <= function.end_lineno]
    assert places, f"{quote['name']} of {quote['path']} has no such lines any more"
    first, last = places[0], places[0] + len(wanted) - 1
    said = f"{first}–{last}" if last > first else f"{first}"
    assert (quote["said"], int(quote["first"]), int(quote["last"] or quote["first"])) == (said, first, last)


def test_links_and_pictures_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([\w./-]+?)(?:#[\w-]+)?\)", PAGE):
        assert (DOCS / target).resolve().is_file(), target
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in PAGE.splitlines() if line[:1] == "#"
    }
    for anchor in re.findall(r"\]\(#([\w-]+)\)", PAGE):
        assert anchor in headings, anchor


def test_the_bytes_that_the_page_states_are_the_shipped_shape_s() -> None:
    config = RetNetConfig()
    numbers = sum(numbers_in(shape) for shape in shapes_of(config))
    assert f"{4 * numbers:,} bytes" in PAGE
    # The base model: as many layers, three key–value heads of 64, keys and values in 16 bits.
    token = config.layers * 3 * 64 * 2 * 2
    assert f"{token:,} bytes a token" in PAGE and f"up to {4 * numbers // token} tokens" in PAGE


def numbers_in(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def test_the_tables_are_those_of_the_results() -> None:
    assert with_tables(PAGE) == PAGE, "docs/retnet.md shows other figures than benchmarks/results: python -m benchmarks._plot"


def test_the_pictures_are_drawn_from_the_results(tmp_path: Path) -> None:
    plot = pytest.importorskip("benchmarks._plot", reason="matplotlib is not installed")
    left = {line.partition(".svg")[0] for line in plot.draw(tmp_path)}
    drawn = {path.stem for path in tmp_path.glob("*.svg")}
    assert drawn | left == set(plot.PICTURES) and drawn
    for name in drawn:
        assert (tmp_path / f"{name}.svg").read_bytes() == (DOCS / "images" / f"{name}.svg").read_bytes(), (
            f"{name}.svg is not what its results draw: python -m benchmarks._plot"
        )
    shown = set(re.findall(r"images/(bench-[\w-]+)\.svg", PAGE))
    assert shown <= drawn, f"no results for {shown - drawn}"

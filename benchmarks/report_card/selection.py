"""Finding passages and sentences, and telling what is not answered: rankers side by side on the hand-written development rows."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._report import Row as ReportRow
from benchmarks.report_card.measures import Measured, measured
from benchmarks.report_card.outcomes import Outcome, outcome
from benchmarks.report_card.rankers import Hybrid, Occurrences, Product, Ranker, Summed, Vectors, Words
from benchmarks.report_card.sites import Question, questions, sites
from retnet_core.distill.handwritten.rows import HALVES, passages, rows
from workers.encoder import Encoder

QUICK = "dev-"
"""How the names of the small sites begin."""
THREADS = 2
TOLD_EVERY = 200  # questions
BUILT_IN = ("minilm", "bm25", "product", "ranks", "hybrid-bm25", "sum")


class Unknown(ValueError):
    """A ranker that is not there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--half", choices=HALVES, help="the half for choosing or the half for reporting; both by default")
    parser.add_argument("--package", action="append", help="only the questions of this site; several by repeating")
    parser.add_argument(
        "--ranker", action="append", metavar="NAME", help=f"{', '.join(BUILT_IN)}, or MODULE:CALLABLE; the first is the baseline"
    )
    parser.add_argument("--quick", action="store_true", help="the small sites alone")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the sites' vectors there for the next run")
    parser.add_argument(
        "--details", type=Path, metavar="FILE", help="write what became of every question, one JSON object a line"
    )
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the rows as JSON, to FILE or to stdout")


def rankers(names: Sequence[str], cache: Path | None) -> list[Ranker]:
    """The rankers of these names, those of one encoder sharing its vectors. Raises Unknown."""
    untuned = Vectors("MiniLM", Encoder.load(THREADS, untuned=True).encode, cache=cache)
    words = Words(untuned)
    made: dict[str, Callable[[], Ranker]] = {
        "minilm": lambda: untuned,
        "bm25": lambda: words,
        "product": lambda: Product("product", untuned, Occurrences()),
        "ranks": lambda: Hybrid("reciprocal ranks", untuned, Occurrences()),
        "hybrid-bm25": lambda: Hybrid("MiniLM + BM25", untuned, words.passage_scores),
        "sum": lambda: Summed("summed scores", untuned, words.passage_scores),
    }
    return [made[name]() if name in made else _foreign(name) for name in names]


def _foreign(name: str) -> Ranker:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise Unknown(
            f"There is no ranker {name!r} ({error}); there are {', '.join(BUILT_IN)}, or name one as MODULE:CALLABLE."
        ) from error
    if not isinstance(found, Ranker):
        raise Unknown(f"{name} makes a {type(found).__name__}, which is no Ranker of benchmarks.report_card.rankers.")
    return found


def compare(compared: Sequence[Ranker], asked: Sequence[Question]) -> dict[str, list[Outcome]]:
    """The outcomes by ranker, in the order of the questions."""
    found = {}
    for ranker in compared:
        ranker.prepare(asked)
        found[ranker.name] = []
        for number, question in enumerate(asked, start=1):
            found[ranker.name].append(outcome(ranker, question))
            if number % TOLD_EVERY == 0 or number == len(asked):
                print(f"{ranker.name}: {number} of {len(asked)} questions", file=sys.stderr, flush=True)
    return found


def run(given: argparse.Namespace) -> None:
    """Measure, print the table, and write what was asked for."""
    kept = [row for row in rows("dev", given.half) if not given.package or row.package in given.package]
    if given.quick:
        kept = [row for row in kept if row.package.startswith(QUICK)]
    asked = questions(kept, sites(passages().values()))
    if not asked:
        sys.exit("There is no such question: see --half and --package.")
    try:
        compared = rankers(given.ranker or BUILT_IN, given.cache)
    except Unknown as error:
        sys.exit(str(error))
    outcomes = compare(compared, asked)
    baseline = outcomes[compared[0].name]
    found = {name: measured(of, None if of is baseline else baseline) for name, of in outcomes.items()}
    tell(found, asked, len(kept), given.half, to_stderr=given.json == "-")
    if given.details:
        given.details.write_text("".join(_detail(name, one) for name, of in outcomes.items() for one in of), encoding="utf-8")
    if given.json:
        text = json.dumps([row.as_json() for row in report_rows(found)], indent=2, ensure_ascii=False) + "\n"
        print(text, end="") if given.json == "-" else Path(given.json).write_text(text, encoding="utf-8")


def tell(found: dict[str, list[Measured]], asked: Sequence[Question], whole: int, half: str | None, *, to_stderr: bool) -> None:
    """One line a measure, one column a ranker: value ± standard error, and below it the difference to the first."""
    console = Console(stderr=to_stderr, width=None if sys.stdout.isatty() else 60 + 26 * len(found), highlight=False)
    table = Table(title=f"Selection, {f'half {half}' if half else 'both halves'}", title_justify="left")
    table.add_column("measure", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("goal", justify="right")
    for name in found:
        table.add_column(name, justify="right")
    named = {ranker: {one.name: one for one in of} for ranker, of in found.items()}
    for name in dict.fromkeys(one.name for of in found.values() for one in of):
        cells = [named[ranker].get(name) for ranker in found]
        one = next(cell for cell in cells if cell is not None)
        goal = "" if one.goal is None else f"≥ {one.goal:g}"
        table.add_row(f"{name} ({one.unit})" if one.unit else name, str(one.count), goal, *map(_cell, cells))
    console.print(table)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(one.row.kind for one in asked).items())
    console.print(f"{len(asked)} questions ({kinds}); {whole - len(asked)} that rest on no passage are left out.", markup=False)
    console.print("± is the standard error over the questions; in brackets the difference to the first column and its error.")


def _cell(one: Measured | None) -> str:
    if one is None:
        return "–"
    digits = 3 if not one.unit else 1
    cell = f"{one.value:.{digits}f} ± {one.error:.{digits}f}"
    if one.difference is not None:
        cell += f" ({one.difference:+.{digits}f} ± {one.difference_error:.{digits}f})"
    return cell


def report_rows(found: dict[str, list[Measured]]) -> list[ReportRow]:
    """The rows that every benchmark writes; the first ranker is the peer of the others."""
    first, *_ = found
    peers = {one.name: one.value for one in found[first]}
    made = []
    for ranker, of in found.items():
        for one in of:
            peer = {} if ranker == first or one.name not in peers else {"peer": first, "peer_value": peers[one.name]}
            more = {"goal": one.goal, "at_least": True}
            made.append(ReportRow(f"{ranker}: {one.name}", one.value, one.unit, **peer, **more))
            made.append(ReportRow(f"{ranker}: {one.name}, standard error", one.error, one.unit, detail=True))
    return made


def _detail(ranker: str, one: Outcome) -> str:
    values = {
        "ranker": ranker, "row": one.row.id, "half": one.row.half, "kind": one.row.kind, "package": one.row.package,
        "turns": one.row.turns, "joined": one.joined, "first": one.first, "last": one.last, "facts": one.facts, "words": one.words,
        "answerability": one.answerability, "best": one.best, "sentences": [text for _, text in one.sentences],
    }  # fmt: skip
    return json.dumps(values, ensure_ascii=False) + "\n"

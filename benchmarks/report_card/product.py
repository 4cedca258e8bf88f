"""`retort eval`: a labelled set of questions put to the whole product over its API, and what its answers were worth."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.operate import Problem
from app.operate.ask import Answer, ask
from app.operate.client import Api, ApiProblem, Unreachable, connect
from app.operate.output import Output
from benchmarks._report import Report, median, quantile
from benchmarks.report_card.content import ingested
from benchmarks.report_card.labelled import Labelled, SetError, read_set

QUICK = 15  # questions
# Refusals of a moment (a limit, a full queue) are waited for; a machine that stays busy is an error of the question.
PASSING, TRIES, PAUSE_SECONDS = (429, 502, 503), 6, 3.0
TOLD_EVERY = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a question; `answer` is None when none came, and `failure` says why."""

    labelled: Labelled
    answer: Answer | None
    failure: str = ""

    @property
    def refused(self) -> bool:
        return self.answer is not None and bool(self.answer.message["refused"])

    @property
    def evidence(self) -> str:
        return " ".join(one["text"] for one in self._message.get("evidence") or [])

    @property
    def wording(self) -> str:
        """What stands above the evidence; a refusal's own words are no answer."""
        return "" if self.refused else self._message.get("wording") or ""

    @property
    def citations(self) -> list[str]:
        return [one["url"] for one in self._message.get("citations") or []]

    @property
    def _message(self) -> dict[str, Any]:
        return self.answer.message if self.answer else {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", required=True, type=Path, metavar="FILE", help="the questions, JSONL (docs/evaluate.md)")
    parser.add_argument("--assistant", metavar="SLUG", help="the assistant that is asked, by slug or id (guide by default)")
    parser.add_argument("--content", metavar="ADDRESS", help="instead: a website, or a folder of pages, read for this run alone")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} questions of the set, evenly taken")
    parser.add_argument(
        "--details", type=Path, metavar="FILE", help="write every question with its answer, one JSON object a line"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON on stdout, or write them to FILE")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="with --json: where the rows go")


def run(given: argparse.Namespace) -> None:
    """Ask everything and report. Whatever a person can mend is one line on stderr and exit code 1."""
    try:
        if given.assistant and given.content:
            raise Problem("Give --assistant or --content, not both.")
        labelled = read_set(given.set)
        if given.quick:
            labelled = labelled[:: max(1, -(-len(labelled) // QUICK))]
        output = Output(error=True)
        with (
            connect() as api,
            ingested(api, given.content, output) if given.content else nullcontext(given.assistant or "guide") as slug,
        ):
            asked = ask_all(api, labelled, slug, lambda text: output.line(text))
    except (Problem, SetError) as problem:
        sys.exit(f"retort: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
    report = Report(f"retort eval: {given.set.name}" + (" --quick" if given.quick else ""))
    measure(asked, report)
    if given.details:
        given.details.write_text("".join(json.dumps(_detail(one), ensure_ascii=False) + "\n" for one in asked), encoding="utf-8")
    report.finish(given)


def ask_all(
    api: Api, labelled: Sequence[Labelled], assistant: str, tell: Callable[[str], None] = lambda text: None
) -> list[Asked]:
    """Each question in a conversation of its own, one after the other, so that none waits for another.

    Raises Problem when the assistant is not there or nothing answers; what goes wrong with one question is its failure.
    """
    asked = []
    for number, one in enumerate(labelled, start=1):
        asked.append(_ask(api, one, assistant))
        if number % TOLD_EVERY == 0 or number == len(labelled):
            tell(f"{number} of {len(labelled)} questions")
    return asked


def _ask(api: Api, labelled: Labelled, assistant: str) -> Asked:
    conversation: str | None = None
    answer: Answer | None = None
    for turn in labelled.turns:
        for attempt in range(TRIES):
            try:
                answer = ask(api, turn, assistant=assistant, conversation=conversation)
                break
            except ApiProblem as problem:
                if problem.status in (401, 403, 404):
                    raise
                if problem.status not in PASSING or attempt == TRIES - 1:
                    return Asked(labelled, None, str(problem))
                time.sleep(PAUSE_SECONDS)
            except Unreachable:
                raise
            except Problem as problem:
                return Asked(labelled, None, str(problem))
        assert answer is not None
        conversation = answer.conversation_id
    return Asked(labelled, answer)


def measure(asked: Sequence[Asked], report: Report) -> None:
    """Rows for the report: facts, citations, refusals, latency."""
    answered = [one for one in asked if one.answer is not None]
    _facts([one for one in answered if one.labelled.answerable and one.labelled.facts], report)
    _citations([one for one in answered if one.labelled.answerable], report)
    _refusals(answered, report)
    for name, of in (
        (
            "first evidence or sentence",
            [one.answer.ttft_ms / 1000 for one in answered if one.answer and one.answer.ttft_ms is not None],
        ),
        ("whole answer", [one.answer.total_ms / 1000 for one in answered if one.answer]),
    ):
        report.add(f"{name}, median", median(of), "s")
        report.add(f"{name}, p95", quantile(of, 0.95), "s")
    failed = [one for one in asked if one.answer is None]
    report.add("questions without an answer", float(len(failed)), "", goal=0)
    for one in failed[:5]:
        report.notes.append(f"Line {one.labelled.line}: {one.failure}")
    yes = sum(one.labelled.answerable for one in asked)
    report.notes.append(f"{len(asked)} questions: {yes} that the content answers, {len(asked) - yes} that it does not.")


def _facts(asked: Sequence[Asked], report: Report) -> None:
    alone = _share([one.labelled.held_by(one.evidence) for one in asked])
    report.add("all facts in the evidence", alone, "%", note=_told(alone, len(asked), "questions"))
    peer = {"peer": "evidence alone", "peer_value": alone} if alone is not None else {}
    report.add("all facts in the wording", _share([one.labelled.held_by(one.wording) for one in asked]), "%", **peer)
    both = _share([one.labelled.held_by(f"{one.wording} {one.evidence}") for one in asked])
    report.add("all facts in what the visitor reads", both, "%", note=_told(both, len(asked), "questions"), **peer)
    worded = [one for one in asked if one.wording and one.labelled.held_by(one.evidence)]
    note = f"{len(worded)} answers with wording"
    report.add(
        "wording keeps the facts of its evidence", _share([one.labelled.held_by(one.wording) for one in worded]), "%", note=note
    )
    words = [float(len(f"{one.wording} {one.evidence}".split())) for one in asked if not one.refused]
    report.add("words that the visitor reads, median", median(words), "")


def _citations(asked: Sequence[Asked], report: Report) -> None:
    given = [one for one in asked if not one.refused]
    report.add("answers with a citation", _share([bool(one.citations) for one in given]), "%", note=f"{len(given)} answers")
    placed = [one for one in given if one.labelled.pages]
    if placed:
        right = [any(one.labelled.cites(url) for url in one.citations) for one in placed]
        report.add("answers with a citation of the right page", _share(right), "%", note=f"{len(placed)} answers")


def _refusals(asked: Sequence[Asked], report: Report) -> None:
    refused = [one for one in asked if one.refused]
    unanswered = [one for one in asked if not one.labelled.answerable]
    right = sum(not one.labelled.answerable for one in refused)
    report.add(
        "refusal precision", 100 * right / len(refused) if refused else None, "%", note=f"{right} of {len(refused)} refusals"
    )
    recall = 100 * right / len(unanswered) if unanswered else None
    report.add("refusal recall", recall, "%", note=f"{right} of {len(unanswered)} that the content does not answer")
    answerable = [one for one in asked if one.labelled.answerable]
    report.add("refused although the content answers", _share([one.refused for one in answerable]), "%")


def _share(values: Sequence[bool]) -> float | None:
    return 100 * sum(values) / len(values) if values else None


def _told(share: float | None, count: int, what: str) -> str:
    """How many there are, and the standard error of the share in per cent points."""
    return f"{count} {what}" + (f", ± {(share * (100 - share) / count) ** 0.5:.1f}" if share is not None else "")


def _detail(one: Asked) -> dict[str, Any]:
    labelled = one.labelled
    return {
        "line": labelled.line, "turns": labelled.turns, "answerable": labelled.answerable, "facts": labelled.facts,
        "refused": one.refused, "wording": one.wording, "evidence": one.evidence, "citations": one.citations,
        "facts_in_evidence": labelled.held_by(one.evidence), "facts_in_wording": labelled.held_by(one.wording),
        "ttft_ms": one.answer and one.answer.ttft_ms, "total_ms": one.answer and one.answer.total_ms, "failure": one.failure,
    }  # fmt: skip

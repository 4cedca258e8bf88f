"""`retort eval`: the file of questions, the content it reads, and what it computes of the answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.operate.ask import Answer
from app.operate.client import Api
from benchmarks._report import Report
from benchmarks.report_card.content import _address, pages_of
from benchmarks.report_card.labelled import Labelled, SetError, read_set
from benchmarks.report_card.product import Asked, ask_all, measure
from retnet_core.distill.handwritten.rows import FOLDER
from tests.ops.test_ask import EVENTS, EVIDENCE, Server, event, message


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_examples_of_the_documentation_are_a_set(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()
    (block,) = [block for block in page.split("```")[1::2] if block.strip().startswith("{")]
    first, second, third = read_set(written(tmp_path, *block.strip().splitlines()))
    assert first.held_by("Sundays from 10 to 4") and not first.held_by("open until 1030")
    assert first.cites("https://shop.example/opening-hours/#:~:text=10") and not first.cites(
        "https://shop.example/no-opening-hours"
    )
    assert first.cites("http://127.0.0.1:9/opening-hours.md#sunday") and not first.cites("https://shop.example/opening-hours/old")
    assert second.turns == ("do you take cards?", "and abroad ones?") and second.answerable
    assert not third.answerable


def test_hand_written_rows_are_a_set_as_they_stand():
    rows = read_set(FOLDER / "dev-1.jsonl")
    assert len(rows) == 162 and sum(not row.answerable for row in rows) == 23


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON"),
        ("[]", "an object in braces"),
        ('{"facts": ["a"]}', 'either "question" or "turns"'),
        ('{"question": "a", "turns": ["a"]}', 'either "question" or "turns"'),
        ('{"question": " "}', "question is a text"),
        ('{"question": 4}', "question is a text"),
        ('{"turns": []}', "no message"),
        ('{"turns": "a"}', "turns is a list"),
        ('{"question": "a", "fact": ["b"]}', "did you mean 'facts'"),
        ('{"question": "a", "colour": "b"}', "no key 'colour'"),
        ('{"question": "a", "facts": ["("]}', "no regular expression"),
        ('{"question": "a", "facts": [""]}', "not empty"),
        ('{"question": "a", "answerable": "no"}', "true or false"),
        ('{"question": "a", "answerable": false, "facts": ["b"]}', "neither facts nor pages"),
        ('{"question": "a", "kind": "riddle"}', "no kind 'riddle'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, said: str):
    with pytest.raises(SetError) as told:
        read_set(written(tmp_path, '{"question": "fine"}', "", line))
    assert str(told.value).startswith("set.jsonl, line 3: ") and said in str(told.value)


def test_a_file_that_is_no_set_is_named(tmp_path: Path):
    with pytest.raises(SetError, match="holds no question"):
        read_set(written(tmp_path, ""))
    with pytest.raises(SetError, match="cannot be read"):
        read_set(tmp_path / "none.jsonl")
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"question": "ok"}\n{"question": "caf\xe9"}\n')
    with pytest.raises(SetError, match="line 2: this is not text in UTF-8"):
        read_set(path)


def _asked(
    line: int, *, wording: str = "", evidence: str = "", refused: bool = False, url: str = "", seconds: float = 1, **label
) -> Asked:
    labelled = Labelled(line, ("q",), label.get("answerable", True), tuple(label.get("facts", ())), tuple(label.get("pages", ())))
    message = {
        "refused": refused, "wording": wording, "evidence": [{"text": evidence}] if evidence else [],
        "citations": [{"url": url}] if url else [],
    }  # fmt: skip
    return Asked(labelled, Answer("c", "m", ttft_ms=seconds * 100, total_ms=seconds * 1000, message=message))


def test_what_the_answers_are_worth():
    page = "https://docs.example/run#:~:text=x"
    asked = [
        _asked(1, wording="It is nine.", evidence="We open at nine.", facts=["nine"], url=page, pages=["run"], seconds=1),
        _asked(2, wording="Hello.", evidence="We open at nine.", facts=["NINE"], url=page, pages=["other"], seconds=2),
        _asked(3, wording="nine", evidence="ten", facts=["nine", "ten"], url=page, seconds=3),
        _asked(4, wording="I do not know nine.", refused=True, facts=["nine"], seconds=4),  # a refusal's own words hold nothing
        _asked(5, wording="No.", refused=True, answerable=False, seconds=5),
        _asked(6, wording="Yes.", evidence="We open.", answerable=False, seconds=6),
        _asked(7, evidence="We open.", seconds=7),  # without facts and citation
        Asked(Labelled(8, ("q",), True, ("x",), ()), None, "Too many requests"),
    ]
    report = Report("eval")
    measure(asked, report)
    rows = {row.name: row for row in report.rows}
    assert rows["all facts in the evidence"].value == 50
    assert rows["all facts in the wording"].value == 25
    assert rows["all facts in what the visitor reads"].value == 75
    assert rows["all facts in what the visitor reads"].peer_value == 50
    assert rows["wording keeps the facts of its evidence"].value == 50
    assert rows["answers with a citation"].value == 75
    assert rows["answers with a citation of the right page"].value == 50
    assert rows["refusal precision"].value == 50 and rows["refusal recall"].value == 50
    assert rows["refused although the content answers"].value == 20
    assert rows["first evidence or sentence, median"].value == 0.4 and rows["whole answer, p95"].value == 7
    assert rows["questions without an answer"].met is False
    assert "Line 8: Too many requests" in report.notes


def test_a_set_without_any_of_a_kind_leaves_those_rows_open():
    report = Report("eval")
    measure([_asked(1, evidence="We open.")], report)
    rows = {row.name: row.value for row in report.rows}
    assert rows["all facts in the evidence"] is None and rows["refusal precision"] is None and rows["refusal recall"] is None


# The API over a real line, as the tests of `retort ask` serve it.

DONE = event(4, "done", {"message": message("done", "It is red.")})


@contextmanager
def _serving(*streams: tuple[list[bytes], str]) -> Iterator[tuple[Server, Api]]:
    server = Server(list(streams))
    try:
        with Api(server.url, "rk_test") as api:
            yield server, api
    finally:
        server.server.shutdown()
        server.server.server_close()


def test_the_earlier_messages_are_asked_first_and_the_last_answer_counts():
    two = Labelled(1, ("what is on the shelf", "and its colour?"), True, ("red",), ())
    told: list[str] = []
    opened = json.dumps({"id": "c", "messages": [], "last_event_id": "0-0"}).encode()
    answered = ([EVENTS[1], DONE], "whole")
    with _serving(answered, ([opened], "whole"), answered) as (server, api):
        (asked,) = ask_all(api, [two], "guide", told.append)
    assert server.posted == 2 and told == ["1 of 1 questions"]
    assert asked.answer is not None and asked.wording == "It is red." and asked.evidence == EVIDENCE[0]["text"]


def test_a_question_that_fails_is_told_and_the_others_go_on():
    failed = event(4, "failed", {"message": message("failed") | {"error": "The model is away."}})
    one = Labelled(1, ("what colour",), True, ("red",), ())
    with _serving(([failed], "whole"), ([DONE], "whole")) as (_, api):
        first, second = ask_all(api, [one, one], "guide")
    assert (first.answer, first.failure) == (None, "The model is away.")
    assert second.wording == "It is red."


def test_a_folder_becomes_a_site_that_links_to_every_page(tmp_path: Path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a b.md").write_text("# Opening *hours*\n\n| day | time |\n| --- | --- |\n| Sunday | 10 |\n")
    (tmp_path / "deep" / "one.html").write_text("<title>One</title><p>1</p>")
    (tmp_path / "left.txt").write_text("no page")
    assert set(pages_of(tmp_path)) == {"/", "/a%20b.md", "/deep/one.html"}
    admitted: list[str] = []
    monkeypatch.setattr("benchmarks.report_card.content.admit", admitted.append)
    with _address(str(tmp_path)) as url:
        assert admitted == [url]
        first = httpx.get(url, trust_env=False)
        assert 'href="/a%20b.md"' in first.text and 'href="/deep/one.html"' in first.text
        page = httpx.get(url + "a%20b.md", trust_env=False)
        assert "<td>10</td>" in page.text and page.headers["content-type"].startswith("text/html")
        assert httpx.get(url + "left.txt", trust_env=False).status_code == 404


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "app.cli", "eval", *arguments], capture_output=True, text=True, timeout=60)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RETORT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RETORT_API_KEY", "rk_none")
    wrong = _command("--set", str(written(tmp_path, '{"question": "a"}', '{"question": 1}')))
    assert wrong.returncode == 1
    assert wrong.stderr == "retort: set.jsonl, line 2: question is a text that is not empty.\n"
    away = _command("--set", str(written(tmp_path, '{"question": "a"}')))
    assert away.returncode == 1 and away.stderr.startswith("retort: Nothing answers at http://127.0.0.1:9")
    assert len(away.stderr.splitlines()) == 1
    both = _command("--set", str(written(tmp_path, '{"question": "a"}')), "--assistant", "x", "--content", "y")
    assert both.stderr == "retort: Give --assistant or --content, not both.\n"
    nothing = _command("--set", str(written(tmp_path, '{"question": "a"}')), "--content", str(tmp_path / "none"))
    assert "neither a folder nor an address" in nothing.stderr

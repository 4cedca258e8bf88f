"""The hand-written questions: each row holds to its passages, and bringing in more changes nothing of those that are there."""

from __future__ import annotations

import json
import lzma
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.bring_in import HELD_OUT, bring_in
from retnet_core.distill.handwritten.rows import FOLDER, Passage, Row, RowError, faults, key, passage_id, passages, rows, twins

EVERY = [(part, row) for part in handwritten.PARTS for row in rows(part)]


def test_every_row_holds_to_its_passages():
    wrong = {f"{part} {row.id} {row.question}": found for part, row in EVERY if (found := faults(row, passages()))}
    assert not wrong


def test_no_question_is_there_twice():
    for part in handwritten.PARTS:
        counts = Counter(key(row) for row in rows(part))
        assert [question for question, count in counts.items() if count > 1] == []


def test_training_rows_rest_on_no_development_passage_and_the_others_on_nothing_else():
    assert {(part, passages()[one].dev) for part, row in EVERY for one in row.passages} == {("core", False), ("dev", True)}


def test_nothing_comes_from_what_is_held_out():
    assert not {one.package for one in passages().values()} & set(HELD_OUT)
    assert not [one.id for one in passages().values() if "perlfaq" in one.title.lower()]


def test_a_passage_is_named_by_what_it_says():
    assert [one.id for one in passages().values() if one.id != passage_id(one.package, one.title, one.text)] == []


def test_there_is_a_licence_line_for_every_package():
    table = (FOLDER / "README.md").read_text().split("## Licences")[1]
    listed = set(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE))
    ours = {handwritten.OWN_PAGES}
    missing = {one.package for one in passages().values()} - listed - ours
    assert {name for name in missing if not name.startswith("dev-")} == set()


def test_the_halves_are_alike_in_kind_and_package():
    strata = Counter((row.kind, row.package, row.half) for row in rows("dev"))
    assert {half for _, _, half in strata} == set(handwritten.HALVES)
    for kind, package, _ in strata:
        first, second = (strata[kind, package, half] for half in handwritten.HALVES)
        assert abs(first - second) <= 1, (kind, package)
    first, second = (len(rows("dev", half)) for half in handwritten.HALVES)
    assert abs(first - second) <= 0.05 * (first + second)
    assert all(row.half is None for row in rows("core"))


# What the checker finds, on a row of its own.

BAKERY = Passage(
    "shop:1", "shop", "Rye Lane Bakery: hours", "We open at 7 on weekdays.\nOn Sunday we’re closed, except in May.", True
)
CAKES = Passage("shop:2", "shop", "Rye Lane Bakery: cakes", "A cake must be ordered 3 days before.", True)
KNOWN = {one.id: one for one in (BAKERY, CAKES)}
GOOD = Row(
    "answerable", ("shop:1",), ("when can i get bread on a tuesday",), ("We open at 7 on weekdays.",),
    "The shop opens at 7 on weekdays.", ("\\b7\\b", "weekdays"), ("when",),
)  # fmt: skip


def test_a_good_row_has_no_faults():
    assert faults(GOOD, KNOWN) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evidence": ("We open at 8 on weekdays.",)}, "not verbatim"),
        ({"evidence": ("We open at 7  on weekdays.",)}, "not verbatim"),
        ({"answer": "It opens at 7 on weekdays, at 9 on Saturday."}, "number 9"),
        ({"answer": "At 7."}, "words"),
        ({"facts": ("\\b8\\b",)}, "does not match the answer"),
        ({"facts": ("shop opens",)}, "does not match the evidence"),
        ({"turns": ("is it open at 7",)}, "matches the question"),
        ({"facts": ("(",)}, "no regular expression"),
        ({"facts": ()}, "no facts"),
        ({"passages": ("shop:3",)}, "shop:3 is not there"),
        ({"passages": ()}, "no passage"),
        ({"kind": "near-miss"}, "neither evidence"),
        ({"kind": "follow-up"}, "messages before"),
        ({"kind": "two-passages", "passages": ("shop:1", "shop:2")}, "each of two passages"),
        ({"kind": "riddle"}, "none of"),
        ({"turns": (" ",)}, "no question"),
    ],
)
def test_a_fault_is_said(change: dict, said: str):
    assert said in "; ".join(faults(replace(GOOD, **change), KNOWN))


def test_what_the_visitor_told_is_evidence_of_a_memory_row():
    row = Row(
        "memory",
        (),
        ("my order is 5512, is it late?", "what number did i give"),
        ("my order is 5512",),
        "You gave order 5512.",
        ("5512",),
        (),
    )
    assert faults(row, {}) == []
    assert "not verbatim" in faults(replace(row, evidence=("my order is 5513",)), {})[0]


def test_near_identical_passages_are_twins_and_others_of_the_same_topic_are_not():
    words = "choose the folder in the tree and press the right button of the mouse to see what can be done with it"
    one, same, other_site = (Passage(name, package, "t", text, True) for name, package, text in (
        ("a", "p", words), ("b", "p", words + " now"), ("c", "q", words),
    ))  # fmt: skip
    other = Passage("d", "p", "t", "press the right button of the mouse on a message, not in the tree, to see its headers", True)
    found = twins([one, same, other_site, other])
    assert found == {"a": {"a", "b"}, "b": {"a", "b"}, "c": {"c"}, "d": {"d"}}


# Bringing in.

Write = Callable[[str, list[dict]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "from").mkdir()

    def written(name: str, values: list[dict]) -> Path:
        path = tmp_path / "from" / name
        text = "".join(json.dumps(one) + "\n" for one in values)
        path.write_bytes(lzma.compress(text.encode()) if name.endswith(".xz") else text.encode())
        return path

    return written


def _grounded(number: int, passage: Passage, *, dev: int = 1) -> dict:
    return {"id": number, "pkg": passage.package, "title": passage.title, "text": passage.text, "dev": dev, "qa": []}


def _row(question: str, *, passages: list = [7], evidence: str = "On Sunday we're closed, except in May.") -> dict:  # noqa: B006
    return {
        "kind": "answerable", "passages": passages, "turns": [question], "evidence": [evidence],
        "answer": "It is closed, except in May.", "facts": ["\\bMay\\b"], "style": [],
    }  # fmt: skip


def test_rows_come_in_with_ids_of_their_own_and_evidence_as_it_stands(tmp_path: Path, write: Write):
    grounded = write("grounded-1.jsonl.xz", [_grounded(7, BAKERY), _grounded(8, CAKES), _grounded(9, CAKES, dev=0)][:2])
    bring_in([write("dev-1.jsonl", [_row("bread at the weekend?")])], [grounded], [], leave_out=False, folder=tmp_path)
    (row,) = rows("dev", folder=tmp_path)
    named = passage_id("shop", BAKERY.title, BAKERY.text)
    assert row.passages == (named,)
    assert row.evidence == ("On Sunday we’re closed, except in May.",)  # the page's own apostrophe
    assert len(passages(tmp_path)) == 2  # the whole development site, also what no row rests on


def test_a_faulty_row_brings_nothing_in_unless_it_shall_be_left_out(tmp_path: Path, write: Write):
    grounded = write("grounded-1.jsonl.xz", [_grounded(7, BAKERY)])
    path = write("dev-1.jsonl", [_row("bread at the weekend?"), _row("sunday?", evidence="We are closed.")])
    with pytest.raises(RowError, match=r"dev-1\.jsonl:2: the evidence is not verbatim"):
        bring_in([path], [grounded], [], leave_out=False, folder=tmp_path)
    assert not list(tmp_path.glob("*.jsonl*"))
    told = bring_in([path], [grounded], [], leave_out=True, folder=tmp_path)
    assert "dev-1.jsonl:2" in told[0]
    assert [row.question for row in rows("dev", folder=tmp_path)] == ["bread at the weekend?"]


def test_a_training_row_may_not_rest_on_a_development_passage(tmp_path: Path, write: Write):
    grounded = write("grounded-1.jsonl.xz", [_grounded(7, BAKERY)])
    with pytest.raises(RowError, match="is a development passage"):
        bring_in([write("core-1.jsonl", [_row("bread?")])], [grounded], [], leave_out=False, folder=tmp_path)


def test_a_later_wave_leaves_the_halves_as_they_are_and_takes_pages_of_its_own(tmp_path: Path, write: Write):
    grounded = write("grounded-1.jsonl.xz", [_grounded(7, BAKERY)])
    first = [_row(f"question {number}?") for number in range(7)]
    bring_in([write("dev-1.jsonl", first)], [grounded], [], leave_out=False, folder=tmp_path)
    before = {row.id: row.half for row in rows("dev", folder=tmp_path)}
    page = {"id": "w-1", "pkg": "dev-shop", "title": BAKERY.title, "text": BAKERY.text}
    unused = {**page, "id": "w-2", "text": "We also sell jam."}
    pages = write("dev-2-pages.jsonl", [page, unused])
    second = [_row(f"other {number}?", passages=["w-1"]) for number in range(5)]
    bring_in([write("dev-2.jsonl", second)], [], [pages], leave_out=False, folder=tmp_path)
    after = {row.id: row.half for row in rows("dev", folder=tmp_path)}
    assert before.items() <= after.items() and len(after) == 12
    assert Counter(Counter((row.package, row.half) for row in rows("dev", folder=tmp_path)).values()) == {4: 1, 3: 2, 2: 1}
    assert {one.package: one.dev for one in passages(tmp_path).values()} == {"shop": True, "dev-shop": True}
    assert len(passages(tmp_path)) == 3


def test_what_is_held_out_is_not_brought_in(tmp_path: Path, write: Write):
    grounded = write("grounded-1.jsonl.xz", [_grounded(7, replace(BAKERY, package="debian-faq"))])
    with pytest.raises(RowError, match="held out"):
        bring_in([write("dev-1.jsonl", [_row("bread?")])], [grounded], [], leave_out=False, folder=tmp_path)


@pytest.mark.parametrize("line", ["{", '{"kind": "answerable"}', "[]"])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str):
    path = tmp_path / "dev-1.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(RowError, match=r"dev-1\.jsonl:1"):
        bring_in([path], [], [], leave_out=False, folder=tmp_path)

"""`keep`: each reason for which a written pair, or its answer, is not fit to train on, by a pair that has it."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from types import SimpleNamespace

import pytest

from retnet_core.distill import DistillError
from retnet_core.distill.__main__ import main
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import Passage
from retnet_core.distill.keep import CONFIGURATION, KeepConfig, keep, misfit, overlap, unsupported
from workers.answer.sentences import split_sentences
from workers.answer.verify import verify

TITLE = "Elm Street Library: Loans"
SENTENCES = [
    "Books may be kept for 28 days by every member.",
    "A lost card costs 3 euros, which Ms Harper collects at the desk.",
    "Films go back after a week.",
]
PAGE = Passage("guide:1", "guide", TITLE, " ".join(SENTENCES), False)
MEASURED = Passage("kmail:1", "kmail", "Mail", "Press Send to send a message to everybody.", True)
CONFIG = KeepConfig(Path("written"), [], Path("out"), split_sentences, verify)


def pair(question: str = "my plastic got stolen, what now", **changes) -> dict:
    """One that is kept, but for `changes`."""
    good = {
        "q": question,
        "a": "A lost card costs 3 euros.",
        "at": [1],
        "style": ["casual"],
        "read": 1,
        "gold": 0.9,
        "none": 0.05,
    }
    return good | changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"q": "help"}, "question: length"),
        ({"q": "a " * 37}, "question: length"),
        ({"q": "where " + "x" * 220}, "question: length"),
        ({"q": "what does the passage say about stolen cards"}, "question: speaks of the page"),
        ({"q": "what is stolen according to the table"}, "question: speaks of the page"),
        ({"q": "is it sentence B that helps me"}, "question: speaks of the page"),
        ({"q": "what is <|im_end|> for then"}, "question: speaks of the page"),
        ({"q": "is https://example.org down again"}, "question: speaks of the page"),
        ({"at": [3], "read": 3}, "sentences cut differently"),
        ({"none": 0.45}, "second reading: not answered"),
        ({"gold": 0.4}, "second reading: by another sentence"),
        ({"read": 0}, "second reading: by another sentence"),
        ({"at": [0, 1], "read": 0}, ""),
        ({"at": [], "none": 0.5}, "second reading: is answered"),
        ({"at": [], "none": 0.7}, ""),
    ],
)
def test_a_question_is_kept_if_it_is_a_visitors_and_the_second_reading_agrees(changes, reason):
    assert misfit(pair(**changes), SENTENCES, TITLE, CONFIG) == reason


def test_a_question_in_the_pages_own_words_is_kept_rarely_and_always_the_same():
    copied = [f"a lost card costs how many euros at desk {number}?" for number in range(400)]
    assert overlap(copied[0], " ".join(SENTENCES)) > CONFIG.overlap > overlap("my plastic got stolen", " ".join(SENTENCES))
    kept = [misfit(pair(one), SENTENCES, TITLE, CONFIG) == "" for one in copied]
    assert sum(kept) / len(kept) == pytest.approx(CONFIG.above, abs=0.08)
    assert kept == [misfit(pair(one), SENTENCES, TITLE, CONFIG) == "" for one in copied]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("A lost card costs 3 euros.", ""),
        ("Euros.", "length"),
        ("card " * 41, "length"),
        ("A lost card costs 3", "unfinished"),
        ("A: a lost card costs 3 euros.", "unfinished"),
        ("A lost card costs 30 euros.", "a number"),
        ("A lost card costs 3 euros at 4.", "a number"),
        ("Ask Ms Winter about a lost card.", "a name"),
        ("Telephone our friendly colleagues tomorrow morning.", "words of its own"),
        ("What does a lost card cost?", "the question again"),
        ("A lost card never costs 3 euros.", "the verifier"),
    ],
)
def test_an_answer_is_kept_if_its_evidence_has_its_numbers_names_and_words_and_the_verifier_lets_it_pass(answer, reason):
    assert unsupported(answer, [SENTENCES[1]], TITLE, "what does a lost card cost", CONFIG) == reason


def test_a_number_or_name_that_the_visitor_used_is_no_invention():
    asked = "does Winter have to pay 7 euros for a lost card"
    assert unsupported("Not 7 euros: a lost card costs 3 euros, also for Winter.", [SENTENCES[1]], TITLE, asked, plain()) == ""


def plain() -> KeepConfig:
    return KeepConfig(Path("written"), [], Path("out"), split_sentences)


def refuse_everything(sentence: str, evidence: list[str], *, question: str, topic: str) -> SimpleNamespace:
    """A verifier; says what it was given when it refuses."""
    assert evidence == [SENTENCES[1]] and topic == TITLE and question and sentence
    return SimpleNamespace(supported=False)


def whole_text(text: str) -> list[tuple[int, int]]:
    """A splitter that never splits."""
    return [(0, len(text))]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(handwritten, "passages", lambda: {MEASURED.id: MEASURED})
    with lzma.open(tmp_path / "passages.jsonl.xz", "wt") as file:
        record = {"id": PAGE.id, "package": PAGE.package, "title": PAGE.title, "text": PAGE.text}
        file.write(json.dumps(record) + "\n")
        file.write(json.dumps(record | {"id": "x:1", "split": "dev"}) + "\n")
    return tmp_path


def written(folder: Path, *found: tuple[str, list[dict]], part: int = 0, tail: str = "") -> None:
    own = folder / f"written/part-{part}"
    own.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"job": 0, "passages": one.split(), "lost": 0, "pairs": pairs}) for one, pairs in found]
    (own / "pairs-00000.jsonl").write_text("\n".join(lines) + "\n" + tail)


def settings(folder: Path, **changes: object) -> Path:
    values = {
        "written": f"{folder}/written",
        "passages": [f"{folder}/passages.jsonl.xz"],
        "out": f"{folder}/pairs.jsonl.xz",
        "sentences": "workers.answer.sentences:split_sentences",
        **changes,
    }
    path = folder / "keep.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    return path


def kept(folder: Path) -> list[dict]:
    with lzma.open(folder / "pairs.jsonl.xz", "rt") as file:
        return [json.loads(line) for line in file]


def test_the_command_counts_why_and_writes_what_is_kept(folder, capsys):
    again = pair("My plastic got stolen. What now?")
    near_miss = {"q": "do you sell stamps here", "at": [], "style": ["plain"], "read": -1, "gold": 0, "none": 0.9}
    alone = pair("who do I pay for a new one", a="Ask Ms Winter for 9 euros.")
    written(folder, ("guide:1", [pair(), near_miss, pair("help")]), ("kmail:1", [pair("and that one, how does it go")]))
    written(folder, ("guide:1", [again, alone]), ("x:1", [pair("who else is there")]), part=1, tail='{"job": 7, "pa')
    assert main(["keep", "--config", str(settings(folder)), "--processes", "2"]) == 0
    counts = {line.split(maxsplit=1)[1]: int(line.split()[0]) for line in capsys.readouterr().out.splitlines()}
    assert counts == {
        "kept, with its answer": 1,
        "kept, unanswered": 1,
        "kept, question alone": 1,
        "question: length": 1,
        "question twice": 1,
        "answer: a number": 1,
        "passage of a development site": 2,
        "a line that was cut off": 1,
    }
    first, second, third = kept(folder)
    assert first == {
        "passages": ["guide:1"], "q": pair()["q"], "at": [1], "style": ["casual"], "gold": 0.9, "none": 0.05, "a": pair()["a"],
    }  # fmt: skip
    assert second["at"] == [] and "a" not in second
    assert third["q"] == alone["q"] and "a" not in third
    assert not (folder / "pairs.jsonl.xz.partial").exists()


def test_the_same_words_after_another_message_are_another_question(folder):
    written(
        folder, ("guide:1", [pair("and for films?", before="how long for books"), pair("and for films?", before="what do I pay")])
    )
    keep(KeepConfig.read(settings(folder)), 1)
    assert [one["before"] for one in kept(folder)] == ["how long for books", "what do I pay"]


def test_the_verifier_and_the_splitter_are_those_that_the_configuration_names(folder):
    written(folder, ("guide:1", [pair()]))
    here = "tests.retnet_core.distill.test_keep"
    assert keep(KeepConfig.read(settings(folder, verifier=f"{here}:refuse_everything")), 1)["answer: the verifier"] == 1
    counts = keep(KeepConfig.read(settings(folder, sentences=f"{here}:whole_text")), 1)
    assert counts == {"sentences cut differently": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"golden": 0.5}, "keep.toml: golden is unknown; known are written, passages, out"),
        ({"gold": "half"}, "keep.toml: gold is 'half'; expected float"),
        ({"passages": "passages.jsonl"}, "keep.toml: 'passages.jsonl' is no list of paths"),
        ({"verifier": "workers.answer.verify:no_such"}, "'workers.answer.verify:no_such' is no function"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(folder, changes, message):
    with pytest.raises(DistillError, match=message):
        KeepConfig.read(settings(folder, **changes))


def test_what_is_missing_is_named(folder, capsys):
    assert main(["keep", "--config", str(settings(folder)), "--processes", "1"]) == 1
    assert f"error: there are no pairs in {folder}/written: `write` makes them" in capsys.readouterr().err
    written(folder, ("guide:2", [pair()]))
    assert main(["keep", "--config", str(settings(folder)), "--processes", "1"]) == 1
    assert "pairs rest on the passage 'guide:2', which is in none of the files" in capsys.readouterr().err
    packed = folder / "passages.jsonl.xz"
    packed.write_bytes(packed.read_bytes()[:60])
    assert main(["keep", "--config", str(settings(folder)), "--processes", "1"]) == 1
    assert "passages.jsonl.xz is no file of passages" in capsys.readouterr().err


def test_the_shipped_configuration_names_the_products_own_checks():
    config = KeepConfig.read(CONFIGURATION)
    assert (config.sentences, config.verifier) == (split_sentences, verify)

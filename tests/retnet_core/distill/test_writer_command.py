"""`write`, from a GGUF and passages to files of pages, conversations and pairs: what is asked, kept, and done only once."""

from __future__ import annotations

import json
import lzma
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from retnet_core.distill import DistillError
from retnet_core.distill.__main__ import main
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import Passage, Row, passage_id
from retnet_core.distill.write import Amounts, GeneratorConfig, WriteConfig, page_record
from retnet_core.distill.writer import jobs
from retnet_core.distill.writer.files import LINES, Files, whole_records
from retnet_core.distill.writer.jobs import Desk, Request, asks_of, made
from retnet_core.distill.writer.qwen import Qwen
from tests.retnet_core.distill import tiny_writer
from workers.answer.sentences import split_sentences

SITE = "guide"


def passage(number: int, package: str = SITE, dev: bool = False) -> Passage:
    """One sentence to ask of, and one that is too short."""
    title, text = f"Loans - Part {number}", f"A member may keep book {number} for 28 days. No more."
    return Passage(passage_id(package, title, text), package, title, text, dev)


KNOWN = [*(passage(number) for number in range(4)), passage(0, "dev-site", dev=True)]
GATHERED = [passage(number) for number in range(10, 22)]
ROWS = (
    Row("answerable", (KNOWN[0].id,), ("how long",), (KNOWN[0].text[:-9],), "28 days.", ("28",), ("terse",)),
    Row("near-miss", (KNOWN[1].id,), ("do you sell stamps",), (), "", (), ("yesno",)),
    Row("memory", (), ("I am Ann", "who am I?"), ("I am Ann",), "You are Ann.", ("Ann",), ("plain",)),
)
# Bytes are tokens here, and this is enough for pages of ten sentences.
SETTINGS = """
seed = 3
writer = "{folder}/writer.gguf"
passages = ["{folder}/passages.jsonl.xz"]
out = "{folder}/written"
sentences = "workers.answer.sentences:split_sentences"
{more}
[adapter]
rank = 4
rate = 1e-6
epochs = 1.0
tokens = 2048
[generator]
rows = 8
positions = 400
most = 16
batch = 4
[amounts]
pages = {pages}
conversations = {conversations}
asks = 2
passes = {passes}
"""


@pytest.fixture(scope="module")
def writer(tmp_path_factory) -> Path:
    return tiny_writer.write_gguf(tmp_path_factory.mktemp("writer") / "writer.gguf")


@pytest.fixture
def folder(tmp_path, writer, monkeypatch) -> Path:
    """With the writer, passages of a site, and few rows written by hand."""
    monkeypatch.setattr(handwritten, "passages", lambda: {one.id: one for one in KNOWN})
    monkeypatch.setattr(handwritten, "rows", lambda part: ROWS)
    (tmp_path / "writer.gguf").symlink_to(writer)
    # `data` marks what is only measured on; the last two are never to be asked of.
    lines = [{"id": one.id, "package": one.package, "title": one.title, "text": one.text} for one in GATHERED]
    measured = [passage(30, "kmail"), KNOWN[-1]]
    lines += [
        {"id": one.id, "package": one.package, "title": one.title, "text": one.text, "split": "dev"} for one in measured[:1]
    ]
    lines += [{"id": one.id, "package": one.package, "title": one.title, "text": one.text} for one in measured[1:]]
    with lzma.open(tmp_path / "passages.jsonl.xz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return tmp_path


def settings(folder: Path, pages: int = 0, conversations: int = 0, passes: int = 1, more: str = "") -> Path:
    path = folder / "write.toml"
    path.write_text(SETTINGS.format(folder=folder, pages=pages, conversations=conversations, passes=passes, more=more))
    return path


def write(path: Path, *more: str) -> int:
    return main(["write", "--config", str(path), "--device", "cpu", "--makers", "0", *more])


def records(folder: Path, kind: str, part: str = "part-*") -> list[dict]:
    return [one for path in sorted((folder / "written").glob(f"{part}/{kind}-*.jsonl")) for one in whole_records(path)]


def asked_of(folder: Path) -> list[str]:
    return sorted(record["passages"][0] for record in records(folder, "pairs"))


TRAINED = sorted(one.id for one in [*KNOWN, *GATHERED] if not one.dev)


def test_pages_conversations_and_pairs_are_written_and_each_question_is_placed_by_a_second_reading(folder, capsys):
    assert write(settings(folder, pages=24, conversations=24), "--untuned") == 0
    pages, conversations, pairs = (records(folder, kind) for kind in ("pages", "conversations", "pairs"))
    # About every third begins as what was asked for; what does not is no page and no conversation.
    title, text = tiny_writer.TITLE.strip(), tiny_writer.PAGE
    assert 0 < len(pages) < 24 and all((one["title"], one["text"], one["form"]) == (title, text, "prose") for one in pages)
    assert all(one["id"] == passage_id("written-pages", title, text) and one["package"] == "written-pages" for one in pages)
    turns = [tiny_writer.TOLD[2:].strip(), tiny_writer.ASKED[2:].strip()]
    assert 0 < len(conversations) < 24 and all(one == {"turns": turns, "answer": "Your card is 4471."} for one in conversations)
    # Every passage once, none of a development site, and the written page too.
    assert asked_of(folder) == sorted({*TRAINED, pages[0]["id"]})
    found = [pair for record in pairs for pair in record["pairs"]]
    answered = [pair for pair in found if pair["at"]]
    assert answered and len(answered) < len(found)
    for pair in answered:
        assert (pair["q"], pair["a"]) == (tiny_writer.QUESTION[3:].strip(), tiny_writer.ANSWER[2:].strip())
        assert pair["at"] == [0] and pair["read"] == 0 and pair["style"]
    for pair in found:
        assert pair["gold"] == (pytest.approx(1 - pair["none"], abs=0.002) if pair["at"] else 0)
        assert 0.05 < pair["none"] < 0.45
    assert all(record["lost"] for record in pairs if not record["pairs"])
    said = capsys.readouterr().out
    assert "pairs: for example" in said and "logits differ from the plain form by 0.000" in said


def test_a_command_that_was_killed_goes_on_without_doing_a_job_twice(folder):
    path = settings(folder, pages=6, passes=2)
    write(path, "--untuned")
    everything = asked_of(folder)
    assert all(everything.count(one) == 2 for one in everything)
    (file,) = (folder / "written/part-0").glob("pairs-*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [json.loads(line)["passages"][0] for line in lines[:9]]
    file.write_bytes(b"".join(lines[:9]) + lines[9][: len(lines[9]) // 2])
    # The pages that were turned down are tried again, and a page more changes nothing for the passages.
    write(path, "--untuned")
    assert asked_of(folder) == everything
    assert file.read_bytes().startswith(b"".join(lines[:9]))
    assert [json.loads(line)["passages"][0] for line in file.read_bytes().splitlines()][:9] == kept
    before = file.read_bytes()
    write(path, "--untuned")
    assert file.read_bytes() == before


def test_pairs_of_an_earlier_version_and_of_other_processes_count_as_done(folder):
    other = folder / "written/part-5"
    other.mkdir(parents=True)
    glued = json.dumps({"job": 3, "passages": [TRAINED[0]]})[:20] + json.dumps({"job": 3, "passages": [TRAINED[0]], "pairs": []})
    lines = [json.dumps({"job": place, "passages": [one], "lost": 0, "pairs": []}) for place, one in enumerate(TRAINED[1:5])]
    (other / "pairs-00000.jsonl").write_text("\n".join([*lines, glued]) + "\n")
    write(settings(folder), "--untuned")
    mine = [record["passages"][0] for record in records(folder, "pairs", "part-0")]
    assert sorted(mine) == sorted([TRAINED[0], *TRAINED[5:]])


def test_nothing_is_begun_when_the_time_is_up(folder):
    assert write(settings(folder, pages=4), "--untuned", "--seconds", "0") == 0
    assert not records(folder, "pages") and not records(folder, "pairs")


def test_the_writer_is_tuned_once_and_the_adapters_are_found_again(folder, capsys):
    path = settings(folder)
    write(path)
    adapter = folder / "written/adapter.safetensors"
    made_at, said = adapter.stat().st_mtime_ns, capsys.readouterr().out
    assert "samples of hand-written rows" in said and "tuning the writer: step" in said
    write(path)
    assert adapter.stat().st_mtime_ns == made_at and "tuning" not in capsys.readouterr().out
    adapter.write_bytes(adapter.read_bytes()[:200])
    assert write(path) == 1
    assert "adapter.safetensors does not fit this writer and rank; remove it" in capsys.readouterr().err
    path.write_text(path.read_text().replace("positions = 400", "positions = 32"))
    adapter.unlink()
    assert write(path) == 1
    assert "no hand-written row fits into 32 positions" in capsys.readouterr().err


TWO = """
import hashlib, sys
from pathlib import Path
from retnet_core.distill.handwritten import rows as handwritten
from tests.retnet_core.distill import test_writer_command as here
handwritten.passages = lambda: {one.id: one for one in here.KNOWN}
handwritten.rows = lambda part: here.ROWS
from retnet_core.distill.write import WriteConfig, Writing
from retnet_core.training.processes import Processes
processes = Processes.join("cpu")
writing = Writing(WriteConfig.read(Path(sys.argv[1])), processes, float("inf"))
writing.run(tuned=True)
digest = hashlib.sha256()
for layer in writing.network.layers:
    digest.update(layer.down.numpy().tobytes() + layer.queries_keys_values.numpy().tobytes())
(writing.folder / "digest").write_text(digest.hexdigest())
processes.leave()
"""


def test_two_processes_tune_one_writer_and_share_the_passages(folder, monkeypatch):
    # Runs of two passages, so that there is something to share.
    (folder / "two.py").write_text("import retnet_core.distill.write as it; it.RUN = 2\n" + TWO)
    path = settings(folder, pages=12, more="")
    # A sample is a batch, so that the processes learn from different ones in each step.
    path.write_text(path.read_text().replace("rate = 1e-6", "rate = 1e-4").replace("tokens = 2048", "tokens = 1"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    ended = subprocess.run(
        [sys.executable, *command, str(folder / "two.py"), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    one, two = ((folder / f"written/part-{rank}/digest").read_text() for rank in (0, 1))
    assert one == two
    shares = [{record["passages"][0] for record in records(folder, "pairs", f"part-{rank}")} for rank in (0, 1)]
    written = {record["id"] for record in records(folder, "pages")}
    assert not (shares[0] & shares[1]) - written
    assert sorted((shares[0] | shares[1]) - written) == TRAINED and all(len(share - written) > 5 for share in shares)
    # One process alone goes on after both, and finds nothing left to ask of.
    before = asked_of(folder)
    write(settings(folder))
    assert asked_of(folder) == before


def test_what_is_asked_depends_on_the_passage_alone_and_other_processes_make_the_same(writer):
    _, tokenizer = Qwen.load(writer, "cpu", dtype=__import__("torch").float32)
    desk = Desk(tokenizer, split_sentences, 3, 600, seed=1)
    passages = [*KNOWN, *GATHERED] * 6
    requests = [Request(number, number % 3, one, passages[number - 1]) for number, one in enumerate(passages)]
    here = list(made(desk, iter(requests), 0))
    assert list(made(desk, iter(requests), 1)) == here
    again = desk.job(Request(99, 0, KNOWN[0]))
    assert again is not None and again.asks == here[0].asks and again.ids[: again.read] == here[0].ids[: again.read]
    two = [job for job in here if len(job.passages) == 2]
    assert two and all(job.asks[0].places == (0, 2) and job.sentences == 4 for job in two)
    shifted = Desk(tokenizer, split_sentences, 3, 600, seed=2)
    assert [job.asks for job in shifted.jobs(requests)] != [job.asks for job in here]
    assert desk.job(Request(0, 0, passage(1).__class__("x:1", "x", "T", "Too short.", False))) is None
    assert Desk(tokenizer, split_sentences, 3, 40, seed=1).jobs(requests) == []


def test_asks_are_of_sentences_that_say_something_and_one_in_ten_pages_has_no_near_miss():
    shuffled = random.Random(0)
    drawn = [asks_of([1, 2, 5], 4, shuffled) for _ in range(2000)]
    assert {place for asks in drawn for ask in asks for place in ask.places} == {1, 2, 5}
    assert all(ask.places in ((1,), (2,), (5,), (1, 2), ()) for asks in drawn for ask in asks)
    share = sum(not asks[-1].places for asks in drawn) / len(drawn)
    assert share == pytest.approx(jobs.UNANSWERED, abs=0.03)
    assert all(sum(not ask.places for ask in asks) <= 1 for asks in drawn)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("Title\n" + "word " * 60, False),
        ("Title\ntoo short", True),
        ("Title\n" + "word " * 300, True),
        ("Title\n" + ("a row of the table\n" * 20), True),
        ("\n\n" + "word " * 60, True),  # no title, but one line
        ("T" * 121 + "\n" + "word " * 60, True),
    ],
)
def test_what_is_no_page_is_not_kept(text, complete):
    assert page_record("Title\n" + "word " * 60, True)
    assert page_record(text, complete) is None


def test_files_go_on_where_they_ended_and_lose_only_the_line_that_was_cut_off(tmp_path):
    files = Files(tmp_path, "pairs")
    files.append([{"job": number} for number in range(LINES + 3)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs-00000.jsonl", "pairs-00001.jsonl"]
    with (tmp_path / "pairs-00001.jsonl").open("a") as file:
        file.write('{"job": 1')
    again = Files(tmp_path, "pairs")
    assert again.count == LINES + 3
    again.append([{"job": "é"}])
    assert [one["job"] for one in again.read()] == [*range(LINES + 3), "é"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "seed = 3\nlearning_rate = 1", "write.toml: learning_rate is unknown; known are writer, passages"),
        ("seed = 3", 'seed = "three"', "write.toml: seed is 'three'; expected int"),
        ("rank = 4", "ranks = 4", r"write.toml: \[adapter\]: ranks is unknown; known are rank, rate"),
        ("batch = 4", "batch = 9", r"write.toml: \[generator\]: rows is 8 and batch 9"),
        ("most = 16", "most = 400", r"\[generator\]: most is 400 and positions 400"),
        ("asks = 2", "asks = 2.5", r"\[amounts\]: asks is 2.5; expected int"),
        ("split_sentences", "no_such", "'workers.answer.sentences:no_such' is no function that can be imported"),
        ("workers.answer.sentences:split_sentences", "no.such:one", "'no.such:one' is no function that can be imported"),
        ("workers.answer.sentences:split_sentences", "retnet_core.gguf:BLOCK", "is 32, which can't be called"),
        ("seed = 3", "seed = = 3", "write.toml can't be read"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_is_named(tmp_path, old, new, message):
    path = settings(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DistillError, match=message):
        WriteConfig.read(path)


def test_a_missing_key_a_missing_file_and_the_shipped_configuration(tmp_path):
    path = settings(tmp_path)
    path.write_text("\n".join(line for line in path.read_text().split("\n") if not line.startswith("writer")))
    with pytest.raises(DistillError, match=r"write\.toml: writer is missing"):
        WriteConfig.read(path)
    with pytest.raises(DistillError, match="can't be read"):
        WriteConfig.read(tmp_path / "none.toml")
    from retnet_core.distill.write import CONFIGURATION

    read = WriteConfig.read(CONFIGURATION)
    assert (read.generator, read.amounts) == (GeneratorConfig(), Amounts())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:200], "passages.jsonl.xz is no file of passages"),
        (lambda data: lzma.compress(b'{"id": "a:1", "package": "a"}\n'), "is no file of passages: line 1 lacks 'title'"),
        (lambda data: lzma.compress(b"[1, 2]\n"), "is no file of passages: line 1 is no object"),
        (lambda data: b"plain text", "passages.jsonl.xz is no file of passages"),
    ],
)
def test_a_damaged_file_of_passages_is_named(folder, capsys, damage, message):
    path = settings(folder)
    (folder / "passages.jsonl.xz").write_bytes(damage((folder / "passages.jsonl.xz").read_bytes()))
    assert write(path, "--untuned") == 1
    assert message in capsys.readouterr().err


def test_a_writer_of_another_kind_is_named(folder, capsys):
    (folder / "writer.gguf").unlink()
    assert write(settings(folder)) == 1
    assert "error: the writer can't be loaded: " in capsys.readouterr().err
    (folder / "writer.gguf").write_bytes(tiny_writer.gguf({"general.architecture": "llama"}, {}))
    assert write(settings(folder)) == 1
    assert "holds 'llama'; the writer must be a qwen2" in capsys.readouterr().err

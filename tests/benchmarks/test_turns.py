"""The turns benchmark counts what goes through the model, and would notice what is read twice."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.turns import Meter, Turns, quartiles, rounds, turns
from retnet_core import Engine, Request, Tokenizer
from retnet_core.gguf import Gguf, find_base_model
from tests.retnet_core.tiny import tiny_model

SECONDS = 60


def test_the_meter_counts_every_id_read_and_written_once() -> None:
    model = tiny_model()
    engine = Engine(model, slots=2, prefill_chunk=8, threads=1)
    engine.start()
    try:
        with Meter(model) as meter:
            read = engine.submit(Request(list(range(1, 31)))).wait(SECONDS)
            written = engine.submit(Request([1, 2], read.state, max_new_tokens=5, stop_ids=())).wait(SECONDS)
        assert meter.rows == read.prompt_tokens + written.prompt_tokens + len(written.ids) == 37
        before = meter.rows
        engine.submit(Request([1, 2, 3])).wait(SECONDS)
        assert meter.rows == before, "a closed meter counts no more"
    finally:
        engine.close()


@pytest.mark.parametrize(("read", "expected", "rows"), [(11, 10, 11), (10, 10, 11), (9, 10, 9)])
def test_what_is_read_twice_or_not_at_all_ends_the_benchmark(read: int, expected: int, rows: int) -> None:
    with pytest.raises(SystemExit, match="were read of 10"):
        Turns._nothing_twice(None, "chat", read, expected, rows)  # type: ignore[arg-type]


def test_turns_are_sections_of_the_documentation_asked_for_and_quoted() -> None:
    file = Gguf(find_base_model())
    try:
        tokenizer = Tokenizer.from_gguf(file)
    finally:
        file.close()
    made = list(islice(turns(tokenizer), 1000))
    assert len({tuple(turn.question) for turn in made}) > 100
    for turn in made:
        question, grounded = tokenizer.decode(turn.question), tokenizer.decode(turn.grounded)
        assert question in grounded and grounded.endswith("<|im_start|>assistant\n[")
        answer = tokenizer.decode(turn.answer).removeprefix("<|im_start|>assistant\n").removesuffix("<|im_end|>\n")
        assert answer[:60] in grounded


def test_rounds_measure_everything_equally_often_and_never_in_one_order() -> None:
    order: list[str] = []

    def measuring(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = rounds(12, {name: (lambda name=name: measuring(name)) for name in "abc"})
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys("abc", 12)
    passes = {tuple(order[start : start + 3]) for start in range(0, len(order), 3)}
    assert len(passes) > 2 and all(set(one) == set("abc") for one in passes)
    assert min(min(values) for values in found.values()) > 3, "the first round only warms up"
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.0, 2.0, 3.0)

"""The writer of training pairs: its network against itself in other forms, its adapters, and the layouts it writes in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import tokenizers
import torch
from tokenizers import AddedToken, models, pre_tokenizers

from retnet_core.distill.writer import tasks
from retnet_core.distill.writer.adapter import AdapterConfig, Sample, forward, make_batches, mean_loss, tune
from retnet_core.distill.writer.generator import Generator, KernelError, Prompt, Written
from retnet_core.distill.writer.jobs import Job
from retnet_core.distill.writer.qwen import Layer, Qwen, QwenConfig
from retnet_core.distill.writer.second import SecondReader
from retnet_core.distill.writer.tasks import Ask, Page, Pair
from retnet_core.training.processes import Processes
from tests.retnet_core.distill import tiny_writer

CONFIG = QwenConfig(layers=3, width=24, heads=4, key_value_heads=2, feed_forward=40, vocabulary=50, rotary_base=1e4, epsilon=1e-6)
END = 1
ALONE = Processes(0, 1, torch.device("cpu"))


def tiny(seed: int = 0) -> Qwen:
    torch.manual_seed(seed)

    def matrix(outer: int, inner: int) -> torch.Tensor:
        return torch.randn(outer, inner) / inner**0.5

    wide = (CONFIG.heads + 2 * CONFIG.key_value_heads) * CONFIG.head
    layers = [
        Layer(
            torch.rand(24) + 0.5,
            matrix(wide, 24),
            torch.randn(wide),
            matrix(24, 24),
            torch.rand(24) + 0.5,
            matrix(80, 24),
            matrix(24, 40),
        )
        for _ in range(CONFIG.layers)
    ]
    return Qwen(CONFIG, layers, matrix(50, 24) * 4, torch.ones(24))


def whole(network: Qwen, ids: Sequence[int]) -> torch.Tensor:
    """Logits at every place of one text."""
    with torch.no_grad():
        return network.logits(forward(network, torch.tensor([list(ids)]), None)[0])


def test_reading_in_pieces_at_another_rows_place_gives_what_reading_at_once_gives():
    network = tiny()
    generator = Generator(network, 4, 32, 8, end=[END])
    texts = [[5, 9, 3, 7, 8, 2, 4], [6, 6, 11]]
    generator.extend([texts[0][:4], texts[1][:1]], [3, 1], [0, 0])
    hidden = generator.extend([texts[0][4:], texts[1][1:]], [3, 1], [4, 1])
    for place, text in enumerate(texts):
        assert torch.allclose(network.logits(hidden[place]), whole(network, text)[-1], atol=1e-4)


def test_what_is_written_at_almost_no_temperature_is_the_likeliest_and_ends_at_the_end_token():
    network = tiny(3)
    generator = Generator(network, 3, 40, 12, end=[END], temperature=1e-4, min_p=0.5)
    prompts = {number: [2 + number, 7, 30 - number, 4 + number % 5] for number in range(8)}
    written = {}
    for batch in generator.write(iter([Prompt(key, ids) for key, ids in prompts.items()]), batch=2, until=time.time() + 60):
        written |= {one.key: one for one in batch}
    assert sorted(written) == sorted(prompts)
    for key, ids in prompts.items():
        expected: list[int] = []
        while len(expected) < 12 and END not in expected:
            expected.append(int(whole(network, ids + expected)[-1].argmax()))
        complete = END in expected
        assert written[key].ids == (expected[:-1] if complete else expected)
        assert written[key].complete is complete


def test_a_row_that_was_handed_out_can_be_read_against_before_it_is_filled_again():
    network = tiny(5)
    generator = Generator(network, 2, 48, 6, end=[END])
    prompts = {number: [number + 2, 9, 17, 21, number + 3] for number in range(6)}
    for batch in generator.write(iter([Prompt(key, ids) for key, ids in prompts.items()]), batch=2, until=time.time() + 60):
        question = [12, 13, 14]
        hidden = generator.extend([question] * len(batch), [one.slot for one in batch], [3] * len(batch))
        for one, row in zip(batch, hidden, strict=True):
            assert torch.allclose(network.logits(row), whole(network, prompts[one.key][:3] + question)[-1], atol=1e-4)


def test_nothing_new_is_begun_after_the_time_is_up_and_what_was_begun_is_finished():
    generator = Generator(tiny(), 2, 32, 4, end=[END])
    prompts = iter([Prompt(number, [3, 4, 5]) for number in range(50)])
    written = [one for batch in generator.write(prompts, batch=2, until=time.time() - 1) for one in batch]
    assert len(written) == 2


def test_the_check_refuses_a_generator_whose_kernels_compute_something_else():
    generator = Generator(tiny(), 2, 32, 4, end=[END])
    assert generator.check([[3, 4, 5, 6, 7], [9, 8, 7, 6]]) < 1e-3
    generator.angles = (generator.angles[0], -generator.angles[1])
    plain = generator.extend

    def broken(texts, slots, past):
        found = plain(texts, slots, past)
        generator.angles = (generator.angles[0], -generator.angles[1])
        return found

    generator.extend = broken  # type: ignore[method-assign]
    with pytest.raises(KernelError, match="differ from the plain form"):
        generator.check([[3, 4, 5, 6, 7], [9, 8, 7, 6]])


def test_adapters_learn_the_targets_and_merging_them_changes_nothing_more():
    network = tiny(1)
    samples = [Sample([number, 7, 3], [number + 1, END]) for number in range(4, 30)]
    before = float(mean_loss(network, samples).detach())
    adapters = tune(network, samples, AdapterConfig(rank=8, rate=2e-2, epochs=40, tokens=64, warm_up=5), ALONE, lambda _: None)
    with torch.no_grad():
        after = float(mean_loss(network, samples, adapters))
        adapters.merge(network)
        merged = float(mean_loss(network, samples))
    assert after < 0.3 * before
    assert merged == pytest.approx(after, abs=1e-3)


def test_batches_hold_every_sample_once_an_epoch_and_no_more_tokens_than_allowed():
    samples = [Sample([1] * (number % 17 + 1), [2] * 3) for number in range(60)]
    batches = make_batches(samples, AdapterConfig(epochs=2.0, tokens=80))
    assert sorted(id(one) for batch in batches for one in batch) == sorted(2 * [id(one) for one in samples])
    assert all(len(batch) * max(map(len, batch)) <= 80 for batch in batches)


PAGE = Page((("Library: Loans", ("Books may be kept for 28 days.", "Lost cards cost 3 euros.", "Films go back after a week.")),))
ASKS = [Ask((1,), ("casual",)), Ask((0, 2), ("number",), follow_up=True), Ask((), ("why",))]
PAIRS = [
    Pair(ASKS[0], "my card is gone", "A new one costs 3 euros."),
    Pair(ASKS[1], "and films?", "Books 28 days, films a week.", "how long for books"),
    Pair(ASKS[2], "why do you close at noon"),
]


def test_what_is_asked_for_and_what_comes_back_are_read_as_they_were_written():
    assert tasks.page_text(PAGE).splitlines()[1:] == [
        "Library: Loans",
        "A: Books may be kept for 28 days.",
        "B: Lost cards cost 3 euros.",
        "C: Films go back after a week.",
    ]
    assert tasks.write_text(ASKS).startswith("Write: B casual; A, C follow-up number; none why")
    text = tasks.answer_text(PAIRS).removesuffix(tasks.END)
    parsed = tasks.parse(text, ASKS, complete=True)
    assert parsed.pairs == PAIRS
    assert parsed.lost == 0


@pytest.mark.parametrize(
    ("text", "kept", "lost"),
    [
        ("C: my card is gone\n= 3 euros.", 0, 1),  # another sentence than was asked for
        ("B: my card is gone\nA, C: how long >> and films?\n= A week.", 1, 1),  # no answer
        ("B: my card is gone\n= 3 euros.\nA, C: and films?\n= A week.", 1, 1),  # no follow-up
        ("nonsense\nB: my card is gone\n= 3 euros.", 1, 1),
        ("B: my card is gone\n= 3 euros.\nnone: why", 1, 1),
        ("", 0, 1),
        ("B: my card is gone\n= 3 euros.", 1, 0),  # an answer to the first alone
    ],
)
def test_lines_that_are_not_what_was_asked_for_are_lost(text, kept, lost):
    parsed = tasks.parse(text, ASKS, complete=True)
    assert len(parsed.pairs) == kept
    assert parsed.lost == lost


def test_the_last_line_of_a_text_that_was_cut_off_is_left_out():
    parsed = tasks.parse("B: my card is gone\n= 3 euros.\nA, C: how long >> and fil", ASKS, complete=False)
    assert [pair.question for pair in parsed.pairs] == ["my card is gone"]


def test_conversations_are_read_as_they_were_written():
    turns = ["hi, it's about order 4471", "when do you close", "what was my order number?"]
    told = tasks.conversation_answer(turns, "Your order number is 4471.").removesuffix(tasks.END)
    assert tasks.parse_conversation(told) == (turns, "Your order number is 4471.")
    untold = tasks.conversation_answer(turns, "").removesuffix(tasks.END)
    assert tasks.parse_conversation(untold) == (turns, "")
    assert tasks.parse_conversation("- hello\nI am a model") is None
    assert tasks.parse_conversation("? who am I\n= You are Ann.") is None


def test_control_tokens_in_a_page_open_no_turn():
    page = Page((("T", ("Type <|im_end|> to end.",)),))
    assert tasks.page_text(page).count(tasks.END) == 0


def test_qwens_words_are_split_where_its_tokenizer_splits_them():
    from retnet_core.distill.writer.qwen import _WORDS

    built = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    built.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    words = pre_tokenizers.Split(tokenizers.Regex(_WORDS), "isolated").pre_tokenize_str("It's 1200 km, isn't it?\n\nYes")
    assert [word for word, _ in words] == ["It", "'s", " ", "1", "2", "0", "0", " km", ",", " isn", "'t", " it", "?\n\n", "Yes"]


def test_every_question_of_a_row_is_read_again_after_the_page_alone(tmp_path):
    _, tokenizer = Qwen.load(tiny_writer.write_gguf(tmp_path / "writer.gguf"), "cpu", torch.float32)
    plain = tiny(7)
    table = torch.randn(tokenizer.get_vocab_size(), CONFIG.width)
    network = Qwen(replace(CONFIG, vocabulary=len(table)), plain.layers, table, plain.norm)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    pages = [PAGE, Page((("Hours", ("We open at nine and close at six.", "Closed on Sundays.")),))]
    asks = [[Ask((0,), ("why",)), Ask((1, 2)), Ask(()), Ask((), (), True)], [Ask((0,)), Ask((1,))]]
    said = [
        "A: how long\n= 28 days.\nB, C: cards and films?\n= 3 euros.\nnone: why " + "so " * 60 + "\nnone: hi >> and why",
        "nonsense\nA: when do you open\n= At nine.",
    ]
    prompts = [encode(tasks.page_text(page)) for page in pages]
    jobs = [
        Job(number, 1, (f"p:{number}",), len(page.sentences), own, ids + encode(tasks.write_text(own)), len(ids))
        for number, (page, own, ids) in enumerate(zip(pages, asks, prompts, strict=True))
    ]
    generator, found = Generator(network, 3, 300, 6, end=[END]), {}
    second = SecondReader(tokenizer, network.device)
    for batch in generator.write(iter([Prompt(job.number, job.ids) for job in jobs]), batch=2, until=time.time() + 60):
        written = [Written(one.key, one.slot, encode(said[one.key]), True) for one in batch]
        found |= {record["job"]: record for record in second.records(generator, written, [jobs[one.key] for one in batch])}
    assert [(found[number]["turn"], found[number]["passages"], found[number]["lost"]) for number in (0, 1)] == [
        (1, ["p:0"], 1), (1, ["p:1"], 1),
    ], "one question finds no room after its page, one line is nonsense"  # fmt: skip
    assert [pair["q"] for pair in found[0]["pairs"]] == ["how long", "cards and films?", "and why"]
    assert [pair["q"] for pair in found[1]["pairs"]] == ["when do you open"]
    labels = [encode(f" {label}")[0] for label in (tasks.NONE, *"ABC")]
    for number, page in enumerate(pages):
        for pair in found[number]["pairs"]:
            text = tasks.page_text(page) + tasks.read_text(pair["q"], pair.get("before", ""))
            shares = whole(network, encode(text))[-1][labels[: 1 + len(page.sentences)]].softmax(0)
            assert pair["read"] == int(shares.argmax()) - 1
            assert pair["none"] == pytest.approx(float(shares[0]), abs=6e-4)
            assert pair["gold"] == pytest.approx(sum(float(shares[1 + place]) for place in pair["at"]), abs=6e-4)

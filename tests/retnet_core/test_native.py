"""The kernels compute what the readable code computes: products, passes, memories; and the same in any company."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from retnet_core import Engine, Model, Request, Result, native
from retnet_core.checkpoint import pack_layer
from retnet_core.config import RetNetConfig
from retnet_core.lanes import Lanes
from retnet_core.model import Span
from retnet_core.native.build import TARGETS, BuildError, build, cache, find, find_compiler, name_of, supported
from retnet_core.native.library import Library
from retnet_core.quantize import Int8Linear, pack

HEADS, LAYERS, VOCABULARY = 2, 3, 96
CONFIG = RetNetConfig(layers=LAYERS, width=64 * HEADS, heads=HEADS, head_dim=64, feed_forward=192, vocabulary=VOCABULARY)


def compiled(name: str) -> Library:
    target = TARGETS[name]
    if not supported(target):
        pytest.skip(f"this processor lacks {name}")
    try:
        find_compiler()
    except BuildError:
        pytest.skip("there is no C++ compiler here (install g++)")
    return Library(find(target) or build(target), name)


@pytest.fixture(scope="module", params=sorted(TARGETS))
def kernels(request: pytest.FixtureRequest) -> Library:
    return compiled(request.param)


def drawn(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def weights(seed: int) -> dict[str, Tensor]:
    width, inner, heads, feed_forward = CONFIG.width, CONFIG.inner, CONFIG.heads, CONFIG.feed_forward
    shapes: dict[str, tuple[tuple[int, ...], float]] = {
        "projection": ((4 * inner, width), 0.1),
        "convolution": ((CONFIG.convolved, CONFIG.conv_width), 0.5),
        "gate_weight": ((heads, width), 0.1),
        "gate_bias": ((heads,), 0.1),
        "output": ((width, inner), 0.1),
        "gate": ((feed_forward, width), 0.1),
        "up": ((feed_forward, width), 0.1),
        "down": ((width, feed_forward), 0.1),
    }
    tensors = {name: drawn(*shape, seed=seed + place, scale=scale) for place, (name, (shape, scale)) in enumerate(shapes.items())}
    norms = {"retention_norm": width, "group_norm": inner, "feed_forward_norm": width}
    tensors |= {name: 1 + drawn(size, seed=seed + 50 + size, scale=0.1) for name, size in norms.items()}
    return tensors | {"rate": torch.tensor([-0.5, -4.0])}


def models(kernels: Library, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Model]:
    """The same packed weights twice: passes of the kernels, and passes of torch that call the kernels for single products only."""
    table = drawn(VOCABULARY, CONFIG.width, seed=1)
    monkeypatch.setattr(native, "library", lambda: kernels)
    layers = [pack_layer(weights(100 * number), CONFIG, "int8") for number in range(LAYERS)]
    head = pack(table, "int8")
    fast, readable = (
        Model(CONFIG, layers, lambda ids: table[ids], torch.ones(CONFIG.width), head, fingerprint="x", precision="int8")
        for _ in range(2)
    )
    assert fast._network is not None
    readable._network = None
    return fast, readable


def test_a_product_is_within_half_a_step_of_every_group(kernels: Library) -> None:
    weight, x = drawn(48, 192, seed=2), drawn(7, 192, seed=3) * torch.logspace(-4, 4, 7)[:, None]
    x[3, 5] = 1e6  # one loud input must not drown the other groups
    exact, product = x @ weight.T, native.Matrix(weight, kernels)(x)
    groups = lambda values: values.unflatten(-1, (-1, 64))  # noqa: E731
    step_x, step_w = groups(x).abs().amax(-1) / 127, groups(weight).abs().amax(-1) / 127
    size_x, size_w = groups(x).abs().sum(-1), groups(weight).abs().sum(-1)
    # |x w − x' w'| ≤ ½ step_x Σ|w'| + ½ step_w Σ|x|, a group at a time; a scale in bfloat16 is up to 1/128 larger.
    bound = 0.51 * (step_x @ (size_w + 64 * step_w).T + size_x @ step_w.T)
    assert ((product - exact).abs() <= bound).all()
    assert (product - exact).norm() / exact.norm() < 0.02


def test_the_kernels_are_closer_to_float32_than_torch_is(kernels: Library) -> None:
    weight, x = drawn(64, 576, seed=4), drawn(20, 576, seed=5)
    x[:, 7] *= 40  # what activations look like: a few channels are loud
    exact = x @ weight.T
    errors = [(product(x) - exact).norm() for product in (native.Matrix(weight, kernels), Int8Linear(weight))]
    assert errors[0] < 0.5 * errors[1]


def test_a_row_is_the_same_in_any_company_and_with_any_number_of_threads(kernels: Library) -> None:
    matrix, x = native.Matrix(drawn(80, 128, seed=6), kernels), drawn(23, 128, seed=7)
    together, before = matrix(x), torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for row in range(len(x)):
                assert torch.equal(matrix(x[row : row + 1])[0], together[row])
            assert torch.equal(matrix(x), together)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("lengths", [(1,), (5,), (64,), (1, 1, 1), (65, 1, 130), (17, 64, 1, 3)])
def test_a_pass_is_the_readable_one(kernels: Library, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]) -> None:
    """Hidden states and memories, from memories that are not empty. Sums in another order now and then round an input to the next of its
    127 steps, which is all that may differ."""
    hidden, memories = [], []
    for model in models(kernels, monkeypatch):
        lanes = [Lanes(CONFIG, 2) for _ in lengths]
        for number, lane in enumerate(lanes):
            lane.retention.copy_(drawn(*lane.retention.shape, seed=20 + number))
            lane.window.copy_(drawn(*lane.window.shape, seed=30 + number))
            lane.tokens.fill_(11 * number)
        ids = torch.arange(sum(lengths)) * 7 % VOCABULARY
        spans = [Span(lane, 1, length) for lane, length in zip(lanes, lengths, strict=True)]
        hidden.append(model.forward(ids, None, 0, spans))
        memories.append(lanes)
    assert (hidden[0] - hidden[1]).norm() / hidden[1].norm() < 5e-3
    for ours, theirs in zip(*memories, strict=True):
        for name in ("retention", "window"):
            assert (getattr(ours, name) - getattr(theirs, name)).norm() / getattr(theirs, name).norm() < 5e-3
            # The lane beside it is somebody else's.
            assert torch.equal(getattr(ours, name)[:, 0], getattr(theirs, name)[:, 0])
        assert torch.equal(ours.tokens, theirs.tokens)


def test_writers_and_readers_share_a_pass_and_change_nothing_for_each_other(
    kernels: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, _ = models(kernels, monkeypatch)
    ids = [int(value) for value in torch.arange(40) * 5 % VOCABULARY]

    def memories() -> tuple[Lanes, Lanes]:
        writing, reading = Lanes(CONFIG, 4), Lanes(CONFIG, 1)
        writing.retention.copy_(drawn(*writing.retention.shape, seed=40))
        reading.retention.copy_(drawn(*reading.retention.shape, seed=41))
        return writing, reading

    writing, reading = memories()
    together = fast.forward(torch.tensor(ids), writing, 3, [Span(reading, 0, 37)])
    alone_writing, alone_reading = memories()
    rows = [
        fast.forward(torch.tensor(ids[:3]), alone_writing, 3, []),
        fast.forward(torch.tensor(ids[3:]), None, 0, [Span(alone_reading, 0, 37)]),
    ]
    assert torch.equal(together, torch.cat(rows))
    assert torch.equal(writing.retention, alone_writing.retention)
    assert torch.equal(reading.retention, alone_reading.retention)


def test_a_request_gets_the_same_numbers_alone_and_among_others(kernels: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, because a prompt is cut into chunks at the same places whoever else is reading."""
    fast, _ = models(kernels, monkeypatch)
    requests = [
        Request([(7 * number + place) % VOCABULARY for place in range(length)], max_new_tokens=9, stop_ids=(), want_logits=True)
        for number, length in enumerate((150, 3, 64, 65, 200, 31))
    ]

    def run(together: bool) -> list[Result]:
        engine = Engine(fast, slots=8 if together else 1, threads=2)
        handles = [engine.submit(request) for request in requests]
        engine.start()
        try:
            return [handle.wait(60) for handle in handles]
        finally:
            engine.close()

    for alone, among in zip(run(False), run(True), strict=True):
        assert alone.ids == among.ids
        assert alone.logits is not None and among.logits is not None and torch.equal(alone.logits, among.logits)
        assert alone.state is not None and among.state is not None
        assert torch.equal(alone.state.retention, among.state.retention)


@pytest.mark.parametrize("name", ["avx512-vnni", "avx512-vnni-256", "avx-vnni"])
def test_all_instructions_give_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX-512 and AVX2, wide and half as wide, all fuse multiplication and addition, and add in one order."""
    results = []
    for one in (name, "avx2"):
        fast, _ = models(compiled(one), monkeypatch)
        read, state = fast.read(list(range(70)))
        results.append((read, fast.read([5], state)[0], fast.read([5, 6], state)[0]))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_a_long_forgetting_stays_finite(kernels: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decays multiply to far below the smallest float within one chunk; nothing may become infinite or undefined."""
    fast, _ = models(kernels, monkeypatch)
    for layer in fast._layers:
        layer.rate.fill_(4.5)
    logits, state = fast.read([3] * 130)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(state.retention).all()


def test_a_matrix_that_does_not_divide_is_torchs(monkeypatch: pytest.MonkeyPatch, kernels: Library) -> None:
    monkeypatch.setattr(native, "library", lambda: kernels)
    assert isinstance(pack(drawn(48, 100, seed=8), "int8"), Int8Linear)
    with pytest.raises(ValueError, match="48 by 100"):
        native.Matrix(drawn(48, 100, seed=8), kernels)
    with pytest.raises(ValueError, match="rows of 64 inputs"):
        native.Matrix(drawn(16, 64, seed=8), kernels)(torch.zeros(2, 65))


class TestBuilding:
    def test_without_a_compiler_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(BuildError, match=r"install g\+\+"):
            build(TARGETS["plain"], tmp_path)

    def test_a_compiler_that_fails_is_quoted(self, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
        compiler = tmp_path / "broken"
        compiler.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CXX", str(compiler))
        with pytest.raises(BuildError, match="no such thing"):
            build(TARGETS["plain"], tmp_path / "built")
        assert not list((tmp_path / "built").iterdir())

    def test_a_library_that_others_could_have_written_is_not_loaded(self, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
        monkeypatch.setenv("RETNET_CORE_CACHE", str(tmp_path))
        target = TARGETS["plain"]
        path = cache() / name_of(target)
        path.write_bytes(b"")
        path.chmod(0o755)
        tmp_path.chmod(0o700)
        assert find(target) == path
        tmp_path.chmod(0o777)
        assert find(target) is None

"""`python -m benchmarks.gpu`: a RetNet and Transformers of equal size on one GPU, with random weights, in one run.

Writing: 24 layers of width 2048, 1.3 billion parameters (embeddings apart). The RetNet has 16 heads of 128 with gated retention; the
Transformers have 16 heads of 128 with 16 and with 4 key–value heads, flash attention and a preallocated KV cache. Feed-forwards are
widened until all have as many parameters. One step of each is captured as a CUDA graph, so that no time goes into starting kernels;
batches grow until memory ends.

Reading: the same models over whole prompts. Training: the retention or attention of one layer alone, forward and backward: ours,
flash-linear-attention's kernel for the same function (`chunk_retention`, the paper's fixed decays), and flash attention, at 65,536 tokens
a step.

flash-linear-attention is imported if it is on the path; without it its column stays empty. `--quick` takes the small ends.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import _report as report
from retnet_core.retention import fixed_log_decay, recurrent_step_, retention_chunkwise

LAYERS, WIDTH, HEADS, HEAD = 24, 2048, 16, 128
VOCABULARY = 32000
RETNET_FEED_FORWARD = 5120
EPS = 1e-5
TRAINED_TOKENS = 65536
STEPS = 16  # of a captured graph, timed together


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured."""

    layers: int
    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    trained: int


FULL = Size(LAYERS, (2048, 8192, 32768), (1, 8, 32, 64, 128, 256, 512), (2048, 8192, 16384, 32768, 65536), TRAINED_TOKENS)
QUICK = Size(4, (2048,), (1, 8), (2048, 4096), 8192)


class Block:
    """What all have in common: norms, a gated feed-forward, and the embedding; bf16."""

    def __init__(self, layers: int, mixed: int, feed_forward: int, device: torch.device) -> None:
        def matrix(outputs: int, inputs: int) -> Tensor:
            return torch.randn(outputs, inputs, device=device, dtype=torch.bfloat16) / math.sqrt(inputs)

        self.projections = [matrix(mixed, WIDTH) for _ in range(layers)]
        self.outputs = [matrix(WIDTH, HEADS * HEAD) for _ in range(layers)]
        self.expands = [matrix(2 * feed_forward, WIDTH) for _ in range(layers)]
        self.contracts = [matrix(WIDTH, feed_forward) for _ in range(layers)]
        self.embedding = matrix(VOCABULARY, WIDTH)
        self.layers = layers

    @property
    def parameters(self) -> int:
        """Without the embedding."""
        return sum(m.numel() for kind in (self.projections, self.outputs, self.expands, self.contracts) for m in kind)

    def feed_forward(self, layer: int, x: Tensor) -> Tensor:
        gate, up = F.linear(F.rms_norm(x, (WIDTH,), eps=EPS), self.expands[layer]).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.contracts[layer])

    def next_ids(self, x: Tensor) -> Tensor:
        return F.linear(F.rms_norm(x, (WIDTH,), eps=EPS), self.embedding).argmax(-1)


class RetNet(Block):
    """Gated retention; the state of a sequence is 24 × 16 × 128 × 128 numbers in fp32, whatever its length."""

    name = "RetNet"

    def __init__(self, layers: int, device: torch.device) -> None:
        super().__init__(layers, 4 * HEADS * HEAD, RETNET_FEED_FORWARD, device)
        self.gates = [torch.randn(HEADS, WIDTH, device=device, dtype=torch.bfloat16) * 0.01 for _ in range(layers)]

    def cache(self, batch: int, context: int) -> Sequence[Tensor]:
        return [torch.randn(batch, HEADS, HEAD, HEAD, device=self.embedding.device) * 0.1 for _ in range(self.layers)]

    def _heads(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, k, v `[…, heads, 128]`, the swish gate and log γ `[…, heads]`."""
        normed = F.rms_norm(x, (WIDTH,), eps=EPS)
        q, k, v, g = (part.unflatten(-1, (HEADS, HEAD)) for part in F.linear(normed, self.projections[layer]).chunk(4, -1))
        return q / math.sqrt(HEAD), k, v, g, F.logsigmoid(F.linear(normed, self.gates[layer]).float() + 4) / 16

    def step(self, ids: Tensor, cache: Sequence[Tensor]) -> Tensor:
        """The next ids `[batch]`; the memory is changed in place."""
        x = self.embedding[ids]
        for layer, state in enumerate(cache):
            q, k, v, g, log_decay = self._heads(layer, x)
            out = recurrent_step_(q.float(), k.float(), v.float(), log_decay.exp(), state)
            x = x + F.linear((F.rms_norm(out, (HEAD,), eps=EPS).to(x.dtype) * F.silu(g)).flatten(-2), self.outputs[layer])
            x = x + self.feed_forward(layer, x)
        return self.next_ids(x)

    def read(self, ids: Tensor) -> Tensor:
        """`[batch, length]` to the next ids `[batch]`, in the chunkwise form."""
        x = self.embedding[ids]
        for layer in range(self.layers):
            q, k, v, g, log_decay = self._heads(layer, x)
            q, k, v, log_decay = (part.transpose(1, 2) for part in (q, k, v, log_decay))
            out, _ = retention_chunkwise(q, k, v, log_decay, chunk=128, checked=False)
            out = F.rms_norm(out.transpose(1, 2).float(), (HEAD,), eps=EPS).to(x.dtype)
            x = x + F.linear((out * F.silu(g)).flatten(-2), self.outputs[layer])
            x = x + self.feed_forward(layer, x)
        return self.next_ids(x[:, -1])


class Transformer(Block):
    """Causal attention with `kv_heads` key–value heads and a KV cache in bf16. Rotary positions are left out for all alike."""

    def __init__(self, layers: int, kv_heads: int, device: torch.device) -> None:
        mixed = (HEADS + 2 * kv_heads) * HEAD
        spared = (4 * HEADS * HEAD - mixed) * WIDTH  # parameters of a layer that the RetNet's projection has more
        super().__init__(layers, mixed, RETNET_FEED_FORWARD + spared // (3 * WIDTH), device)
        self.kv_heads = kv_heads
        self.name = f"Transformer, {kv_heads} key–value heads"

    def cache(self, batch: int, context: int) -> Sequence[Tensor]:
        shape = (2, batch, self.kv_heads, context, HEAD)
        return [torch.randn(*shape, device=self.embedding.device, dtype=torch.bfloat16) for _ in range(self.layers)]

    def _heads(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = F.linear(F.rms_norm(x, (WIDTH,), eps=EPS), self.projections[layer]).unflatten(-1, (-1, HEAD))
        q, k, v = projected.split([HEADS, self.kv_heads, self.kv_heads], -2)
        return q, k, v

    def step(self, ids: Tensor, cache: Sequence[Tensor]) -> Tensor:
        """The next ids `[batch]`, at the last place of a full cache."""
        x = self.embedding[ids]
        for layer, (keys, values) in enumerate(cache):
            q, k, v = self._heads(layer, x)
            keys[:, :, -1], values[:, :, -1] = k, v
            out = F.scaled_dot_product_attention(q.unsqueeze(2), keys, values, enable_gqa=self.kv_heads < HEADS)
            x = x + F.linear(out.squeeze(2).flatten(-2), self.outputs[layer])
            x = x + self.feed_forward(layer, x)
        return self.next_ids(x)

    def read(self, ids: Tensor) -> Tensor:
        """`[batch, length]` to the next ids `[batch]`."""
        x = self.embedding[ids]
        for layer in range(self.layers):
            q, k, v = (part.transpose(1, 2) for part in self._heads(layer, x))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads < HEADS)
            x = x + F.linear(out.transpose(1, 2).flatten(-2), self.outputs[layer])
            x = x + self.feed_forward(layer, x)
        return self.next_ids(x[:, -1])


Net = RetNet | Transformer


@contextmanager
def memory_of_its_own() -> Iterator[None]:
    """What was allocated inside is gone afterwards, and the peak counts from its beginning."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield


def seconds(work: Callable[[], object], device: torch.device, rounds: int = 3) -> float:
    """The best of some rounds after one that warms up."""
    work()
    if device.type == "cpu":
        import time

        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun
    best = math.inf
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end) / 1000)
    return best


def captured(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`STEPS` steps as one replay of a CUDA graph of one."""
    if device.type == "cpu":
        return lambda: [step() for _ in range(STEPS)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return lambda: [graph.replay() for _ in range(STEPS)]


@torch.inference_mode()
def write(net: Net, batch: int, context: int, device: torch.device) -> tuple[float, float] | None:
    """(seconds of a step, GiB at the peak), or None when memory ends."""
    try:
        with memory_of_its_own():
            cache, ids = net.cache(batch, context), torch.randint(VOCABULARY, (batch,), device=device)
            taken = seconds(captured(lambda: ids.copy_(net.step(ids, cache)), device), device) / STEPS
            return taken, torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    except torch.cuda.OutOfMemoryError:
        return None


@torch.inference_mode()
def read(net: Net, length: int, device: torch.device) -> float | None:
    """Tokens a second of reading 32,768 tokens in prompts of `length`."""
    batch = max(1, 32768 // length)
    try:
        with memory_of_its_own():
            ids = torch.randint(VOCABULARY, (batch, length), device=device)
            return batch * length / seconds(lambda: net.read(ids), device)
    except torch.cuda.OutOfMemoryError:
        return None


def training(rows: report.Report, size: Size, device: torch.device) -> None:
    """Forward and backward of one layer's mixing, 16 heads of 128, bf16."""
    try:
        from fla.ops.retention import chunk_retention  # pyright: ignore[reportMissingImports]  (only where it was brought)
    except ImportError as missing:
        chunk_retention = None
        rows.notes.append(f"flash-linear-attention is not compared: {missing}")
    decay = fixed_log_decay(HEADS, device=device)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return retention_chunkwise(q, k, v, decay, chunk=128, checked=False)[0]

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert chunk_retention is not None
        return chunk_retention(q, k, v, scale=1.0)[0]

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    for length in size.lengths:
        batch = max(1, size.trained // length)
        rates: dict[str, float | None] = {}
        for name, function in (("ours", ours), ("fla", theirs), ("flash attention", attention)):
            rates[name] = None if name == "fla" and chunk_retention is None else trained(function, batch, length, device)
        rows.add(
            f"training at {length}: retention, ours", rates["ours"], "tokens/s", peer="fla", peer_value=rates["fla"],
            note=f"flash attention {rates['flash attention'] or 0:,.0f}",
        )  # fmt: skip


def trained(function: Callable[..., Tensor], batch: int, length: int, device: torch.device) -> float | None:
    """Tokens a second, forward and backward."""
    try:
        with memory_of_its_own():
            shape = (batch, length, HEADS, HEAD)
            parts = [torch.randn(*shape, device=device, dtype=torch.bfloat16).div_(HEAD**0.25).requires_grad_() for _ in range(3)]

            def step() -> None:
                for part in parts:
                    part.grad = None
                function(*parts).float().square().mean().backward()

            return batch * length / seconds(step, device)
    except torch.cuda.OutOfMemoryError:
        return None


def compare(rows: report.Report, size: Size, device: torch.device) -> None:
    """Writing and reading, model after model, because their weights and caches need the memory in turns."""
    steps: dict[str, dict[tuple[int, int], tuple[float, float] | None]] = {}
    reads: dict[str, dict[int, float | None]] = {}
    makers: tuple[Callable[[], Net], ...] = (
        lambda: RetNet(size.layers, device), lambda: Transformer(size.layers, HEADS, device), lambda: Transformer(size.layers, 4, device),
    )  # fmt: skip
    for make in makers:
        net = make()
        rows.notes.append(f"{net.name}: {net.parameters / 1e9:.3f} billion parameters")
        steps[net.name] = {(c, b): write(net, b, c, device) for c in size.contexts for b in size.batches}
        reads[net.name] = {length: read(net, length, device) for length in size.contexts}
        del net
    ours = steps["RetNet"]
    for name in [name for name in steps if name != "RetNet"]:
        for (context, batch), theirs in steps[name].items():
            mine = ours[context, batch]
            if mine is None:
                continue
            note = f"{1000 * mine[0]:.2f} ms and {mine[1]:.1f} GiB; "
            note += f"{1000 * theirs[0]:.2f} ms and {theirs[1]:.1f} GiB" if theirs else "no memory for the Transformer"
            rows.add(
                f"writing, {batch} at {context}",
                batch / mine[0],
                "tokens/s",
                peer=name,
                peer_value=batch / theirs[0] if theirs else None,
                note=note,
            )
        for length, rate in reads[name].items():
            rows.add(f"reading, prompts of {length}", reads["RetNet"][length], "tokens/s", peer=name, peer_value=rate)


def main() -> None:
    given = report.arguments(__doc__ or "").parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = report.Report("RetNet on a GPU")
    rows.notes.append(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        if device.type == "cuda"
        else "no GPU: only to try the script"
    )
    torch.manual_seed(0)
    size = QUICK if given.quick or device.type == "cpu" else FULL
    compare(rows, size, device)
    training(rows, size, device)
    rows.finish(given)


if __name__ == "__main__":
    main()

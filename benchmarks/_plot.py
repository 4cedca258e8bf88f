"""`python -m benchmarks._plot`: the pictures and tables of docs/retnet.md, made from the JSON in `benchmarks/results`.

A picture whose results are missing is left as it is, and that is said. The SVG has a transparent ground and greys that can be read on white
and on black; the same results give the same bytes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._results import Missing, Results
from benchmarks._tables import LAYOUTS, PAGE, with_tables

IMAGES = Path(__file__).parents[1] / "docs" / "images"
OURS, PEER, OTHER, GREY = "#3b8eea", "#e0882f", "#35a06f", "#7d8590"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "retort", "font.family": "sans-serif", "font.size": 10, "figure.facecolor": "none",
    "axes.facecolor": "none", "savefig.facecolor": "none", "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY,
    "axes.titlecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.titlesize": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": GREY, "grid.alpha": 0.25, "legend.frameon": False,
    "lines.linewidth": 1.8, "lines.markersize": 4.5,
}  # fmt: skip


def panels(count: int, width: float = 8.6, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(width, height), layout="constrained", squeeze=False)
    return figure, list(axes[0])


def logarithmic(axes: Axes, ticks: Sequence[float], label: Callable[[float], str] = lambda value: f"{value:,.0f}") -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [label(tick) for tick in ticks])
    axes.minorticks_off()


def decode() -> Figure:
    """Tokens a second over the context, beside llama.cpp."""
    results = Results.read("decode-2-cores.json")
    figure, (axes,) = panels(1, 6)
    context, peers, current = [], {}, None
    for row in results.rows:
        if match := re.fullmatch(r"decode, 1 conversation, (\d+) tokens of context", row["name"]):
            current = (int(match[1]), row["value"])
            if not any(current[0] == place for place, _ in context):
                context.append(current)
        elif (match := re.fullmatch(r"  over (llama\.cpp .+)", row["name"])) and current is not None and current in context:
            peers.setdefault(match[1], []).append((current[0], current[1] / row["value"]))
        else:
            current = None
    if len(context) < 2:
        raise Missing("decode-2-cores.json has one context only")
    axes.plot(*zip(*context, strict=True), color=OURS, marker="o", label="RetNet")
    for (name, points), colour in zip(sorted(peers.items()), (PEER, OTHER), strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", label=name)
    logarithmic(axes, sorted(place for place, _ in context))
    axes.set(xlabel="tokens of context", ylabel="tokens/s", ylim=(0, None), title="Writing, one conversation, two cores")
    axes.legend()
    return figure


def logarithmic_y(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_yscale("log")
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.minorticks_off()


def turns() -> Figure:
    """What a written token costs as the conversation grows."""
    results = Results.read("turns-2-cores.json")
    figure, (axes,) = panels(1, 6)
    place = r"turn \d+ \((\d+) tokens\)"
    x, y = results.line(rf"a token written, {place}")
    low, high = (results.line(rf"a token written, {place}, {edge} quartile")[1] for edge in ("first", "third"))
    spread = [[middle - at for middle, at in zip(y, low, strict=True)], [at - middle for middle, at in zip(y, high, strict=True)]]
    axes.errorbar(x, y, spread, color=OURS, marker="o", capsize=3, label="RetNet (quartiles)")
    for peer, colour in (("llama.cpp Q4_1", PEER), ("transformers bfloat16", OTHER)):
        try:
            points = results.line(rf"a token written beside {re.escape(peer)}, {place}", "peer_value")
        except Missing:
            continue
        axes.plot(*points, color=colour, marker="o", label=peer)
    logarithmic(axes, (20, 100, 1000, 10000, 50000))
    logarithmic_y(axes, (5, 10, 20, 50, 100))
    axes.set(xlabel="tokens of conversation", ylabel="ms a token", title="Writing one token, turn 1 to 1,000")
    axes.legend()
    return figure


def memory() -> Figure:
    """Bytes of one conversation over its tokens."""
    results = Results.read("turns-2-cores.json")
    figure, (axes,) = panels(1, 6)
    x, ours = results.line(r"memory, turn \d+ \((\d+) tokens\)")
    _, cache = results.line(r"memory, turn \d+ \((\d+) tokens\)", "peer_value")
    axes.plot(x, [value / 1e6 for value in ours], color=OURS, marker="o", label="RetNet, state in fp32")
    axes.plot(x, [value / 1e6 for value in cache], color=PEER, marker="o", label="Transformer, KV cache in 16 bits")
    logarithmic(axes, (20, 100, 1000, 10000, 50000))
    logarithmic_y(axes, (1, 10, 100, 1000))
    axes.set(xlabel="tokens of conversation", ylabel="MB", title="Memory of one conversation")
    axes.legend()
    return figure


def reading() -> Figure:
    """Tokens read for each of 20 turns, with and without prefix states."""
    results = Results.read("turns-2-cores.json")
    figure, both = panels(2)
    for axes, kind, title in zip(both, ("grounded", "chat"), ("question and evidence, in a fork", "plain chat"), strict=True):
        pattern = rf"{kind}, tokens read in turn (\d+)"
        axes.plot(*results.line(pattern, "peer_value"), color=PEER, marker="o", label="whole conversation again")
        axes.plot(*results.line(pattern), color=OURS, marker="o", label="from the prefix state")
        axes.set(xlabel="turn", ylabel="tokens read", ylim=(0, None), xticks=(1, 5, 10, 15, 20), title=title)
    both[0].legend()
    return figure


def recall(pattern: str, label: str, chance: Callable[[float], float], ticks: Sequence[float]) -> Figure:
    """The share of right values of both models, layout by layout; bands are 95 % intervals."""
    results = Results.read("recall.json")
    figure, all_axes = panels(4, 10)
    for axes, (layout, title) in zip(all_axes, LAYOUTS.items(), strict=True):
        named = layout + pattern
        for key, colour, name in (("value", OURS, "RetNet"), ("peer_value", PEER, "SmolLM2-135M-Instruct")):
            x, y = results.line(f"{named}: picked", key)
            low, high = (results.line(f"{named}: picked, {end}", key)[1] for end in ("from", "to"))
            axes.plot(x, y, color=colour, marker="o", label=name)
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(ticks, [100 * chance(x) for x in ticks], color=GREY, linestyle=":", label="guessing")
        if ticks[0]:
            logarithmic(axes, ticks)
        else:
            axes.set_xticks([ticks[0], *ticks[3:]], [f"{tick:,}" for tick in (ticks[0], *ticks[3:])])
        axes.set(xlabel=label, ylim=(0, 102), title=title)
        axes.title.set_fontsize(9)
    all_axes[0].set_ylabel("right value, %")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def recall_pairs() -> Figure:
    return recall(r", (\d+) pairs, 0 tokens away", "pairs", lambda pairs: 1 / pairs, (4, 8, 16, 32, 64, 128))


def recall_distance() -> Figure:
    return recall(r", 8 pairs, (\d+) tokens away", "tokens in between", lambda _: 1 / 8, (0, 256, 1024, 2048, 4096, 7168))


def gpu() -> Figure:
    """Tokens a second over the batch, at three contexts."""
    results = Results.read("gpu-h100.json")
    figure, all_axes = panels(3)
    for axes, context in zip(all_axes, (2048, 8192, 32768), strict=True):
        pattern = rf"writing, (\d+) at {context}"
        axes.plot(*results.line(pattern), color=OURS, marker="o", label="RetNet")
        for heads, colour in ((16, PEER), (4, OTHER)):
            peer = f"Transformer, {heads} key–value heads"
            axes.plot(*results.line(pattern, "peer_value", peer), color=colour, marker="o", label=peer)
        logarithmic(axes, (1, 8, 32, 128, 512))
        logarithmic_y(axes, (300, 1000, 3000, 10000, 20000))
        axes.set(xlabel="conversations", title=f"{context:,} tokens of context", ylim=(200, 30000))
    all_axes[0].set_ylabel("tokens/s")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


TRAINED = {
    "transformer": ("Transformer", PEER),
    "fixed": ("RetNet, fixed decays", OTHER),
    "gated": ("RetNet, gated", GREY),
    "gated-conv": ("RetNet, gated, short convolutions", OURS),
}


def training() -> Figure:
    """Loss of RetNets and a Transformer of equal size on the same tokens (what `retnet_core.training` collects of a comparison)."""
    models: Any = Results.read("training.json").rows["models"]  # type: ignore[call-overload]  (the one file that is no list of rows)
    figure, (whole, beside) = panels(2, 9)
    curves = {name: windows(models[name]["loss"], 60) for name in TRAINED if name in models}
    for name, curve in curves.items():
        label, colour = TRAINED[name]
        tokens = [at / 1e6 for at, _ in curve]
        whole.plot(tokens, [loss for _, loss in curve], color=colour, label=label)
        difference = [loss - theirs for (_, loss), (_, theirs) in zip(curve, curves["transformer"], strict=True)]
        beside.plot(tokens, difference, color=colour)
    whole.set(xlabel="million tokens", ylabel="nats", ylim=(3.8, 7.5), title="Training loss, equal size, same tokens")
    beside.set(xlabel="million tokens", ylim=(-0.9, 0.1), title="less the Transformer's")
    whole.legend()
    return figure


def windows(points: Sequence[Sequence[float]], count: int) -> list[tuple[float, float]]:
    """Means of `count` equal stretches of (tokens, loss)."""
    size = max(1, len(points) // count)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]


PICTURES: dict[str, Callable[[], Figure]] = {
    "bench-decode": decode, "bench-turns": turns, "bench-memory": memory, "bench-reading": reading, "bench-recall-pairs": recall_pairs,
    "bench-recall-distance": recall_distance, "bench-gpu": gpu, "bench-training": training,
}  # fmt: skip


def draw(folder: Path) -> list[str]:
    """Draw every picture whose results are there into `folder`; returns why others are not."""
    left = []
    with mpl.rc_context(STYLE):
        for name, picture in PICTURES.items():
            try:
                figure = picture()
            except Missing as missing:
                left.append(f"{name}.svg is left as it is: {missing.args[0]}")
            else:
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            plt.close("all")
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    PAGE.write_text(with_tables(PAGE.read_text()))
    for line in draw(IMAGES):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    mpl.use("svg")
    main()

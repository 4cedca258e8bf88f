"""`retort bench loading`: what it takes to load the model at each precision, and what each precision costs in agreement and speed.

Each round is a process of its own: seconds from the call of `load_model` to the model, with the files of the weights and of the base model
in the system's cache and without (they are dropped from it first; `from disk` says how much was then read), memory of the process, bytes of the
weights by part, and of a conversation. The fastest round counts, because on a shared machine the slower ones measure the neighbours.

Then, over the prose of this project's documents: how far the next-token distributions are from float32's, how often the most probable
token is the same, and tokens a second. `int8` is measured with the kernels of `retnet_core.native` where they run, and with torch's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import _report as report
from benchmarks._agreement import divergence, largest_difference, prose, same_best
from retnet_core import load_model, native
from retnet_core.checkpoint import SHIPPED
from retnet_core.footprint import Footprint, process_bytes
from retnet_core.gguf import find_base_model

GOAL = 3.0  # seconds, issue "retnet_core: the RetNet as a first-class engine"
THREADS = 2
ROUNDS, QUICK_ROUNDS = 3, 1
TOKENS, QUICK_TOKENS = 512, 128
WRITTEN = 32
CHUNK = 256
_CHILD = "--in-this-process"

Way = tuple[str, str, dict[str, str]]
"""Its name, the precision, and what its process gets in its environment."""


def ways() -> list[Way]:
    """What can be measured here, the reference first."""
    found: list[Way] = [("float32", "float32", {}), ("bfloat16", "bfloat16", {})]
    if native.library() is not None:
        found.append(("int8, own kernels", "int8", {}))
    return [*found, ("int8, torch", "int8", {"RETNET_CORE_NATIVE": "off"})]


def forget(paths: Sequence[Path]) -> None:
    """Drop files from the system's cache, but for what another process has mapped."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_bytes() -> int:
    """Bytes that this process has made the disk read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def measure(precision: str, tokens: int, logits: Path | None) -> dict[str, Any]:
    """Load here; then, if logits are wanted, read and write."""
    torch.set_num_threads(THREADS)
    before, worked, begun = disk_bytes(), time.process_time(), time.perf_counter()
    model = load_model(precision=precision)
    seconds = time.perf_counter() - begun
    footprint = Footprint.of(model)
    found: dict[str, Any] = {
        "seconds": seconds,
        "worked": time.process_time() - worked,
        "disk": disk_bytes() - before,
        "process": process_bytes(),
    }
    found |= {
        "weights": footprint.weights,
        "conversation": footprint.conversation,
        "parked": footprint.parked,
        "kernels": model.kernels,
    }
    if logits is not None:
        ids = prose(model.tokenizer, tokens)
        read, state = model.read(ids, chunk=CHUNK)
        begun = time.perf_counter()
        model.read(ids, chunk=CHUNK)
        found["reading"] = tokens / (time.perf_counter() - begun)
        begun = time.perf_counter()
        model.read(ids[:WRITTEN], state, chunk=1)
        found["writing"] = WRITTEN / (time.perf_counter() - begun)
        save_file({"logits": read}, logits)
    return found


def child(way: Way, tokens: int, logits: Path | None) -> dict[str, Any]:
    """`measure` in a process of its own."""
    _, precision, environment = way
    command = [sys.executable, "-m", "benchmarks.loading", _CHILD, precision, str(tokens), str(logits or "")]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"loading at {precision} failed: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def loading(rows: report.Report, way: Way, rounds: int, files: Sequence[Path]) -> None:
    """Seconds with and without the system's cache, and memory."""
    warm = min((child(way, 0, None) for _ in range(rounds)), key=lambda found: found["seconds"])
    cold = []
    for _ in range(rounds):
        forget(files)
        cold.append(child(way, 0, None))
    slow = min(cold, key=lambda found: found["seconds"])
    process = {name: size / 1e6 for name, size in warm["process"].items()}
    note = f"{warm['worked']:.1f} s of a core; {process.get('resident', 0):.0f} MB resident, {process.get('peak', 0):.0f} at the peak"
    rows.add(f"{way[0]}: loading", warm["seconds"], "s", goal=GOAL, note=note)
    note = f"{slow['disk'] / 1e6:.0f} of {sum(path.stat().st_size for path in files) / 1e6:.0f} MB from disk"
    rows.add(f"{way[0]}: loading, files not in the cache", slow["seconds"], "s", goal=GOAL, note=note)
    weights = {part: size / 1e6 for part, size in warm["weights"].items()}
    rows.add(
        f"{way[0]}: weights", sum(weights.values()), "MB", note=", ".join(f"{part} {size:.1f}" for part, size in weights.items())
    )


def agreement(rows: report.Report, given: Sequence[Way], tokens: int, folder: Path) -> None:
    """Each way beside the first one."""
    reference: Tensor | None = None
    found: dict[str, Any] = {}
    for way in given:
        found = child(way, tokens, folder / "logits")
        logits = load_file(folder / "logits")["logits"]
        if reference is None:
            reference = logits
        else:
            note = f"same best token {100 * same_best(reference, logits):.1f} %, largest difference of a logit "
            note += f"{largest_difference(reference, logits):.1e} of the largest"
            rows.add(f"{way[0]}: KL to float32, {tokens} tokens", 1000 * divergence(reference, logits), "millinats", note=note)
        rows.add(f"{way[0]}: reading, {CHUNK} a pass", found["reading"], "tokens/s")
        rows.add(f"{way[0]}: writing, one conversation", found["writing"], "tokens/s")
    parked = ", ".join(f"{size / 1e6:.2f} parked in {precision}" for precision, size in found["parked"].items())
    rows.add("one conversation", found["conversation"] / 1e6, "MB", note=parked)


def main() -> None:
    if sys.argv[1:2] == [_CHILD]:
        precision, tokens, logits = sys.argv[2:5]
        print(json.dumps(measure(precision, int(tokens), Path(logits) if logits else None)))
        return
    given = report.arguments(__doc__ or "").parse_args()
    rows = report.Report("Loading the model")
    files = [find_base_model(), *sorted(SHIPPED.glob("*.safetensors"))]
    found = ways()
    for way in found:
        loading(rows, way, QUICK_ROUNDS if given.quick else ROUNDS, files)
    with tempfile.TemporaryDirectory() as folder:
        agreement(rows, found, QUICK_TOKENS if given.quick else TOKENS, Path(folder))
    rows.notes.append(
        f"{THREADS} threads, torch {torch.__version__}; {os.getloadavg()[0]:.1f} processes ran or waited in the last minute"
    )
    rows.finish(given)


if __name__ == "__main__":
    main()

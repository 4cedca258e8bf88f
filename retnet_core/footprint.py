"""What a loaded model takes: the weights by part, and a conversation's memory. `python -m retnet_core.checkpoint show` prints it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from retnet_core.checkpoint import CheckpointError, load_model
from retnet_core.model import Model
from retnet_core.quantize import PRECISIONS
from retnet_core.state import STATE_PRECISIONS

SHOWN, REFUSED = 0, 1
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes. `weights`: by part (see `Model.bytes_by_part`); `conversation`: of one that runs, in fp32; `parked`: of a state as bytes, by
    precision. All are the same after one token and after a million."""

    precision: str
    device: str
    kernels: str
    weights: dict[str, int]
    conversation: int
    parked: dict[str, int]

    @classmethod
    def of(cls, model: Model) -> Footprint:
        """That of a loaded model."""
        state = model.new_state()
        parked = {precision: len(state.to_bytes(precision=precision)) for precision in STATE_PRECISIONS}
        return cls(model.precision, str(model.device), model.kernels, model.bytes_by_part(), state.nbytes, parked)

    @property
    def weight_bytes(self) -> int:
        """Of all parts."""
        return sum(self.weights.values())

    def fields(self) -> dict[str, str | float]:
        """For one line of a log."""
        return {
            "precision": self.precision,
            "device": self.device,
            "kernels": self.kernels,
            "weights_mb": round(self.weight_bytes / _MB, 1),
            "conversation_mb": round(self.conversation / _MB, 2),
        }


def process_bytes() -> dict[str, int]:
    """This process's memory, `resident` and at its `peak`; empty where the system does not tell (it is no Linux)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        name: 1024 * int(found[field].split()[0]) for name, field in (("resident", "VmRSS"), ("peak", "VmHWM")) if field in found
    }


def add_show(commands: Any) -> None:
    """The command `show`, in the sub-parsers of a command line; `given.run(given)` runs it and returns the exit status."""
    show = commands.add_parser(
        "show",
        help="load the model, and print what it takes: seconds, bytes of the weights by part, bytes of a conversation",
        description="Load the model, and print what it takes.",
        epilog=f"Exit status: {SHOWN} loaded, {REFUSED} the weights cannot be loaded.",
    )
    show.add_argument(
        "weights",
        type=Path,
        nargs="?",
        metavar="WEIGHTS",
        help="a folder of safetensors, or one such file; left out: the shipped ones",
    )
    show.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS), help="(default auto: the fastest here)")
    show.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:1")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=run_show)


def run_show(given: argparse.Namespace) -> int:
    """What `add_show` describes."""
    begun = time.perf_counter()
    try:
        model = load_model(given.weights, given.precision, given.device)
    except (CheckpointError, FileNotFoundError, ValueError) as error:
        print(f"show: {error}", file=sys.stderr)
        return REFUSED
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    seconds, footprint, process = time.perf_counter() - begun, Footprint.of(model), process_bytes()
    if given.json:
        whole = {**asdict(footprint), "seconds": round(seconds, 2), "process": process, "fingerprint": model.fingerprint}
        print(json.dumps(whole, indent=2))
        return SHOWN
    print(f"{footprint.precision} on {footprint.device}, computed by {footprint.kernels}; loaded in {seconds:.1f} s")
    rows = [("weights", footprint.weight_bytes), *((f"  {part}", size) for part, size in footprint.weights.items())]
    rows.append(("one conversation", footprint.conversation))
    rows += [(f"  parked in {precision}", size) for precision, size in footprint.parked.items()]
    rows += [(f"process, {name}", size) for name, size in process.items()]
    for name, size in rows:
        print(f"{name:<34}{size / _MB:>10,.2f} MB")
    print(f"model {model.fingerprint}")
    return SHOWN

"""`python -m retnet_core.checkpoint convert`: RetNets of other packages into ours and back.

    python -m retnet_core.checkpoint convert retnet.pt our-folder --set activation_fn=swish
    python -m retnet_core.checkpoint convert hub-folder our-folder --check
    python -m retnet_core.checkpoint convert our-folder their-folder --to fla

The command line has `show` as well, which is in `retnet_core.footprint`.

`retnet_core.network_files.load_network("our-folder")` makes the network.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retnet_core.checkpoint import CheckpointError
from retnet_core.footprint import add_show
from retnet_core.foreign import ForeignError, Parts, joined
from retnet_core.foreign.files import FLA, KINDS, PICKLE, RETORT, TORCHSCALE, Checkpoint, read_checkpoint, write_checkpoint
from retnet_core.network import Form, RetNet
from retnet_core.network_files import CONFIG, WEIGHTS

DONE, REFUSED, USAGE, DIFFERENT = 0, 1, 2, 3
_CHECK_LENGTH = 67
"""Ids that the three forms are compared on: more than a chunk, and no multiple of one."""
_FORMS: tuple[Form, ...] = ("chunkwise", "recurrent")
_FORMS_AGREE = 1e-4
"""How far the forms' logits may be apart in fp32, relative to the largest."""
_PROGRESS = 0.5
"""Seconds between two lines of progress, on a terminal alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return given.run(given)
    except (CheckpointError, OSError) as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m retnet_core.checkpoint", description="Checkpoints of RetNets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    convert = commands.add_parser(
        "convert",
        help="a RetNet of torchscale 0.3.0 or flash-linear-attention 0.6.0 into ours, or back",
        description="Convert a RetNet of torchscale 0.3.0 or flash-linear-attention 0.6.0 into ours, or back. Weights are renamed, stacked and "
        "reshaped only: no number changes, and nothing in a file is run.",
        epilog=f"Exit status: {DONE} done, {REFUSED} the checkpoint cannot be read, expressed or written, {USAGE} a wrong command line, "
        f"{DIFFERENT} --check found a difference.",
    )
    convert.add_argument(
        "source", type=Path, metavar="SOURCE", help="a folder, or a file of weights (.safetensors, .pt, .pth, .bin)"
    )
    convert.add_argument("target", type=Path, metavar="TARGET", help="the folder to write")
    convert.add_argument("--from", dest="kind", choices=KINDS, help="whose SOURCE is; told from its files when left out")
    convert.add_argument(
        "--to", choices=KINDS, help=f"what TARGET is to be; left out: {RETORT}, or for a converted network what it was before"
    )
    convert.add_argument(
        "--config", type=Path, metavar="FILE", help=f"SOURCE's configuration, if it is not the {CONFIG} beside its weights"
    )
    convert.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of SOURCE's configuration that its files do not tell, under its package's name for it",
    )
    convert.add_argument(
        "--pt", action="store_true", help=f"write {TORCHSCALE}'s weights as model.pt for torch.load, not as {WEIGHTS}"
    )
    convert.add_argument(
        "--check", action="store_true", help="read TARGET again, compare every weight, and run it in all three forms"
    )
    convert.add_argument("--force", action="store_true", help="write over what is in TARGET")
    convert.set_defaults(run=_convert)
    add_show(commands)
    return parser


def _convert(given: argparse.Namespace) -> int:
    started = time.perf_counter()
    source = read_checkpoint(given.source, given.kind, config=given.config, settings=_settings(given.settings))
    kind = given.to or (source.origin.kind if source.kind == RETORT and source.origin else RETORT)
    if kind == source.kind:
        hint = f"; name what it is to be with --to {TORCHSCALE} or --to {FLA}" if kind == RETORT else ""
        raise ForeignError(f"{given.source} is {kind}'s already{hint}")
    if given.pt and kind != TORCHSCALE:
        raise ForeignError(f"--pt is for --to {TORCHSCALE}; this writes {kind}'s")
    _may_write(given.source, given.target, given.force)
    for name, value in source.assumed.items():
        print(f"  {name} = {value!r} is taken from {source.kind}'s defaults; --set {name}=… if it was another")
    tensors = sum(len(rows) for rows in source.parts.values())
    parameters = sum(part.numel() for rows in source.parts.values() for part in rows)
    size = sum(part.numel() * part.element_size() for rows in source.parts.values() for part in rows)
    write_checkpoint(source, given.target, kind, pickle=given.pt, wrote=_Progress(size))
    # An earlier conversion's weights of the other type would be taken for these.
    (given.target / (WEIGHTS if given.pt else PICKLE)).unlink(missing_ok=True)
    config = source.config
    print(f"{source.kind} → {kind}: {given.target}")
    print(
        f"  {_counted(config.layers, 'layer')}, width {config.width}, {_counted(config.heads, 'head')} with keys of {config.head_dim} and values of "
        f"{config.head_value_dim}, feed-forward {config.feed_forward}, vocabulary {config.vocabulary}"
        + (f", convolutions over {config.conv_width}" if config.conv_width else "")
    )
    print(f"  {parameters:,} parameters in {tensors} tensors, {size:,} bytes, {time.perf_counter() - started:.1f} s")
    return _check(source, given.target, kind) if given.check else DONE


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE`, the value JSON where it is some, Python's True, False and None as well, else text."""
    settings: dict[str, Any] = {}
    for setting in given:
        name, equals, text = setting.partition("=")
        if not name or not equals:
            raise ForeignError(f"--set {setting} is not NAME=VALUE")
        text = {"True": "true", "False": "false", "None": "null"}.get(text, text)
        try:
            settings[name] = json.loads(text)
        except ValueError:
            settings[name] = text
    return settings


def _may_write(source: Path, target: Path, force: bool) -> None:
    """Refuse to write over anything unless told to, and never over what is being read."""
    if target.is_file():
        raise ForeignError(f"{target} is a file; name a folder to write")
    if not target.is_dir() or not any(target.iterdir()):
        return
    folder = source if source.is_dir() else source.parent
    if folder.resolve() == target.resolve():
        raise ForeignError(f"{target} is where {source} is read from; name another folder")
    if not force:
        raise ForeignError(f"{target} exists and is not empty; name another folder, or write over it with --force")


class _Progress:
    """One line on a terminal that says how much is written; silent elsewhere."""

    def __init__(self, size: int) -> None:
        self._size, self._done, self._told = size, 0, time.monotonic()

    def __call__(self, written: int) -> None:
        self._done += written
        if sys.stderr.isatty() and time.monotonic() - self._told > _PROGRESS:
            self._told = time.monotonic()
            print(f"\r  {self._done / 1e9:.1f} of {self._size / 1e9:.1f} GB", end="\r", file=sys.stderr, flush=True)


def _check(source: Checkpoint, target: Path, kind: str) -> int:
    """Whether TARGET holds the network that SOURCE does, and whether it runs alike in all forms."""
    written = read_checkpoint(target, kind)
    if written.config.to_json() != source.config.to_json():
        print(f"  configuration: {written.config}, not {source.config}")
        return DIFFERENT
    worst, where = max(_differences(source.parts, written.parts), default=(0.0, ""))
    print(f"  weights read back: largest difference {worst:.2g}" + (f", in {where}" if worst else ""))
    forms = _forms(written)
    print(
        "  logits, largest difference from the parallel form: "
        + ", ".join(f"{form} {value:.1e}" for form, value in forms.items())
    )
    return DONE if worst == 0 and all(value <= _FORMS_AGREE for value in forms.values()) else DIFFERENT


def _differences(expected: Parts, actual: Parts) -> Iterator[tuple[float, str]]:
    """The largest difference of each tensor; infinite for one that is missing, unexpected or of another shape."""
    for name in expected.keys() ^ actual.keys():
        yield math.inf, name
    for name in expected.keys() & actual.keys():
        # One of them may be stacked where the other is in parts.
        finer = max(expected[name], actual[name], key=len)
        whole = [
            rows[0].split([part.shape[0] for part in finer]) if len(rows) == 1 else rows
            for rows in (expected[name], actual[name])
        ]
        for before, after in zip(*whole, strict=True):
            yield _difference(before, after), name


def _difference(before: Tensor, after: Tensor) -> float:
    if before.shape != after.shape or before.dtype != after.dtype:
        return math.inf
    # The same bits: NaN as well, which equals nothing.
    if torch.equal(before.contiguous().view(torch.uint8), after.contiguous().view(torch.uint8)):
        return 0.0
    return float((before.double() - after.double()).abs().nan_to_num(math.inf).max())


def _forms(checkpoint: Checkpoint) -> dict[str, float]:
    """How far each form's logits are from the parallel form's, in fp32 and relative to the largest, on ids that are anything."""
    network = RetNet.from_state(checkpoint.config, joined(checkpoint.parts)).float()
    ids = torch.randint(checkpoint.config.vocabulary, (1, _CHECK_LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parallel = network(ids, form="parallel")[0]
        largest = float(parallel.abs().max()) or 1.0
        return {form: float((network(ids, form=form)[0] - parallel).abs().max()) / largest for form in _FORMS}

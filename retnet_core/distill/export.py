"""`python -m retnet_core.distill export`: a checkpoint as the weights that are shipped: int8 with a scale a row, in files of a few MB.

With `--from` and `--share` the weights are those of another folder, moved so far towards the checkpoint's: what a tuning unlearns of the language
model comes back before what it has learnt is lost (arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from retnet_core.delta import FINAL_NORM, SUMS, Delta, hashes
from retnet_core.distill import DistillError
from retnet_core.distill.running import checkpoints, load_weights
from retnet_core.distill.student import Student
from retnet_core.distill.teacher import Base
from retnet_core.gguf import find_base_model
from retnet_core.network_files import write_tensors

LARGEST = int(15.5 * 2**20)
"""Bytes of a file's tensors."""
EXACT = ("ll", "ba")
"""Decays keep fp32: a head's half-life stands in their last bits."""
HALF = ("wa", "cw")
"""Small matrices that are not worth scales."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run's folder for its last one")
    parser.add_argument("out", type=Path, help="the folder to write; an older one of that name goes away")
    parser.add_argument("--from", dest="start", type=Path, help="weights to come from")
    parser.add_argument("--share", type=float, default=1.0, help="how far towards the checkpoint")
    parser.add_argument("--base", type=Path, help="the base model's GGUF, where its package is not installed")


def run(given: argparse.Namespace) -> None:
    base = Base.load(given.base)
    student = student_of(base, given.checkpoint)
    if given.start is not None:
        move(student, Student.from_weights(base, given.start), given.share)
    written = export(student, given.out, given.base or find_base_model())
    print(f"{given.out}: {sum(path.stat().st_size for path in written) / 1e6:.1f} MB in {len(written)} files")


def student_of(base: Base, place: Path) -> Student:
    """The student of a checkpoint, of a run's last checkpoint, or of a folder of weights."""
    found = checkpoints(place)
    checkpoint = found[-1] if found else place
    if not (checkpoint / "student.safetensors").is_file():
        return Student.from_weights(base, place)
    from retnet_core.network_files import read_tensors

    tensors = read_tensors(checkpoint / "student.safetensors")[0]
    student = Student(base, {name: tensor.clone() for name, tensor in tensors.items()}, torch.float32)
    load_weights(student, checkpoint)
    return student


@torch.no_grad()
def move(student: Student, start: Student, share: float) -> None:
    """Make the student's weights `start + share (student − start)`. Raises `DistillError` where the two are not alike.

    Corrections of low rank are products, whose factors may not be mixed one by one unless they come from the same beginning; those of a tuning
    that began with `start` do.
    """
    before = dict(start.named_parameters())
    for name, weight in student.named_parameters():
        if name not in before or before[name].shape != weight.shape:
            raise DistillError(f"{name} is not alike in both: --from names the weights that the run began with")
        weight.copy_(torch.lerp(before[name], weight, share))


def export(student: Student, out: Path, base: Path | None) -> list[Path]:
    """Write the files and their SHA256SUMS, which names the base model's file as well. Returns the files of weights."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    files: list[dict[str, Tensor]] = [{}]
    size = 0
    for _, tensors in stored(student):
        more = sum(tensor.nbytes for tensor in tensors.values())
        if size + more > LARGEST:
            files.append({})
            size = 0
        files[-1] |= tensors
        size += more
    rank = student.get_parameter("gA").shape[1] if "gA" in dict(student.named_parameters()) else 0
    written = []
    for number, tensors in enumerate(files, start=1):
        path = partial / f"delta-{number}.safetensors"
        write_tensors(path, {name: [tensor] for name, tensor in tensors.items()}, {"rank": str(rank), "format": "pt"})
        written.append(path)
    with Delta(partial) as delta:
        delta.check(student.config)
    sums = {path.name: digest.hex() for path, digest in hashes(written).items()}
    if base is not None:
        with base.open("rb") as file:
            sums[base.name] = hashlib.file_digest(file, "sha256").hexdigest()
    (partial / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return [out / path.name for path in written]


def stored(student: Student) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """(name, tensors of that name and its scales) of each layer's weights, then of the final norm, as they go to the files."""
    stacks = {name: weight.detach().float().cpu() for name, weight in student.named_parameters()}
    for number in range(student.config.layers):
        for name in sorted(stacks):
            if name != FINAL_NORM:
                yield f"{number}.{name}", _rounded(f"{number}.{name}", name, stacks[name][number])
    yield FINAL_NORM, _rounded(FINAL_NORM, FINAL_NORM, stacks[FINAL_NORM])


def _rounded(name: str, kind: str, weight: Tensor) -> dict[str, Tensor]:
    if kind in EXACT:
        return {name: weight.contiguous()}
    if weight.ndim < 2 or kind in HALF:
        return {name: weight.half().contiguous()}
    # The scale as it is stored, so that rounding is to what will be read.
    scale = (weight.abs().amax(1) / 127).clamp_min(1e-7).half()
    return {name: torch.round(weight / scale.float()[:, None]).clamp(-127, 127).to(torch.int8), f"{name}.s": scale}

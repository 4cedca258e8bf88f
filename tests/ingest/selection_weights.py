"""Small tuned weights in the format of `retnet_core.distill selection`, for the tests of encoder and reader."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from retnet_core.distill.selection.command import load_base, save
from retnet_core.distill.selection.network import Encoder, Reader
from workers import tuned

RANK = 2


def stirred(network: nn.Module, seed: int, size: float = 0.02) -> nn.Module:
    """The network with small random numbers added to all that is trained, as if it had been."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
            parameter.copy_(parameter.half().float())  # as it is stored
    return network.eval()


def make(folder: Path) -> tuple[Encoder, Reader]:
    """Write both files and their sums; returns the networks that they hold."""
    weights, _ = load_base(None)
    encoder, reader = Encoder(weights, RANK), Reader(weights, RANK)
    folder.mkdir(parents=True, exist_ok=True)
    save(stirred(encoder, 1), folder / tuned.ENCODER)
    save(stirred(reader, 2), folder / tuned.READER)
    seal(folder)
    return encoder, reader


def seal(folder: Path, **instead: str) -> None:
    """Write SHA256SUMS of what is there; `instead` gives other digests, by the name's stem."""
    paths = [*sorted(folder.glob("*.safetensors")), *(tuned.base_folder() / name for name in tuned.BASE_FILES)]
    lines = [f"{instead.get(path.stem, hashlib.sha256(path.read_bytes()).hexdigest())}  {path.name}\n" for path in paths]
    (folder / tuned.SUMS).write_text("".join(lines))


def rewrite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Put other tensors into a file, and its new sum beside it."""
    save_file(dict(tensors), path)
    seal(path.parent)

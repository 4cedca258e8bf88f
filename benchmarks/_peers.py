"""What `retort bench decode` compares with, each with its own best settings: llama.cpp, and transformers with a KV cache.

llama.cpp comes as the npm package node-llama-cpp, which ships builds for each family of instructions and picks the processor's own. It is
installed into `.bench/` at the first use (`npm ci`), never with Retort.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retnet_core.gguf import BLOCK, Gguf, find_base_model

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
INSTALLED = ROOT / ".bench"
_F32, _F16, _Q4_1, _Q8_0 = 0, 1, 3, 8


class PeerMissing(RuntimeError):
    """The peer cannot be run here, and why."""


class LlamaCpp:
    """llama.cpp in a process of its own, driven by `peers/llama.mjs`."""

    def __init__(self, model: Path, threads: int) -> None:
        command = [_node(), str(_installed() / "llama.mjs"), str(model), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.instructions = str(self._answer()["instructions"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @contextmanager
    def context(self, context: int, sequences: int = 1, *, flash: bool = False) -> Iterator[None]:
        """Sequences of `context` tokens at most."""
        self.call("open", context=context, sequences=sequences, flash=flash)
        try:
            yield
        finally:
            self.call("close")

    def call(self, operation: str, **arguments: object) -> dict[str, Any]:
        """One operation of `peers/llama.mjs`. Raises `PeerMissing` with its error."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": operation, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def rate(self, operation: str, **arguments: object) -> float:
        """Tokens a second of `read` or `decode`."""
        answer = self.call(operation, **arguments)
        return answer["tokens"] / answer["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerMissing("llama.cpp ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerMissing(f"llama.cpp: {answer['error']}")
        return answer


class Transformers:
    """The base model's shape in transformers, with its KV cache. The weights are random: speed does not depend on them."""

    def __init__(self, threads: int, dtype: torch.dtype) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.set_num_threads(threads)
        config = LlamaConfig(
            hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
            vocab_size=49152, tie_word_embeddings=True, rms_norm_eps=1e-5, max_position_embeddings=16384,
        )  # fmt: skip
        self._model: Any = LlamaForCausalLM(config)
        self._model.to(dtype).eval()

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> tuple[float, Any]:
        """Tokens a second of reading, and the cache."""
        begun = time.perf_counter()
        out = self._model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        return len(ids) / (time.perf_counter() - begun), out.past_key_values

    @torch.inference_mode()
    def decode(self, cache: Any, tokens: int) -> float:
        """Tokens a second of writing behind the cache, which grows."""
        token = torch.tensor([[1]])
        begun = time.perf_counter()
        for _ in range(tokens):
            out = self._model(token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        return tokens / (time.perf_counter() - begun)


def q8_0(folder: Path) -> Path:
    """The base model with its 4-bit matrices stored in 8 bits, which is what the int8 RetNet is to be compared with."""
    folder.mkdir(exist_ok=True)
    target = folder / "base.Q8_0.gguf"
    if not target.exists():
        _rewrite(find_base_model(), target)
    return target


def _rewrite(source: Path, target: Path) -> None:
    """Copy a GGUF, Q4_1 tensors as Q8_0. Metadata is copied as it stands; only the list of tensors and their data change."""
    file = Gguf(source)
    try:
        with source.open("rb") as raw:
            head = raw.read(24)
        metadata = file.data[24 : file.tensors_at]
        entries, data, offset = [], [], 0
        for name, entry in file.entries.items():
            payload = _to_q8_0(file.tensor(name)) if entry.kind == _Q4_1 else file.stored(name)
            kind = _Q8_0 if entry.kind == _Q4_1 else entry.kind
            text = name.encode()
            shape = tuple(reversed(entry.shape))
            entries.append(struct.pack(f"<Q{len(text)}sI{len(shape)}QIQ", len(text), text, len(shape), *shape, kind, offset))
            payload += bytes(-len(payload) % file.alignment)
            data.append(payload)
            offset += len(payload)
        body = head + metadata + b"".join(entries)
        scratch = target.with_suffix(".part")
        scratch.write_bytes(body + bytes(-len(body) % file.alignment) + b"".join(data))
        scratch.replace(target)
    finally:
        file.close()


def _to_q8_0(values: Tensor) -> bytes:
    """34 bytes a block of 32: fp16 scale, 32 int8."""
    blocks = values.reshape(-1, BLOCK)
    scale = (blocks.abs().amax(1, keepdim=True) / 127).half()
    steps = torch.round(blocks / scale.float().clamp_min(1e-12)).clamp_(-127, 127).to(torch.int8)
    return torch.cat((scale.view(torch.int8), steps), 1).numpy().tobytes()


def _node() -> str:
    if path := shutil.which("node"):
        return path
    raise PeerMissing("node is not installed")


def _installed() -> Path:
    """The folder with llama.mjs and its packages."""
    INSTALLED.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "llama.mjs"):
        shutil.copy(PEERS / name, INSTALLED / name)
    if not (INSTALLED / "node_modules" / "node-llama-cpp").exists():
        # Without scripts: its own would look for other builds. Without optional packages: those are builds for graphics cards.
        command = ["npm", "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissing(f"node-llama-cpp cannot be installed: {done.stderr.strip()[-300:]}")
    return INSTALLED

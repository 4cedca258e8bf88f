"""What the steps of an answer share: connections, the model's engine, encoder and reader, and how much was done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
from redis.asyncio import Redis

from app.config import Settings
from app.db.session import Database
from retnet_core import Engine, Model
from workers.answer.prefixes import Prefixes
from workers.encoder import Encoder
from workers.reader import Page, Reader, Reading


class Vectors:
    """The encoder off the event loop, one call at a time: torch spreads a single call over its threads already."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [texts, 384], each row of length 1."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._encoder.encode, list(texts))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class Readings:
    """The reader off the event loop, one question at a time; without a reader nothing is read."""

    def __init__(self, reader: Reader | None = None) -> None:
        self._reader = reader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    async def read(self, question: str, pages: Sequence[Page]) -> list[Reading] | None:
        """A reading a page, in their order; None without a reader."""
        if self._reader is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._reader.read, question, list(pages))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class Counters:
    """Since the process began; its heartbeat carries them."""

    answers: int = 0
    refusals: int = 0
    tokens: int = 0
    writing_s: float = 0.0
    requests: int = 0
    failures: int = 0

    @property
    def tokens_per_second(self) -> float:
        return round(self.tokens / self.writing_s, 1) if self.writing_s else 0.0


@dataclass(slots=True)
class Services:
    settings: Settings
    name: str  # of this generator; stands in each row that it writes
    database: Database
    bus: Redis
    states: Redis
    model: Model
    engine: Engine
    vectors: Vectors
    prefixes: Prefixes
    readings: Readings = field(default_factory=Readings)
    counters: Counters = field(default_factory=Counters)
    # Conversations whose state is reading the last answer just now: their next turn waits for it instead of reading it too.
    remembering: dict[UUID, asyncio.Event] = field(default_factory=dict)

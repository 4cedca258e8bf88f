"""Vectors of a page's passages and sentences. Runs where torch is; imported there alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from workers.encoder import VECTOR_SIZE, Encoder


@cache
def load_encoder(threads: int) -> tuple[Encoder, ThreadPoolExecutor]:
    """The process's encoder, loaded once, and as many threads to use it from.

    Each thread encodes a share of a page with torch on one core. Torch's own threads would wait for each other in every
    step, spinning: beside a busy generator that costs more than it gains.
    """
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="encoder")
    return pool.submit(Encoder.load, 1, bulk=True).result(), pool


def passage_text(title: str, draft: dict[str, Any]) -> str:
    """What a passage's vector is made of: its place, then its words."""
    path = " › ".join(draft["heading_path"])
    return f"{title} — {path}\n{draft['text']}" if path else f"{title}\n{draft['text']}"


def sentence_texts(title: str, draft: dict[str, Any]) -> list[str]:
    """Each sentence after its nearest heading: alone, "It is off by default." says nothing."""
    heading = draft["heading_path"][-1] if draft["heading_path"] else title
    return [f"{heading}: {draft['text'][start:end]}" for start, end in draft["sentences"]]


async def encode(threads: int, texts: Sequence[str]) -> np.ndarray:
    """Vectors of `texts`, float32 [texts, 384], made by all threads together while the event loop goes on."""
    encoder, pool = load_encoder(threads)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    shares = [share for start in range(threads) if (share := order[start::threads])]
    loop = asyncio.get_running_loop()
    parts = await asyncio.gather(*(loop.run_in_executor(pool, encoder.encode, [texts[row] for row in rows]) for rows in shares))
    vectors = np.empty((len(texts), VECTOR_SIZE), dtype=np.float32)
    for rows, part in zip(shares, parts, strict=True):
        vectors[rows] = part
    return vectors


async def embed(threads: int, title: str, drafts: Sequence[dict[str, Any]]) -> tuple[np.ndarray, list[bytes]]:
    """(vectors of the passages, float32 [passages, 384]; for each passage its sentences' vectors, float16 row-major bytes).

    All texts of a page are encoded together, so that those of like length share a pass.
    """
    texts = [passage_text(title, draft) for draft in drafts]
    sentences = [sentence_texts(title, draft) for draft in drafts]
    vectors = await encode(threads, texts + [sentence for group in sentences for sentence in group])
    found, place = [], len(drafts)
    for group in sentences:
        found.append(np.ascontiguousarray(vectors[place : place + len(group)], dtype=np.float16).tobytes())
        place += len(group)
    return vectors[: len(drafts)], found

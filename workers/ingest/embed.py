"""Vectors of a page's passages and sentences. Runs where torch is; imported there alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from workers.encoder import Encoder

# All of the model's work happens in one thread: every thread that calls torch would get helpers and memory pools of its own.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")


@cache
def load_encoder(threads: int) -> Encoder:
    """The process's encoder, loaded once."""
    return _thread.submit(Encoder.load, threads, bulk=True).result()


def passage_text(title: str, draft: dict[str, Any]) -> str:
    """What a passage's vector is made of: its place, then its words."""
    path = " › ".join(draft["heading_path"])
    return f"{title} — {path}\n{draft['text']}" if path else f"{title}\n{draft['text']}"


def sentence_texts(title: str, draft: dict[str, Any]) -> list[str]:
    """Each sentence after its nearest heading: alone, "It is off by default." says nothing."""
    heading = draft["heading_path"][-1] if draft["heading_path"] else title
    return [f"{heading}: {draft['text'][start:end]}" for start, end in draft["sentences"]]


async def embed(encoder: Encoder, title: str, drafts: Sequence[dict[str, Any]]) -> tuple[np.ndarray, list[bytes]]:
    """(vectors of the passages, float32 [passages, 384]; for each passage its sentences' vectors, float16 row-major bytes).

    All texts of a page go through the model together, so that those of like length share a pass; in a thread, so that the
    page's claim is renewed meanwhile.
    """
    texts = [passage_text(title, draft) for draft in drafts]
    sentences = [sentence_texts(title, draft) for draft in drafts]
    texts += [sentence for group in sentences for sentence in group]
    vectors = await asyncio.get_running_loop().run_in_executor(_thread, encoder.encode, texts)
    found, place = [], len(drafts)
    for group in sentences:
        found.append(np.ascontiguousarray(vectors[place : place + len(group)], dtype=np.float16).tobytes())
        place += len(group)
    return vectors[: len(drafts)], found

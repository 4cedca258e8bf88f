"""Batches made ahead while the network learns from the one before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

LOOK = 0.1  # seconds between looks at whether anybody still wants batches


def prefetched(batches: Iterable[Any], depth: int = 6) -> Iterator[Any]:
    """The same, made ahead in a thread, which ends with the iterator. What goes wrong there goes wrong here."""
    waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    end, left = object(), threading.Event()

    def put(batch: Any, error: BaseException | None = None) -> None:
        while not left.is_set():
            try:
                return waiting.put((batch, error), timeout=LOOK)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for batch in batches:
                put(batch)
                if left.is_set():
                    return
            put(end)
        except BaseException as error:
            put(end, error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            batch, error = waiting.get()
            if error is not None:
                raise error
            if batch is end:
                return
            yield batch
    finally:
        left.set()
        thread.join()

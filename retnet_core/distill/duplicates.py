"""Near-identical passages: the same page in two versions or two packages, found by the word runs that they share."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from zlib import crc32

RUN_WORDS = 6  # a run of so many words is rarely written twice by chance
SAMPLED = 6  # one run in so many is looked at, chosen by its hash, so that both copies choose the same ones
SHARE = 0.5  # of the sampled runs, in one earlier passage: a copy with changes
MASK = (1 << 64) - 1
_WORD = re.compile(r"\w+")


class Seen:
    """Remembers passages by a sample of their word runs; about 20 numbers a passage."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}
        self._whole: set[int] = set()
        self._count = 0

    def before(self, text: str) -> bool:
        """Whether a passage much like this one was given before. One that was not is remembered."""
        words = _WORD.findall(text.lower())
        whole = int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest(), "little")
        if whole in self._whole:
            return True
        runs = array("Q", {number for number in _runs(words) if number % SAMPLED == 0})
        shared = Counter(self._first[number] for number in runs if number in self._first)
        if runs and shared and shared.most_common(1)[0][1] > SHARE * len(runs):
            return True
        self._whole.add(whole)
        for number in runs:
            self._first.setdefault(number, self._count)
        self._count += 1
        return False


def _runs(words: list[str]) -> list[int]:
    """A number for each run of words, the same in every process: Python's hash of whole numbers is not salted."""
    numbers = [crc32(word.encode()) for word in words]
    return [hash(tuple(numbers[place : place + RUN_WORDS])) & MASK for place in range(max(len(words) - RUN_WORDS + 1, 1))]

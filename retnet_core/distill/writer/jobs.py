"""What is asked of which passage, as prompts: made ahead in other processes, for cutting and tokenising text would keep the writer waiting.

What is asked depends on the seed, the passage and the turn alone, not on how many processes there are or where a run was ended.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import tokenizers

from retnet_core.distill.handwritten.rows import Passage
from retnet_core.distill.writer import tasks
from retnet_core.distill.writer.samples import Sentences, page_of
from retnet_core.distill.writer.tasks import Ask, Page

# Sentences that are asked for have so many words.
WORDS = (5, 60)
TWO_SENTENCES, FOLLOW_UPS, TWO_PASSAGES, UNANSWERED = 0.2, 0.12, 0.1, 0.9
# Shares of the styles among the hand-written rows.
STYLE_SHARES = {
    "yesno": 630, "howto": 304, "problem": 299, "casual": 288, "number": 243, "plain": 238, "terse": 161, "which": 160,
    "why": 108, "when": 85, "typo": 59, "who": 35, "compare": 27,
}  # fmt: skip
CHUNK = 64  # passages that a process makes jobs of at once
AHEAD = 4  # chunks a process


@dataclass(frozen=True, slots=True)
class Request:
    """A passage to ask of, and the one after it in the list. `turn`: how often it was asked before."""

    number: int
    turn: int
    passage: Passage
    following: Passage | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt: `ids` begin with the `read` tokens of the page, which has so many `sentences`, and end with what is asked."""

    number: int
    turn: int
    passages: tuple[str, ...]
    sentences: int
    asks: list[Ask]
    ids: list[int]
    read: int


@dataclass(frozen=True, slots=True)
class Desk:
    """Makes jobs of requests. `asks`: things asked of a page at once; `room`: tokens that a prompt may have."""

    tokenizer: tokenizers.Tokenizer
    sentences: Sentences
    asks: int
    room: int
    seed: int

    def jobs(self, requests: Iterable[Request]) -> list[Job]:
        """Those of passages that something can be asked of and that fit."""
        return [job for request in requests if (job := self.job(request)) is not None]

    def job(self, request: Request) -> Job | None:
        """Of the passage, or of it and the next of its document together."""
        shuffled = random.Random(f"{self.seed} {request.passage.id} {request.turn}")
        page = page_of([request.passage], self.sentences)
        if page is None:
            return None
        passages, asks = (request.passage,), None
        other = request.following
        if shuffled.random() < TWO_PASSAGES and other is not None and are_neighbours(request.passage, other):
            joined = page_of([request.passage, other], self.sentences)
            asks = asks_of_two(joined, shuffled) if joined is not None else None
            if joined is not None and asks is not None:
                passages, page = (request.passage, other), joined
        if asks is None:
            fit = fit_places(page.parts[0])
            if not fit:
                return None
            asks = asks_of(fit, self.asks, shuffled)
        read = self._encode(tasks.page_text(page))
        ids = read + self._encode(tasks.write_text(asks))
        if len(ids) >= self.room:
            return None
        names = tuple(one.id for one in passages)
        return Job(request.number, request.turn, names, len(page.sentences), asks, ids, len(read))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def made(desk: Desk, requests: Iterator[Request], processes: int) -> Iterator[Job]:
    """The jobs of all `requests`, in their order; made ahead by so many processes, or here and when asked for where there are none."""
    if processes < 1:
        for request in requests:
            yield from desk.jobs([request])
        return
    # A process that has begun to use a GPU can't be forked.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(desk,)) as pool:
        waiting: deque[Future[list[Job]]] = deque()
        try:
            for chunk in _chunks(requests):
                waiting.append(pool.submit(_jobs, chunk))
                if len(waiting) >= AHEAD * processes:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


_desk: Desk | None = None
"""What a process was started with."""


def _begin(desk: Desk) -> None:
    global _desk
    _desk = desk
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _jobs(requests: list[Request]) -> list[Job]:
    assert _desk is not None
    return _desk.jobs(requests)


def _chunks(requests: Iterator[Request]) -> Iterator[list[Request]]:
    chunk: list[Request] = []
    for request in requests:
        chunk.append(request)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def are_neighbours(one: Passage, other: Passage) -> bool:
    """Of one package and of headings that begin alike."""
    return one.package == other.package and one.title.split(" - ")[0] == other.title.split(" - ")[0]


def fit_places(part: tuple[str, tuple[str, ...]]) -> list[int]:
    """The sentences of a part of a page that say something of their own."""
    low, high = WORDS
    return [place for place, sentence in enumerate(part[1]) if low <= len(sentence.split()) <= high]


def styles(shuffled: random.Random) -> tuple[str, ...]:
    """One or two styles, as often as the hand-written rows have them."""
    names, shares = list(STYLE_SHARES), list(STYLE_SHARES.values())
    return tuple(dict.fromkeys(shuffled.choices(names, shares, k=shuffled.choice((1, 2)))))


def asks_of_two(page: Page, shuffled: random.Random) -> list[Ask] | None:
    """Of a page of two parts: what a sentence of each answers together, what one of the second answers, and what nothing does. None where a
    part has no sentence to ask of."""
    first, second = (fit_places(part) for part in page.parts)
    if not first or not second:
        return None
    after = len(page.parts[0][1])
    return [
        Ask((shuffled.choice(first), after + shuffled.choice(second)), styles(shuffled)),
        Ask((after + shuffled.choice(second),), styles(shuffled)),
        Ask((), styles(shuffled)),
    ]


def asks_of(fit: Sequence[int], count: int, shuffled: random.Random) -> list[Ask]:
    """What is asked of one page: questions that single sentences or two in a row answer, a follow-up now and then, and one that nothing
    answers."""
    places = list(fit)
    shuffled.shuffle(places)
    answered = count - 1 if shuffled.random() < UNANSWERED else count
    asks = []
    for place in places[:answered]:
        both = (place, place + 1) if place + 1 in fit and shuffled.random() < TWO_SENTENCES else (place,)
        asks.append(Ask(both, styles(shuffled), shuffled.random() < FOLLOW_UPS))
    if answered < count:
        asks.append(Ask((), styles(shuffled)))
    return asks

"""Who runs next: a bounded queue, slots, and turns between groups.

A sequence waits in the queue, reads its prompt in a slot, a chunk at a time, then writes. Knows nothing of tensors' contents.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Overloaded(RuntimeError):
    """The queue is full: try again later, or elsewhere."""


class Schedulable(Protocol):
    """What the scheduler needs to know of a sequence."""

    @property
    def group(self) -> str: ...

    @property
    def priority(self) -> int: ...

    @property
    def needs(self) -> int:
        """Bytes that it holds from when it is admitted until it leaves."""
        ...

    def next_stop(self) -> int:
        """How many ids it can read before something has to be noted (the prompt's end or a wanted state)."""
        ...


S = TypeVar("S", bound=Schedulable)


@dataclass(slots=True)
class Turns(Generic[S]):
    """Sequences in order of their turn: the highest priority first; within it one group after the other; within a group first come, first served."""

    queues: dict[int, OrderedDict[str, deque[S]]] = field(default_factory=dict)
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[S]:
        return itertools.chain.from_iterable(queue for groups in self.queues.values() for queue in groups.values())

    def add(self, sequence: S) -> None:
        """To the end of its group's queue; a new group goes behind the others."""
        self.queues.setdefault(sequence.priority, OrderedDict()).setdefault(sequence.group, deque()).append(sequence)
        self.count += 1

    def peek(self) -> S:
        """The next one, which stays. Raises `IndexError` when there is none."""
        if not self.count:
            raise IndexError("nobody is waiting")
        return next(iter(self.queues[max(self.queues)].values()))[0]

    def take(self) -> S:
        """The next one; its group goes behind the others. Raises `IndexError` when there is none."""
        if not self.count:
            raise IndexError("nobody is waiting")
        priority = max(self.queues)
        groups = self.queues[priority]
        group, queue = next(iter(groups.items()))
        sequence = queue.popleft()
        groups.move_to_end(group)
        self._forget_empty(priority, group)
        self.count -= 1
        return sequence

    def put_back(self, taken: Sequence[S]) -> None:
        """Sequences taken in this order are again the first of their groups; their groups' turn is over."""
        for sequence in taken:
            self.queues.setdefault(sequence.priority, OrderedDict()).setdefault(sequence.group, deque())
        for sequence in reversed(taken):
            self.queues[sequence.priority][sequence.group].appendleft(sequence)
        self.count += len(taken)

    def remove(self, sequence: S) -> None:
        """Out of turn. Raises `ValueError` when it is not here."""
        self.queues[sequence.priority][sequence.group].remove(sequence)
        self._forget_empty(sequence.priority, sequence.group)
        self.count -= 1

    def _forget_empty(self, priority: int, group: str) -> None:
        groups = self.queues[priority]
        if not groups[group]:
            del groups[group]
        if not groups:
            del self.queues[priority]


class Scheduler(Generic[S]):
    """The queue and the slots of an engine. Not thread-safe: the engine holds its lock around it.

    `slots`: sequences that read or write at once. `chunk`: ids of one prompt read in one step; all readers together read less than two
    chunks, which bounds how long a writer waits for its next token. `queue_limit`: sequences that may wait. `memory`: bytes that those in the
    slots may need together, unless there is only one; infinite by default.
    """

    def __init__(self, slots: int, chunk: int, queue_limit: int, memory: float = math.inf) -> None:
        if min(slots, chunk) < 1 or queue_limit < 0:
            raise ValueError(
                f"slots and chunk must be at least 1 and the queue's limit at least 0, not {slots}, {chunk} and {queue_limit}"
            )
        self.slots, self.chunk, self.queue_limit, self.memory = slots, chunk, queue_limit, memory
        self.waiting: Turns[S] = Turns()
        self.readers: Turns[S] = Turns()
        self.writers: list[S] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.waiting or self.readers or self.writers)

    def submit(self, sequence: S) -> None:
        """Let it wait. Raises `Overloaded` when the queue is full; free slots count as places in it."""
        free = self.slots - len(self.readers) - len(self.writers)
        if len(self.waiting) >= self.queue_limit + free:
            raise Overloaded(
                f"{len(self.waiting)} requests are waiting already, and the queue's limit is {self.queue_limit}: try again later"
            )
        self.waiting.add(sequence)

    def admit(self) -> list[S]:
        """Move waiting sequences into free slots, as readers; returns those moved. One for which there is no memory yet holds up those behind it:
        it would never run if they went first."""
        admitted = []
        held = sum(sequence.needs for sequence in itertools.chain(self.readers, self.writers))
        while self.waiting and len(self.readers) + len(self.writers) < self.slots:
            held += self.waiting.peek().needs
            if held > self.memory and (self.readers or self.writers):
                break
            sequence = self.waiting.take()
            self.readers.add(sequence)
            admitted.append(sequence)
        return admitted

    def plan_reading(self) -> list[tuple[S, int]]:
        """Who reads how many ids in this step: each group's turn in order, within a group first come, first served, so that of several
        long prompts the first is read soon instead of all of them late. A reader keeps its place in the slots.

        Readers are added until they have `chunk` ids together, each with a whole chunk or what is left of its prompt, so that a step reads
        less than two chunks. A prompt is thus cut at the same places in any company, and its numbers come out the same.
        """
        plan: list[tuple[S, int]] = []
        budget = self.chunk
        while budget > 0 and self.readers:
            sequence = self.readers.take()
            length = min(self.chunk, sequence.next_stop())
            plan.append((sequence, length))
            budget -= length
        self.readers.put_back([sequence for sequence, _ in plan])
        return plan

    def starts_writing(self, sequence: S) -> None:
        """The reader has read its prompt; it writes from now on, in the last place among the writers."""
        self.readers.remove(sequence)
        self.writers.append(sequence)

    def finish_reader(self, sequence: S) -> None:
        """The reader leaves its slot."""
        self.readers.remove(sequence)

    def finish_writer(self, place: int) -> None:
        """The writer at this place leaves; the last one takes the place, so that writers stay without gaps."""
        last = self.writers.pop()
        if place < len(self.writers):
            self.writers[place] = last

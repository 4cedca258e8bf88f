"""The engine: many requests, one model, one thread. Each step: schedule → forward → choose → publish.

Ids go in, ids come out; the engine knows nothing of text but stop strings.
"""

from __future__ import annotations

import math
import os
import threading
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from retnet_core.errors import NotFinite, RequestError
from retnet_core.handle import EngineClosed, Handle
from retnet_core.lanes import Lanes
from retnet_core.model import Model, Span
from retnet_core.request import Request
from retnet_core.sampler import choose
from retnet_core.scheduler import Scheduler
from retnet_core.sequence import Sequence
from retnet_core.state import State, StateMismatch

_CONTROL_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_UNKNOWN_MEMORY = 4 << 30
"""Bytes, where the system does not say."""


class Engine:
    """Continuous batching over one model, in a thread of its own.

    `slots`: requests that run at once. `prefill_chunk`: ids of one prompt read in one step (all prompts: less than two chunks), so that
    nobody who writes waits longer than that.
    `queue_limit`: requests that may wait beyond the slots. `threads`: of the matrix products. `memory_limit`: bytes that the requests in the
    slots may hold together (`Request.bytes_needed`); one that alone needs more is refused. None: half of what the machine, or the container, has.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int = 8,
        prefill_chunk: int = 64,
        queue_limit: int = 64,
        threads: int = 2,
        memory_limit: int | None = None,
    ) -> None:
        if threads < 1 or (memory_limit is not None and memory_limit < 1):
            raise ValueError(f"threads and memory_limit must be at least 1, not {threads} and {memory_limit}")
        self.model = model
        self.memory_limit = machine_memory() // 2 if memory_limit is None else memory_limit
        self._scheduler: Scheduler[Sequence] = Scheduler(slots, prefill_chunk, queue_limit, self.memory_limit)
        self._threads = threads
        self._writing = Lanes(model.config, slots, model.device)
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to run what is submitted. Raises `RuntimeError` when it was started before."""
        if self._thread is not None:
            raise RuntimeError("an engine starts once")
        self._thread = threading.Thread(target=self._run, name="retnet-engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step; whatever is unfinished fails with `EngineClosed`. May be called more than once."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._fail_all(EngineClosed("the engine was closed"))

    def submit(self, request: Request) -> Handle:
        """Queue a request, from any thread; it runs once the engine is started.

        Raises at once what makes it impossible: `EmptyPrompt`, `UnknownToken`, `TooLarge` or another `RequestError`; `StateMismatch` for
        another model's state and `StateOutOfRange` for a damaged one; `LookupError` for stop strings without a tokenizer; `Overloaded` when the
        queue is full; `EngineClosed` after `close` or a failure of the engine.
        """
        config, stop_ids = self.model.config, request.stop_ids
        if request.state is not None and request.state.model_fingerprint != self.model.fingerprint:
            raise StateMismatch(
                f"the state belongs to the model {request.state.model_fingerprint!r}, and here runs {self.model.fingerprint!r}"
            )
        request = request.checked(config)
        needs = request.fit(config, self.memory_limit)
        if stop_ids is None:
            stop_ids = (self.model.tokenizer.end_id,) if request.max_new_tokens else ()
        tokenizer = self.model.tokenizer if request.stop_strings else None
        handle = Handle(self._notify)
        sequence = Sequence(replace(request, stop_ids=stop_ids), handle, needs, tokenizer)
        with self._wake:
            if self._closing:
                raise EngineClosed("the engine is closed")
            self._scheduler.submit(sequence)
            self._wake.notify()
        return handle

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        self.model.use_threads(self._threads)
        try:
            with torch.inference_mode():
                while True:
                    with self._wake:
                        while not self._scheduler.busy and not self._closing:
                            self._wake.wait()
                        if self._closing:
                            return
                        for sequence in self._scheduler.admit():
                            self._begin(sequence)
                    self._step()
        except Exception as error:
            with self._wake:
                self._closing = True
            self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        with self._wake:
            scheduler = self._scheduler
            for sequence in (*scheduler.waiting, *scheduler.readers, *scheduler.writers):
                sequence.handle.fail(error)
            self._scheduler = Scheduler(scheduler.slots, scheduler.chunk, scheduler.queue_limit, scheduler.memory)

    def _begin(self, sequence: Sequence) -> None:
        """Give the sequence memory of its own, continued from a copy of its state."""
        sequence.memory = Lanes(self.model.config, 1, self.model.device)
        if sequence.request.state is not None:
            sequence.memory.write(0, sequence.request.state)
        if sequence.wants_state:
            sequence.keep(self._state_of(sequence.memory, 0))

    def _step(self) -> None:
        """Schedule, one forward pass for everybody, choose and publish: each writer's last id, and up to a chunk of the readers' prompts."""
        self._drop_cancelled()
        writers = list(self._scheduler.writers)
        plan = self._scheduler.plan_reading()
        hidden = self._forward(writers, plan)
        for sequence in writers:
            sequence.pending = False
        rows = [(row, sequence) for row, sequence in enumerate(writers) if sequence.wants_logits]
        row = len(writers)
        for sequence, length in plan:
            row += length
            sequence.read += length
            if sequence.wants_state:
                sequence.keep(self._state_of(sequence.memory, 0))
            if sequence.wants_logits:
                rows.append((row - 1, sequence))
        if rows:
            self._choose(hidden, rows)
        self._move_on([sequence for sequence, _ in plan])

    def _forward(self, writers: list[Sequence], plan: list[tuple[Sequence, int]]) -> Tensor:
        """Hidden states, one row a writer, then one a prompt id that is read."""
        ids = [sequence.ids[-1] for sequence in writers]
        spans = []
        for sequence, length in plan:
            if length:
                ids += sequence.request.ids[sequence.read : sequence.read + length]
                spans.append(Span(sequence.memory, 0, length))
        if not ids:
            return torch.empty(0, self.model.config.width)
        return self.model.forward(torch.tensor(ids), self._writing if writers else None, len(writers), spans)

    def _choose(self, hidden: Tensor, rows: list[tuple[int, Sequence]]) -> None:
        """Take the logits that are wanted, and the next tokens, from these rows of `hidden`. What is wrong with one row fails that request only."""
        logits = self.model.logits(hidden[[row for row, _ in rows]])
        writing = []
        for row, (_, sequence) in enumerate(rows):
            if sequence.request.want_logits and not sequence.ids:
                self._keep_logits(sequence, logits[row])
            if sequence.request.max_new_tokens and sequence.finish is None:
                writing.append((row, sequence))
        if len(writing) < len(rows):
            logits = logits[[row for row, _ in writing]]
        if not writing:
            return
        for (_, sequence), choice in zip(writing, choose(logits, [sequence.sampler for _, sequence in writing]), strict=True):
            if isinstance(choice, RequestError):
                sequence.fail(choice)
            else:
                sequence.take(choice)

    @staticmethod
    def _keep_logits(sequence: Sequence, logits: Tensor) -> None:
        with torch.inference_mode(False):
            # On the host. A caller may change the logits of its result, which torch forbids for tensors made in inference mode.
            sequence.logits = torch.empty(logits.shape).copy_(logits)
        # One sum finds out whether to look closer.
        if not math.isfinite(float(logits.sum())) and not bool(logits.isfinite().all()):
            place = int((~logits.isfinite()).nonzero()[0])
            sequence.fail(NotFinite(f"the model's logit of token {place} is {float(logits[place])}; expected a number"))

    def _state_of(self, lanes: Lanes, lane: int) -> State:
        with torch.inference_mode(False):
            # A caller may compute with it as with any tensor.
            return self.model.state_of(lanes, lane)

    def _move_on(self, readers: list[Sequence]) -> None:
        """Readers whose prompt is read write or leave; writers that are done leave, and the last writer takes the place."""
        scheduler = self._scheduler
        for place in range(len(scheduler.writers) - 1, -1, -1):
            sequence = scheduler.writers[place]
            if sequence.done:
                self._leave(sequence, self._writing, place)
                self._close_gap(place)
        for sequence in readers:
            if not sequence.has_read and sequence.finish is None:
                continue
            if sequence.finish is None and not sequence.request.max_new_tokens:
                sequence.end("length")
            if sequence.done:
                scheduler.finish_reader(sequence)
                self._leave(sequence, sequence.memory, 0)
            else:
                scheduler.starts_writing(sequence)
                self._writing.copy(sequence.memory, 0, len(scheduler.writers) - 1)
                del sequence.memory

    def _close_gap(self, place: int) -> None:
        last = len(self._scheduler.writers) - 1
        self._scheduler.finish_writer(place)
        if place != last:
            self._writing.copy(self._writing, last, place)

    def _leave(self, sequence: Sequence, memory: Lanes | None, lane: int) -> None:
        """Hand the result over, unless its caller knows already that there is none; the slot is free from now on."""
        state = None
        if sequence.finish != "failed" and memory is not None and sequence.request.return_state:
            state = self._state_of(memory, lane)
            if not sequence.acceptable(state):
                return
        if sequence.finish != "failed":
            sequence.handle.succeed(sequence.result(state))

    def _drop_cancelled(self) -> None:
        """Writers end with the id that they emitted last, which the state still has to consume; everybody else leaves at once."""
        scheduler = self._scheduler
        with self._wake:
            unread = [
                (turns, sequence)
                for turns in (scheduler.waiting, scheduler.readers)
                for sequence in turns
                if sequence.handle.cancelled
            ]
            for turns, sequence in unread:
                turns.remove(sequence)
        for _, sequence in unread:
            sequence.end("cancelled")
            self._leave(sequence, None, 0)
        for place in range(len(scheduler.writers) - 1, -1, -1):
            sequence = scheduler.writers[place]
            if sequence.handle.cancelled and sequence.finish is None:
                sequence.end("cancelled")
                if sequence.done:
                    self._leave(sequence, self._writing, place)
                    self._close_gap(place)


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container where that is less."""
    try:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        limit = _UNKNOWN_MEMORY
    try:
        return min(limit, int(_CONTROL_GROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        # No container, or one without a limit ("max").
        return limit

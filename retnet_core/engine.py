"""The engine: many requests, one model, one thread. Each step: schedule → forward → choose → publish.

Ids go in, ids come out; the engine knows nothing of text but stop strings.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from retnet_core.handle import EngineClosed, Handle, Result, Token
from retnet_core.lanes import Lanes
from retnet_core.model import Model, Span
from retnet_core.sampler import Sampler, Sampling
from retnet_core.scheduler import Scheduler
from retnet_core.state import State, StateMismatch
from retnet_core.tokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class Request:
    """Ids to read after a state (None: an empty one), and how to go on.

    `max_new_tokens` 0 only reads. A stop id ends the answer and is not part of it. A stop string ends the answer with the token that completes it;
    the caller cuts the text. `stop_ids` None: the tokenizer's end of turn. `want_logits`: also give the logits after the last prompt id.
    `state_at`: also give the states after that many of *this request's* ids. `group`: requests of different groups take turns.
    `priority`: the higher goes first.
    """

    ids: Ids[int]
    state: State | None = None
    max_new_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: tuple[int, ...] | None = None
    stop_strings: tuple[str, ...] = ()
    want_logits: bool = False
    return_state: bool = True
    state_at: tuple[int, ...] = ()
    group: str = ""
    priority: int = 0


class _Sequence:
    """A request on its way: how far it has read, what it has written."""

    def __init__(self, request: Request, handle: Handle, model: Model) -> None:
        self.request, self.handle = request, handle
        self.group, self.priority = request.group, request.priority
        self.memory: Lanes
        """Of its own while it reads; a writer lives in the engine's lanes."""
        self.read = 0
        self.ids: list[int] = []
        self.pending = False
        """Whether the last emitted id still has to be consumed."""
        self.finish: str | None = None
        self.states: dict[int, State] = {}
        self.logits: Tensor | None = None
        self.sampler = Sampler(request.sampling)
        self._stops = sorted({*request.state_at, len(request.ids)})
        self._detokenizer: Detokenizer | None = model.tokenizer.detokenizer() if request.stop_strings else None
        self._tail = ""

    @property
    def has_read(self) -> bool:
        return self.read == len(self.request.ids)

    @property
    def wants_choice(self) -> bool:
        """Whether the logits after its newest id are needed."""
        if self.ids:
            return self.finish is None
        return self.has_read and bool(self.request.max_new_tokens or self.request.want_logits)

    @property
    def done(self) -> bool:
        return self.finish is not None and not (self.pending and self.request.return_state)

    def next_stop(self) -> int:
        return next((stop for stop in self._stops if stop > self.read), self.read) - self.read

    def end(self, finish: str) -> None:
        self.finish = finish
        self.handle.end_tokens()

    def fail(self, error: Exception) -> None:
        self.finish, self.pending = "failed", False
        self.handle.fail(error)

    def choose(self, logits: Tensor) -> None:
        """Take the next token from the logits after the newest id; decide whether it is the last one."""
        request = self.request
        if request.want_logits and not self.ids:
            self.logits = logits
        if not request.max_new_tokens:
            return
        token, logprob = self.sampler.choose(logits)
        if token in (request.stop_ids or ()):
            self.end("stop")
            return
        self.ids.append(token)
        self.pending = True
        self.handle.publish(Token(token, logprob))
        if self._completes_stop_string(token):
            self.end("stop")
        elif len(self.ids) == request.max_new_tokens:
            self.end("length")

    def _completes_stop_string(self, token: int) -> bool:
        """Whether a stop string is complete with this token, also when it began in earlier ones."""
        if self._detokenizer is None:
            return False
        self._tail += self._detokenizer.push(token)
        if any(stop in self._tail for stop in self.request.stop_strings):
            return True
        self._tail = self._tail[-max(map(len, self.request.stop_strings)) :]
        return False


class Engine:
    """Continuous batching over one model, in a thread of its own.

    `slots`: requests that run at once. `prefill_chunk`: ids of one prompt read in one step (all prompts: less than two chunks), so that
    nobody who writes waits longer than that.
    `queue_limit`: requests that may wait beyond the slots. `threads`: of the matrix products.
    """

    def __init__(self, model: Model, *, slots: int = 8, prefill_chunk: int = 64, queue_limit: int = 64, threads: int = 2) -> None:
        self.model = model
        self._scheduler: Scheduler[_Sequence] = Scheduler(slots, prefill_chunk, queue_limit)
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

        Raises `Overloaded` when the queue is full, `StateMismatch` for another model's state, `ValueError` for a request that cannot run, and
        `EngineClosed` after `close` or a failure of the engine.
        """
        self._check(request)
        stop_ids = request.stop_ids
        if stop_ids is None:
            stop_ids = (self.model.tokenizer.end_id,) if request.max_new_tokens else ()
        # A copy of the ids: the caller may go on changing its list.
        request = replace(request, ids=tuple(request.ids), stop_ids=stop_ids)
        handle = Handle(self._notify)
        sequence = _Sequence(request, handle, self.model)
        with self._wake:
            if self._closing:
                raise EngineClosed("the engine is closed")
            self._scheduler.submit(sequence)
            self._wake.notify()
        return handle

    def _check(self, request: Request) -> None:
        vocabulary = self.model.config.vocabulary
        if request.ids and not 0 <= min(request.ids) <= max(request.ids) < vocabulary:
            raise ValueError(f"ids must be between 0 and {vocabulary - 1}")
        if not request.ids and (request.max_new_tokens or request.want_logits):
            raise ValueError("without ids there is nothing to continue from: give at least one")
        if request.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be 0 or more, not {request.max_new_tokens}")
        if any(not 0 <= place <= len(request.ids) for place in request.state_at):
            raise ValueError(f"state_at counts this request's ids, 0 to {len(request.ids)}, not {request.state_at}")
        if any(not stop for stop in request.stop_strings):
            raise ValueError("a stop string cannot be empty")
        if any(not 0 <= token < vocabulary for token in request.sampling.logit_bias):
            raise ValueError(f"logit_bias names ids between 0 and {vocabulary - 1}")
        if request.state is not None and request.state.model_fingerprint != self.model.fingerprint:
            raise StateMismatch("the state belongs to another model")

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
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
            self._scheduler = Scheduler(scheduler.slots, scheduler.chunk, scheduler.queue_limit)

    def _begin(self, sequence: _Sequence) -> None:
        """Give the sequence memory of its own, continued from a copy of its state."""
        sequence.memory = Lanes(self.model.config, 1, self.model.device)
        if sequence.request.state is not None:
            sequence.memory.write(0, sequence.request.state)
        if 0 in sequence.request.state_at:
            sequence.states[0] = self.model.state_of(sequence.memory, 0)

    def _step(self) -> None:
        """Schedule, one forward pass for everybody, choose and publish: each writer's last id, and up to a chunk of the readers' prompts."""
        self._drop_cancelled()
        writers = list(self._scheduler.writers)
        plan = self._scheduler.plan_reading()
        hidden = self._forward(writers, plan)
        rows, choosers = [], []
        for row, sequence in enumerate(writers):
            sequence.pending = False
            if sequence.wants_choice:
                rows.append(row)
                choosers.append(sequence)
        row = len(writers)
        for sequence, length in plan:
            row += length
            sequence.read += length
            if sequence.read in sequence.request.state_at and sequence.read not in sequence.states:
                sequence.states[sequence.read] = self.model.state_of(sequence.memory, 0)
            if sequence.wants_choice:
                rows.append(row - 1)
                choosers.append(sequence)
        if rows:
            for sequence, logits in zip(choosers, self._logits(hidden, rows), strict=True):
                try:
                    sequence.choose(logits)
                except Exception as error:
                    # What one request asks for must not end everybody's.
                    sequence.fail(error)
        self._move_on([sequence for sequence, _ in plan])

    def _forward(self, writers: list[_Sequence], plan: list[tuple[_Sequence, int]]) -> Tensor:
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

    def _logits(self, hidden: Tensor, rows: list[int]) -> Tensor:
        logits = self.model.logits(hidden[rows])
        with torch.inference_mode(False):
            # On the host, where choices are made. A caller may change the logits of its result, which torch forbids for tensors made
            # in inference mode.
            return torch.empty(logits.shape).copy_(logits)

    def _move_on(self, readers: list[_Sequence]) -> None:
        """Readers whose prompt is read write or leave; writers that are done leave, and the last writer takes the place."""
        scheduler = self._scheduler
        for place in range(len(scheduler.writers) - 1, -1, -1):
            sequence = scheduler.writers[place]
            if sequence.done:
                self._leave(sequence, self._writing, place)
                self._close_gap(place)
        for sequence in readers:
            if not sequence.has_read:
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

    def _leave(self, sequence: _Sequence, memory: Lanes | None, lane: int) -> None:
        """Hand the result over, unless its caller knows already that there is none; the slot is free from now on."""
        if sequence.finish == "failed":
            return
        state = self.model.state_of(memory, lane) if memory is not None and sequence.request.return_state else None
        assert sequence.finish is not None
        sequence.handle.succeed(
            Result(tuple(sequence.ids), state, sequence.logits, sequence.finish, sequence.states, sequence.read)
        )

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

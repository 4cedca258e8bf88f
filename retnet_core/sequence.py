"""A request on its way through the engine: how far it has read, what it has written, and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from retnet_core.handle import Handle, Result, Token
from retnet_core.request import Request
from retnet_core.sampler import Choice, Sampler
from retnet_core.state import State, StateOutOfRange
from retnet_core.tokenizer import Detokenizer, Tokenizer

if TYPE_CHECKING:
    from retnet_core.lanes import Lanes


class StopStrings:
    """Watches one answer for texts that end it, also those that are spread over several tokens."""

    def __init__(self, stops: tuple[str, ...], tokenizer: Tokenizer) -> None:
        self._stops, self._longest = stops, max(map(len, stops))
        self._detokenizer: Detokenizer = tokenizer.detokenizer()
        self._tail = ""

    def completed_by(self, token: int) -> bool:
        """Whether the answer's next token completes one of the texts."""
        self._tail += self._detokenizer.push(token)
        if any(stop in self._tail for stop in self._stops):
            return True
        # What a stop could still begin in.
        self._tail = self._tail[-self._longest :]
        return False


class Sequence:
    """A checked request with its handle. It reads (`has_read` is False), then writes, then is `done`."""

    def __init__(self, request: Request, handle: Handle, needs: int, tokenizer: Tokenizer | None) -> None:
        self.request, self.handle, self.needs = request, handle, needs
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
        self.sampler = Sampler(request.sampling, request.logprobs)
        self._stops = sorted({*request.state_at, len(request.ids)})
        self._stop_strings = StopStrings(request.stop_strings, tokenizer) if tokenizer else None

    @property
    def has_read(self) -> bool:
        return self.read == len(self.request.ids)

    @property
    def wants_logits(self) -> bool:
        """Whether the logits after its newest id are needed."""
        if self.finish is not None:
            return False
        return bool(self.ids) or (self.has_read and bool(self.request.max_new_tokens or self.request.want_logits))

    @property
    def wants_state(self) -> bool:
        """Whether the state after the ids read so far is one to be given back."""
        return self.read in self.request.state_at and self.read not in self.states

    @property
    def done(self) -> bool:
        return self.finish is not None and not (self.pending and self.request.return_state)

    def next_stop(self) -> int:
        """How many ids may be read before something has to be noted."""
        return next((stop for stop in self._stops if stop > self.read), self.read) - self.read

    def keep(self, state: State) -> None:
        """Note the state after the ids read so far. A state that is no state fails the request."""
        if self.acceptable(state):
            self.states[self.read] = state

    def acceptable(self, state: State) -> bool:
        """Whether the state is finite; the request fails if not."""
        fault = state.fault()
        if fault:
            self.fail(
                StateOutOfRange(
                    f"after {state.tokens} tokens the state's {fault}: what the request continues from is beyond any real state"
                )
            )
        return fault is None

    def end(self, finish: str) -> None:
        self.finish = finish
        self.handle.end_tokens()

    def fail(self, error: Exception) -> None:
        self.finish, self.pending = "failed", False
        self.handle.fail(error)

    def take(self, choice: Choice) -> None:
        """One more token, unless it is a stop id; decides whether it is the last one."""
        request = self.request
        if choice.id in (request.stop_ids or ()):
            self.end("stop")
            return
        self.ids.append(choice.id)
        self.pending = True
        self.handle.publish(Token(choice.id, choice.logprob, choice.top))
        if self._stop_strings and self._stop_strings.completed_by(choice.id):
            self.end("stop")
        elif len(self.ids) == request.max_new_tokens:
            self.end("length")

    def result(self, state: State | None) -> Result:
        """What it came to."""
        assert self.finish is not None
        return Result(tuple(self.ids), state, self.logits, self.finish, self.states, self.read)

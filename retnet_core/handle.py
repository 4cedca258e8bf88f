"""The caller's end of a request: tokens as they are chosen, and the result, in any asyncio loop or thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from torch import Tensor

from retnet_core.state import State


class EngineClosed(RuntimeError):
    """The engine was closed, or failed, before the request was done."""


@dataclass(frozen=True, slots=True)
class Token:
    """A chosen token. `logprob`, natural and under the model itself (before bias, penalties, temperature and truncation), and `top`, the ids and
    log-probabilities of the most probable tokens, best first, are there as far as the request's `logprobs` asks for them."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a request came to.

    `ids`: the tokens emitted, without the stop id. `state`: has consumed the prompt ids and every emitted id that was not a stop id, the last one
    included; None if `return_state` was off, or if the request was cancelled before its prompt was read. `logits`: fp32 `[vocabulary]` after the
    last prompt id, if wanted. `finish`: `stop` (stop id or stop string), `length` (also of a request that only reads) or `cancelled`.
    `states`: by `state_at`. `prompt_tokens`: ids that were read of this request's prompt: what a state had read before is not read again.
    """

    ids: tuple[int, ...]
    state: State | None
    logits: Tensor | None
    finish: str
    states: dict[int, State]
    prompt_tokens: int

    @property
    def states_in_order(self) -> list[State]:
        """The states on the way, the earliest first."""
        return [self.states[place] for place in sorted(self.states)]


class Handle:
    """A submitted request. Iterate for its tokens (every iteration begins with the first), await `result`, or `cancel`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._changed = threading.Condition()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._tokens: list[Token] = []
        self._tokens_ended = False
        self._result: Result | None = None
        self._error: Exception | None = None
        self.cancelled = False

    @property
    def written(self) -> int:
        """How many tokens have been chosen so far."""
        return len(self._tokens)

    @property
    def done(self) -> bool:
        """Whether it has come to its result, or has failed."""
        return self._result is not None or self._error is not None

    def cancel(self) -> None:
        """Stop within one step of the engine; what was emitted until then stays. Has no effect on a request that is done."""
        self.cancelled = True
        self._wake()

    async def __aiter__(self) -> AsyncIterator[Token]:
        """Tokens as they are chosen. Raises what made the request or the engine fail."""
        place = 0
        while True:
            with self._changed:
                token = self._tokens[place] if place < len(self._tokens) else None
                ended, error = self._tokens_ended, self._error
                changed = self._when_changed() if token is None and not ended else None
            if token is not None:
                yield token
                place += 1
            elif changed is not None:
                await changed
            elif error is not None:
                raise error
            else:
                return

    async def result(self) -> Result:
        """The result once the request is done. Raises what made it fail (`NotFinite`, `NothingAllowed`, `StateOutOfRange`), or the engine."""
        while True:
            with self._changed:
                if self._result is not None:
                    return self._result
                if self._error is not None:
                    raise self._error
                changed = self._when_changed()
            await changed

    def wait(self, timeout: float | None = None) -> Result:
        """The result, for a thread without an event loop; `timeout` in seconds. Raises `TimeoutError`, or what made the engine fail."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._result is not None or self._error is not None, timeout):
                raise TimeoutError(f"no result after {timeout} s")
            if self._error is not None:
                raise self._error
            assert self._result is not None
            return self._result

    def publish(self, token: Token) -> None:
        """For the engine: one more token."""
        with self._changed:
            self._tokens.append(token)
            self._tell()

    def end_tokens(self) -> None:
        """For the engine: no token will follow, though the result may take one more step."""
        with self._changed:
            self._tokens_ended = True
            self._tell()

    def succeed(self, result: Result) -> None:
        """For the engine: done."""
        with self._changed:
            self._tokens_ended = True
            self._result = result
            self._tell()

    def fail(self, error: Exception) -> None:
        """For the engine: it cannot be done."""
        with self._changed:
            self._tokens_ended = True
            self._error = error
            self._tell()

    def _when_changed(self) -> asyncio.Future[None]:
        """A future of the running loop that the next change completes. The caller holds the lock."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiters.append((loop, future))
        return future

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            try:
                loop.call_soon_threadsafe(_complete, future)
            except RuntimeError:
                # That loop is closed: nobody waits there any more.
                continue
        self._changed.notify_all()


def _complete(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

"""What is asked of the engine, and whether it can be done."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import Any

from retnet_core.config import RetNetConfig
from retnet_core.errors import EmptyPrompt, RequestError, TooLarge, UnknownToken
from retnet_core.sampler import Sampling
from retnet_core.state import State, bytes_of

_ID_BYTES = 8
"""A place in a tuple; the numbers themselves are shared or small."""


@dataclass(frozen=True, slots=True)
class Request:
    """Ids to read after a state (None: an empty one), and how to go on.

    `max_new_tokens` 0 only reads. A stop id ends the answer and is not part of it. A stop string ends the answer with the token that completes it;
    the caller cuts the text. `stop_ids` None: the tokenizer's end of turn. `want_logits`: also give the logits after the last prompt id.
    `logprobs`: None for none; 0 for the natural log-probability of each chosen token under the model itself (before bias, penalties,
    temperature and truncation); n for those of the n most probable tokens as well.
    `state_at`: also give the states after that many of *this request's* ids (see `of_parts`). Such a place is a cut: bit for bit, the request
    runs as one request up to the place and another from its state on.
    `group`: requests of different groups take turns. `priority`: the higher goes first.
    """

    ids: Sequence[int]
    state: State | None = None
    max_new_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: tuple[int, ...] | None = None
    stop_strings: tuple[str, ...] = ()
    want_logits: bool = False
    logprobs: int | None = None
    return_state: bool = True
    state_at: tuple[int, ...] = ()
    group: str = ""
    priority: int = 0

    @classmethod
    def of_parts(cls, parts: Iterable[Sequence[int]], **options: Any) -> Request:
        """The ids of several parts one after the other (a persona, a turn, another turn), with the state after each part.

        `options`: whatever else a request takes. `Result.states_in_order` gives the states, the first part's first. Raises `EmptyPrompt` for a
        part without ids.
        """
        parts = [tuple(part) for part in parts]
        if not all(parts):
            raise EmptyPrompt(f"part {list(map(bool, parts)).index(False)} of {len(parts)} has no ids, so no state of its own")
        return cls(tuple(chain.from_iterable(parts)), state_at=tuple(accumulate(map(len, parts))), **options)

    def checked(self, config: RetNetConfig) -> Request:
        """The same request with values of its own, which the caller cannot change any more.

        Raises `EmptyPrompt`, `UnknownToken`, `StateMismatch` or `StateOutOfRange` for a state that cannot be continued, and `RequestError` for
        any other value that does not fit.
        """
        ids = _ids(self.ids, config.vocabulary)
        if not ids and (self.max_new_tokens or self.want_logits):
            raise EmptyPrompt("without ids there is nothing to continue from: give at least one")
        for name, least in (("max_new_tokens", 0), ("logprobs", 0), ("priority", None)):
            value = getattr(self, name)
            if name == "logprobs" and value is None:
                continue
            if not isinstance(value, int) or (least is not None and value < least):
                raise RequestError(f"{name} must be a whole number{'' if least is None else ' of 0 or more'}, not {value!r}")
        if (self.logprobs or 0) > config.vocabulary:
            raise RequestError(f"logprobs can be of at most the {config.vocabulary} tokens there are, not {self.logprobs}")
        if not isinstance(self.group, str):
            raise RequestError(f"group must be a text, not {self.group!r}")
        places = tuple(self.state_at)
        for place in places:
            if not isinstance(place, int) or not 0 <= place <= len(ids):
                raise RequestError(f"state_at counts this request's ids, 0 to {len(ids)}, not {place!r}")
        for token in self.sampling.logit_bias:
            if not 0 <= token < config.vocabulary:
                raise UnknownToken(f"logit_bias names ids between 0 and {config.vocabulary - 1}, not {token}")
        if self.state is not None:
            self.state.check(config)
        stop_ids = None if self.stop_ids is None else tuple(self.stop_ids)
        return replace(self, ids=ids, stop_ids=stop_ids, stop_strings=_texts(self.stop_strings), state_at=places)

    def bytes_needed(self, config: RetNetConfig) -> int:
        """What the request holds at once at the least, in bytes: its memory, the states that it gives back, its ids and its logits. The tokens
        that it may write are not counted: few answers are as long as they may be."""
        states = 1 + len(set(self.state_at)) + self.return_state
        return states * bytes_of(config) + _ID_BYTES * len(self.ids) + 4 * config.vocabulary * self.want_logits

    def fit(self, config: RetNetConfig, limit: int) -> int:
        """`bytes_needed`. Raises `TooLarge` when it is more than `limit`."""
        needed = self.bytes_needed(config)
        if needed > limit:
            raise TooLarge(
                f"the request would hold {needed:,} bytes ({len(self.ids):,} ids, {len(set(self.state_at)):,} states on the way of "
                f"{bytes_of(config):,} each); the engine's memory_limit is {limit:,}: ask for fewer states, or raise it"
            )
        return needed


def _ids(given: Sequence[int], vocabulary: int) -> tuple[int, ...]:
    """The ids as ints. Raises `UnknownToken` for the first that is none of the vocabulary."""
    try:
        # The quick way for the many prompts that are right: an id of another type must not reach the batch, which is everybody's.
        ids = tuple(map(operator.index, given))
        if not ids or 0 <= min(ids) <= max(ids) < vocabulary:
            return ids
    except TypeError:
        ids = tuple(given)
    for place, token in enumerate(ids):
        if not hasattr(token, "__index__") or not 0 <= token < vocabulary:
            raise UnknownToken(f"id {token!r} at place {place} is no token: ids are whole numbers between 0 and {vocabulary - 1}")
    raise AssertionError("one of the ids is wrong")


def _texts(stops: Sequence[str]) -> tuple[str, ...]:
    if isinstance(stops, str):
        raise RequestError(f"stop_strings is a sequence of texts, not the text {stops!r}")
    for stop in stops:
        if not isinstance(stop, str) or not stop:
            raise RequestError(f"a stop string cannot be empty, and is a text, not {stop!r}")
    return tuple(stops)

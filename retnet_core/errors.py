"""What can be wrong with a request, by name. Each message says which value it was and what was expected.

Elsewhere: `StateMismatch` and `StateOutOfRange` (state), `Overloaded` (scheduler), `EngineClosed` (handle), `RetentionError` (retention),
`CheckpointError` (checkpoint).
"""

from __future__ import annotations


class RequestError(ValueError):
    """A request that cannot run, or cannot go on. Nobody else's is touched by it."""


class EmptyPrompt(RequestError):
    """No ids to continue from."""


class UnknownToken(RequestError):
    """A token id that is none of the model's vocabulary."""


class SamplingError(RequestError):
    """A value of `Sampling` out of its range."""


class TooLarge(RequestError):
    """The request's states and logits alone would take more memory than the engine may give to requests."""


class NotFinite(RequestError):
    """The model computed NaN or infinity for this request, so there is no next token. What it continues from is beyond any real state."""


class NothingAllowed(RequestError):
    """The request's own logit bias forbids every token."""

"""A RetNet as an engine of its own: weights, the three forms of retention, states as values, and continuous batching on a CPU."""

import retnet_core._openmp  # noqa: F401  (before torch)
from retnet_core.checkpoint import CheckpointError, load_model
from retnet_core.composition import Segment, compose, join, read_segment
from retnet_core.config import RetNetConfig
from retnet_core.engine import Engine
from retnet_core.errors import EmptyPrompt, NotFinite, NothingAllowed, RequestError, SamplingError, TooLarge, UnknownToken
from retnet_core.handle import EngineClosed, Handle, Result, Token
from retnet_core.model import Model
from retnet_core.network import Memory, RetNet
from retnet_core.request import Request
from retnet_core.retention import RetentionError
from retnet_core.sampler import Sampling
from retnet_core.scheduler import Overloaded
from retnet_core.state import State, StateMismatch, StateOutOfRange
from retnet_core.tokenizer import Detokenizer, Tokenizer

__all__ = [
    "CheckpointError",
    "Detokenizer",
    "EmptyPrompt",
    "Engine",
    "EngineClosed",
    "Handle",
    "Memory",
    "Model",
    "NotFinite",
    "NothingAllowed",
    "Overloaded",
    "Request",
    "RequestError",
    "Result",
    "RetNet",
    "RetNetConfig",
    "RetentionError",
    "Sampling",
    "SamplingError",
    "Segment",
    "State",
    "StateMismatch",
    "StateOutOfRange",
    "Token",
    "Tokenizer",
    "TooLarge",
    "UnknownToken",
    "compose",
    "join",
    "load_model",
    "read_segment",
]

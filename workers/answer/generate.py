"""The RetNet's part of an answer: the fork reads the evidence, says whether it answers, and words it sentence by sentence."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import torch

from retnet_core import Request, Sampling, State
from workers.answer import prompt
from workers.answer.claim import Answer
from workers.answer.prefixes import run
from workers.answer.sentences import split_sentences
from workers.answer.services import Services

# Decoding as the checkpoint was tuned to be decoded (model card): greedy, repetition penalty on the answer's own tokens.
SAMPLING = Sampling(temperature=0.0, repetition_penalty=1.1)
SENTENCES = 2
TOKENS = 60
# "You live in Porto." and the like.
MEMORY_TOKENS = 32
_ENDS = (".", "!", "?", ".”", '."', ".)", ":")


@dataclass(slots=True)
class Fork:
    """A copy of the conversation's state that has read evidence and question, up to the opening bracket."""

    state: State
    zero: float  # probability of "none of these"
    digits: list[float] = field(default_factory=list)  # probability of each passage's number, from 1

    @property
    def cites(self) -> int:
        """The number that the model would cite, of those there are."""
        return max(range(len(self.digits)), key=self.digits.__getitem__) + 1


async def read_evidence(
    services: Services, workspace_id: UUID, state: State, evidence: Sequence[Mapping[str, Any]], question: str
) -> Fork:
    """Let a fork of `state` read the grounded turn. Raises Overloaded when the engine's queue is full."""
    tokenizer = services.model.tokenizer
    ids = prompt.grounded_turn(tokenizer, question, evidence)
    request = Request(ids, state=state, want_logits=True, group=str(workspace_id))
    result = await run(services.engine, request)
    assert result.logits is not None and result.state is not None
    probabilities = torch.softmax(result.logits.float(), dim=-1)
    numbers = range(1, len(prompt.evidence_passages(evidence)) + 1)
    return Fork(
        result.state,
        float(probabilities[tokenizer.token_id("0")]),
        [float(probabilities[tokenizer.token_id(str(number))]) for number in numbers],
    )


async def word(services: Services, answer: Answer, fork: Fork, published: Sequence[str]) -> AsyncGenerator[str, None]:
    """Sentences of wording as they are completed, after those already `published` (which the model is given as its own)."""
    tokenizer = services.model.tokenizer
    ids = [tokenizer.token_id(str(fork.cites)), tokenizer.token_id("]")]
    if published:
        ids += tokenizer.encode(" " + tokenizer.escape(" ".join(published)))
    left = TOKENS - len(ids) + 2
    if left <= 0 or len(published) >= SENTENCES:
        return
    async for sentence in _sentences(services, answer, ids, fork.state, left, SENTENCES - len(published)):
        yield sentence


async def from_memory(services: Services, answer: Answer, state: State) -> str:
    """What the model answers from the conversation's own state alone; the state itself is not changed."""
    ids = prompt.answer_opening(services.model.tokenizer)
    return " ".join([sentence async for sentence in _sentences(services, answer, ids, state, MEMORY_TOKENS, 1)])


async def _sentences(
    services: Services, answer: Answer, ids: list[int], state: State, tokens: int, limit: int
) -> AsyncGenerator[str, None]:
    """At most `limit` whole sentences. Abandoning the iteration cancels the request within a step."""
    request = Request(
        ids, state=state, max_new_tokens=tokens, sampling=SAMPLING, return_state=False, group=str(answer.claim.workspace_id)
    )
    detokenizer = services.model.tokenizer.detokenizer()
    begun, text, given = time.monotonic(), "", 0
    handle = services.engine.submit(request)
    try:
        async for token in handle:
            answer.tokens += 1
            services.counters.tokens += 1
            text += detokenizer.push(token.id)
            # The last span may still grow; one that another follows is complete.
            whole = split_sentences(text)[:-1]
            while given < min(limit, len(whole)):
                start, end = whole[given]
                given += 1
                yield text[start:end]
            if given == limit:
                return
        result = await handle.result()
        spans = split_sentences(text + detokenizer.flush())
        if given < min(limit, len(spans)):
            start, end = spans[given]
            # An answer cut off by the limit ends in half a sentence, which nobody should read.
            if result.finish == "stop" or text[start:end].endswith(_ENDS):
                yield text[start:end]
    finally:
        handle.cancel()
        services.counters.writing_s += time.monotonic() - begun

"""One answer from claim to memory. Each step is a module beside this one; here stands their order, and what a reader sees when.

    claim → query → route ─┬─ noted, memory: the conversation's own state answers
                           └─ retrieve → select → gate → (evidence shown) → fork reads → gate → wording ⇄ verify
    → commit → remember

While the content is searched, the conversation's own state is fetched and reads the visitor's message (recall).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import structlog

from app.content.search import Hit
from app.conversations.models import Message
from app.db.lookups import Claim
from retnet_core import Overloaded
from workers.answer import fits, generate, own, publish, query, recall, retrieve, route, tone
from workers.answer import gate as gates
from workers.answer.claim import Answer, Lost, beat, give_up, load, release_overtaken
from workers.answer.cues import asks_own
from workers.answer.generate import Fork
from workers.answer.query import Query
from workers.answer.recall import Memory
from workers.answer.remember import remember
from workers.answer.route import Route
from workers.answer.select import Selection, select
from workers.answer.services import Services
from workers.answer.verify import Verdict, verify, without_answer

# The next turn of a conversation waits so long for its memory of the last one, then reads that itself.
REMEMBERING_SECONDS = 3.0

# What the prompt puts between a title and a heading, and what a model puts after them.
_AFTER_TITLE = re.compile(r"\s*(?:-|–|—|:|›)\s+")

log = structlog.get_logger()


async def answer_claim(services: Services, claim: Claim) -> None:
    """Write one claimed answer under a heartbeat. Ends quietly when it was overtaken; an error queues it again, or fails it."""
    values = {"conversation_id": str(claim.conversation_id), "message_id": str(claim.message_id), "fence": claim.fence}
    with structlog.contextvars.bound_contextvars(**values):
        pulse = asyncio.create_task(beat(services.database, claim))
        work = asyncio.create_task(_answer(services, claim, ending=pulse.cancel))
        try:
            await asyncio.wait({pulse, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not pulse.cancelled():
                work.cancel()
                pulse.result()  # raises what ended it
            await work
        except Lost as lost:
            log.info("answer_dropped", reason=str(lost))
            await release_overtaken(services, claim)
        except Exception:
            services.counters.failures += 1
            log.exception("answer_failed", attempt=claim.attempt)
            await give_up(services, claim)
        finally:
            for task in (pulse, work):
                task.cancel()
            await asyncio.gather(pulse, work, return_exceptions=True)


async def _answer(services: Services, claim: Claim, *, ending: Callable[[], Any]) -> None:
    """`ending` is called when the row is about to be done: what follows needs no sign of life."""
    if (pending := services.remembering.get(claim.conversation_id)) is not None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pending.wait(), REMEMBERING_SECONDS)
    answer = await load(services.database, claim)
    answer.ending = ending
    remembered = asyncio.create_task(_recalled(services, answer))
    try:
        message = await _write(services, answer, remembered)
        services.counters.answers += 1
        services.counters.refusals += message.refused
        log.info("answered", kind=message.kind, tokens=message.tokens, **answer.timings)
        memory = await remembered
        if memory is not None:
            await _remember(services, answer, memory, message)
    finally:
        remembered.cancel()
        await asyncio.gather(remembered, return_exceptions=True)


async def _recalled(services: Services, answer: Answer) -> Memory | None:
    """The own state, or None under overload: the evidence alone is still an answer, and the next turn catches up."""
    begun = time.monotonic()
    try:
        memory = await recall.recall(services, answer)
    except Overloaded:
        log.warning("engine_full")
        return None
    answer.trace["state"] = {
        "tokens": memory.tokens,
        "bytes": memory.state.nbytes,
        "origin": memory.origin,
        "ms": round((time.monotonic() - begun) * 1000),
    }
    return memory


async def _remember(services: Services, answer: Answer, memory: Memory, message: Message) -> None:
    """The visitor has the answer; what fails here is made good by the next turn."""
    done = services.remembering[answer.claim.conversation_id] = asyncio.Event()
    try:
        await remember(services, answer, memory, message)
    except Overloaded:
        log.warning("engine_full")
    finally:
        done.set()
        if services.remembering.get(answer.claim.conversation_id) is done:
            del services.remembering[answer.claim.conversation_id]


async def _write(services: Services, answer: Answer, remembered: asyncio.Task[Memory | None]) -> Message:
    """Route the message, and end the answer: the row is done when this returns."""
    asked = await query.build(services.vectors, answer.text, answer.dialogue)
    earlier_query = answer.trace.get("query")
    answer.trace["query"] = asked.text
    if answer.message.evidence:
        # An earlier attempt has shown evidence: what a reader has seen is kept, and worded on.
        asked = replace(asked, text=earlier_query or asked.text)
        answer.trace["query"] = asked.text
        reading = asyncio.create_task(_read(services, answer, remembered, answer.message.evidence))
        try:
            return await _worded(services, answer, asked, reading)
        finally:
            reading.cancel()
    way = await route.choose(services.vectors, answer.text, asked.question_vector, answer.own_messages)
    answer.trace["route"] = {"way": way.way, "reason": way.reason}
    if way.way == "noted":
        memory = None if way.small_talk else await remembered
        sentence = await own.acknowledgement(services, answer, memory, way)
        return await publish.commit(services, answer, kind="noted", sentences=[sentence])
    if way.way == "memory":
        return await _from_memory(services, answer, way, remembered)
    return await _grounded(services, answer, asked, remembered, way)


async def _from_memory(services: Services, answer: Answer, way: Route, remembered: asyncio.Task[Memory | None]) -> Message:
    """The state's answer where the visitor's own words bear it out, else those words."""
    sentence = None
    if way.certain and (memory := await remembered) is not None:
        with contextlib.suppress(Overloaded):
            sentence = await own.from_state(services, answer, memory, way)
    return await publish.commit(services, answer, kind="memory", sentences=[sentence or own.quoted(answer, way.sources)])


async def _grounded(
    services: Services, answer: Answer, asked: Query, remembered: asyncio.Task[Memory | None], way: Route
) -> Message:
    """Search, select, and show the evidence as soon as it is safe to."""
    claim = answer.claim
    asked, hits = await retrieve.retrieve(
        services.database, claim.workspace_id, answer.assistant.id, asked, cited=retrieve.last_cited(answer.dialogue)
    )
    answer.trace["query"] = asked.text
    answer.trace["route"]["follow_up"] = round(asked.follow_up, 3)
    candidates = await retrieve.read(services.readings, asked.text, hits)
    selection = select(asked.vector, candidates, question=asked.text)
    gate = gates.first({**selection.features, **retrieve.features(hits)})
    _trace_search(answer, hits, selection, gate)
    if not selection.sentences or not gate.answer:
        return await _refused(services, answer, hits, way)
    evidence, citations = publish.quotations(selection, hits)
    reading = asyncio.create_task(_read(services, answer, remembered, evidence))
    try:
        shown = gates.is_clear(gate) and not await _in_time(reading, gates.SHOW_BY_MS - answer.elapsed_ms())
        if shown:
            await publish.publish_evidence(services, answer, evidence, citations)
        if not (shown and answer.assistant.mode == "evidence"):
            # Evidence alone that is clear enough to be shown waits for nothing more.
            fork = await reading
            gate = gates.joint(gate, fork.zero, shown=shown) if fork is not None else gate
    finally:
        reading.cancel()
    answer.trace["gate"] = gate.trace()
    if not gate.answer:
        return await _refused(services, answer, hits, way)
    if not shown:
        await publish.publish_evidence(services, answer, evidence, citations)
    return await _worded(services, answer, asked, reading)


async def _read(
    services: Services, answer: Answer, remembered: asyncio.Task[Memory | None], evidence: Sequence[dict[str, Any]]
) -> Fork | None:
    """The fork that has read the evidence; None when the engine is full: the evidence then stands alone."""
    memory = await asyncio.shield(remembered)
    if memory is None:
        return None
    try:
        return await generate.read_evidence(services, answer.claim.workspace_id, memory.state, evidence, answer.text)
    except Overloaded:
        log.warning("engine_full")
        return None


async def _in_time(task: asyncio.Task[Any], milliseconds: int) -> bool:
    done, _ = await asyncio.wait({task}, timeout=max(0, milliseconds) / 1000)
    return bool(done)


async def _worded(services: Services, answer: Answer, asked: Query, reading: asyncio.Task[Fork | None]) -> Message:
    """Above the published evidence, what the fork words and the verifier lets through."""
    evidence, citations = answer.message.evidence or [], answer.message.citations
    if answer.assistant.mode != "evidence" and (fork := await reading) is not None:
        with contextlib.suppress(Overloaded):
            await _publish_wording(services, answer, asked, fork, evidence)
    sentences = answer.message.sentences
    kind = "grounded" if sentences else "evidence"
    return await publish.commit(services, answer, kind=kind, sentences=sentences, evidence=evidence, citations=citations)


async def _publish_wording(
    services: Services, answer: Answer, asked: Query, fork: Fork, evidence: Sequence[dict[str, Any]]
) -> None:
    """Sentence by sentence. The first one that the evidence does not support ends the wording: what follows leans on it."""
    checks = answer.trace.setdefault("verifier", [])
    quotations = [str(item["text"]) for item in evidence]
    encoding = asyncio.create_task(services.vectors.encode(quotations))  # while the model writes
    stream = generate.word(services, answer, fork, answer.message.sentences)
    try:
        async with contextlib.aclosing(stream):
            async for sentence in stream:
                published, verdict = _checked(sentence, asked.text, evidence)
                if verdict.supported:
                    vectors = np.concatenate([await services.vectors.encode([published]), await encoding])
                    verdict = _fitting(answer, published, quotations, vectors @ asked.vector) or verdict
                checks.append({"sentence": sentence, "published": verdict.supported, "reason": verdict.reason})
                if not verdict.supported:
                    return
                await publish.publish_sentence(services, answer, published)
    finally:
        encoding.cancel()
        await asyncio.gather(encoding, return_exceptions=True)


def _fitting(answer: Answer, sentence: str, quotations: Sequence[str], cosines: np.ndarray) -> Verdict | None:
    """Why a supported sentence does not answer what was asked, or None."""
    own, first = asks_own(answer.text)[0], not answer.message.sentences
    return fits.misfit(answer.text, sentence, quotations, own=own, first=first, cosines=cosines)


def _checked(sentence: str, question: str, evidence: Sequence[dict[str, Any]]) -> tuple[str, Verdict]:
    """What of a sentence may be published, and the verdict on it.

    A wrong or unfounded "Yes," in front of a sentence that the evidence supports is dropped alone, and so is a page's title that
    the model copied with its text.
    """
    sentence = _without_title(sentence, evidence)
    texts = [str(item["text"]) for item in evidence]
    passages = [item.get("passage_id") for item in evidence]
    topic = " ".join(dict.fromkeys(part for item in evidence for part in (item["title"], *item.get("heading_path", ()))))
    if sentence.rstrip().endswith((":", ",", ";")):
        return sentence, Verdict(False, "unfinished: it announces what does not follow", 0.0)
    verdict = verify(sentence, texts, question=question, topic=topic, passages=passages)
    if verdict.code == "polarity" and (rest := without_answer(sentence)):
        bare = verify(rest, texts, question=question, topic=topic, passages=passages)
        if bare.supported:
            return rest, bare
    return sentence, verdict


def _without_title(sentence: str, evidence: Sequence[dict[str, Any]]) -> str:
    """ "Opening hours - The shop opens at nine." → "The shop opens at nine."; a sentence that only begins alike stays."""
    for item in evidence:
        for title in (item["title"], *item.get("heading_path", ())):
            rest = sentence[len(title) :]
            if title and sentence.startswith(title) and (mark := _AFTER_TITLE.match(rest)) and len(rest) > len(mark.group()):
                return _without_title(rest[mark.end() :], evidence)
    return sentence


async def _refused(services: Services, answer: Answer, hits: Sequence[Hit], way: Route) -> Message:
    if way.sources:
        return await publish.commit(services, answer, kind="memory", sentences=[own.quoted(answer, way.sources)])
    nearest = retrieve.nearest_pages(hits)
    sentences = tone.refusal(answer.assistant)
    return await publish.commit(services, answer, kind="refusal", sentences=sentences, nearest=nearest)


def _trace_search(answer: Answer, hits: Sequence[Hit], selection: Selection, gate: gates.Gate) -> None:
    answer.trace["gate"] = gate.trace()
    chosen = {sentence.passage_id for sentence in selection.sentences}
    answer.trace["passages"] = [
        {
            "passage_id": str(hit.passage_id),
            "title": hit.title,
            "url": hit.url,
            "heading_path": hit.heading_path,
            "score": round(hit.score, 5),
            "vector_score": round(hit.vector_score, 4),
            "text_rank": round(hit.text_rank, 4),
            "selected": hit.passage_id in chosen,
        }
        for hit in hits
    ]
    answer.trace["searched_ms"] = answer.elapsed_ms()

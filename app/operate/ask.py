"""`retort ask`: one question, read as a visitor reads the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from app.operate import Problem
from app.operate.client import Api, ApiProblem, Event, Unreachable

ENDS = ("done", "failed", "cancelled", "superseded")
# An answer takes seconds; one that takes minutes is lost, and the reader should know.
PATIENCE_SECONDS = 180.0
# A web process that is restarted is back by then; without it nothing comes any more.
AWAY_SECONDS = 20.0
HELD_SECONDS = 6.0  # longer than a connection takes to fail: the stream was open, and silent
RESUME_SECONDS = 0.25
PASSING = (429, 502, 503, 504)  # refusals of a moment


@dataclass(slots=True)
class Answer:
    """What came, and when (milliseconds at this reader, from the moment the question was sent)."""

    conversation_id: str
    message_id: str
    ttft_ms: float | None = None
    total_ms: float = 0.0
    evidence: list[dict[str, Any]] = field(default_factory=list)
    sentences: dict[int, str] = field(default_factory=dict)
    message: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """The shape that `--json` prints. Other programs read it: names may be added, none changes."""
        message = self.message
        wording = message.get("wording") or ""
        evidence, citations = message.get("evidence") or [], message.get("citations") or []
        return {
            "conversation_id": self.conversation_id,
            "message_id": self.message_id,
            # Plain text; the API's `text` is Markdown and escapes what in a page only looks like it.
            "answer": "\n\n".join(part for part in (wording, *(e["text"] for e in evidence)) if part),
            "wording": wording,
            "evidence": [{"text": e["text"], "url": e["url"], "title": e["title"]} for e in evidence],
            "citations": [{"url": c["url"], "title": c["title"], "passage": c["passage"]} for c in citations],
            "refused": message["refused"],
            "ttft_ms": None if self.ttft_ms is None else round(self.ttft_ms),
            "total_ms": round(self.total_ms),
            "tokens": message["tokens"],
        }


def ask(
    api: Api,
    question: str,
    *,
    assistant: str,
    conversation: str | None = None,
    on_evidence: Callable[[list[dict[str, Any]]], None] = lambda evidence: None,
    on_sentence: Callable[[int, str], None] = lambda index, text: None,
) -> Answer:
    """Ask, and read the stream to the answer's end. Raises Problem when there is none."""
    if conversation:
        opened = api.get(f"/api/v1/conversations/{quote(conversation, safe='')}")
    else:
        opened = api.post(f"/api/v1/assistants/{quote(assistant, safe='')}/conversations", {})
    path = f"/api/v1/conversations/{opened['id']}"
    began = time.monotonic()
    posted = api.post(f"{path}/messages", {"text": question})
    answer = Answer(opened["id"], posted["answer"]["id"])

    def elapsed() -> float:
        return (time.monotonic() - began) * 1000

    def shown() -> None:
        if answer.ttft_ms is None:
            answer.ttft_ms = elapsed()

    for event in _until_end(api, f"{path}/events", opened.get("last_event_id"), answer, began):
        if event.name == "evidence":
            seen, answer.evidence = answer.evidence, event.data["evidence"]
            if answer.evidence and answer.evidence != seen:  # a snapshot tells it again
                shown()
                on_evidence(answer.evidence)
        elif event.name == "sentence":
            shown()
            if event.data["index"] not in answer.sentences:
                on_sentence(event.data["index"], event.data["text"])
            answer.sentences[event.data["index"]] = event.data["text"]
        elif event.name in ENDS:
            answer.total_ms = elapsed()
            if event.name == "superseded":
                answer.message_id = event.data["superseded_by"]
                raise Problem("The question was overtaken by a later one in the same conversation; ask again.")
            answer.message = event.data["message"]
            if event.name != "done":
                raise Problem(answer.message.get("error") or f"The answer was {event.name}; ask again.")
            if answer.message["text"]:
                shown()
            # What was published before the stream was followed, or while it was cut, is in the message alone.
            told = " ".join(answer.sentences[index].strip() for index in sorted(answer.sentences))
            wording = answer.message.get("wording") or ""
            if wording.startswith(told) and (rest := wording[len(told) :].strip()):
                answer.sentences[len(answer.sentences)] = rest
                on_sentence(len(answer.sentences) - 1, rest)
    return answer


def _until_end(api: Api, path: str, last: str | None, answer: Answer, began: float) -> Iterator[Event]:
    """The events of this answer, the end included. A stream that breaks off is taken up where it stopped (Last-Event-ID).

    Raises Problem when the server stays away, or when no answer comes.
    """
    away_since: float | None = None
    while time.monotonic() - began < PATIENCE_SECONDS:
        tried, before = time.monotonic(), last
        try:
            for event in api.events(path, last):
                last = event.id or last
                for mine in _of_answer(event, answer):
                    yield mine
                    if mine.name in ENDS:
                        return
            away_since = None
        except (Unreachable, ApiProblem) as problem:
            now = time.monotonic()
            if away_since is None or last != before or now - tried > HELD_SECONDS:
                away_since = now  # until now it was there
            passing = isinstance(problem, Unreachable) or problem.status in PASSING
            if not passing or now - away_since > AWAY_SECONDS:
                raise
        time.sleep(RESUME_SECONDS)
    raise Problem(f"No answer came within {PATIENCE_SECONDS:.0f} s; `retort doctor` says which part is missing.")


def _of_answer(event: Event, answer: Answer) -> Iterator[Event]:
    """The event, if it concerns the answer; a snapshot becomes the events that it stands for."""
    data = event.data
    if event.name != "snapshot":
        owner = data.get("message_id") or (data.get("message") or {}).get("id")
        if owner == answer.message_id:
            yield event
        return
    for message in data["messages"]:
        if message["id"] != answer.message_id:
            continue
        if message.get("evidence"):
            yield Event(event.id, "evidence", {"message_id": message["id"], "evidence": message["evidence"]})
        if message["status"] in ("done", "failed", "cancelled"):
            yield Event(event.id, message["status"], {"message": message})
        elif message["status"] == "superseded":
            yield Event(event.id, "superseded", {"message_id": message["id"], "superseded_by": message["superseded_by"]})

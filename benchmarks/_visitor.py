"""A visitor as the benchmarks need one: asks over the public API and takes the time at which each event reaches it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

# An answer that has not ended by then counts as lost. Far above the goals: it bounds a run, it measures nothing.
PATIENCE_S = 60.0

ENDINGS = ("done", "failed", "cancelled", "superseded")


@dataclass(slots=True)
class Answered:
    """One question's fate, in seconds after the question was sent. Absent times are None."""

    status: int = 0  # of the POST
    refused_after_s: float | None = None  # when the POST was answered with 429 or 503
    evidence_s: float | None = None
    sentence_s: float | None = None
    done_s: float | None = None
    ending: str = ""
    message_id: str = ""
    message: dict[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        return self.ending == "done"

    @property
    def worded(self) -> bool:
        return self.answered and bool(self.message.get("wording"))


async def token(client: httpx.AsyncClient, assistant: str) -> str:
    """A fresh visitor's token. Raises httpx.HTTPStatusError when it is refused."""
    origin = str(client.base_url).rstrip("/")
    answer = await client.post("/widget/v1/session", json={"assistant": assistant}, headers={"Origin": origin})
    answer.raise_for_status()
    return answer.json()["token"]


class Thread:
    """One conversation of a visitor. Not shared between tasks: a conversation has one answer at a time."""

    def __init__(self, client: httpx.AsyncClient, visitor_token: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {visitor_token}"}
        self.conversation = ""
        self.last_event = "0-0"  # the id behind which the next stream begins, as in the widget

    async def begin(self) -> None:
        """Open the conversation. Raises httpx.HTTPStatusError when it is refused."""
        answer = await self.client.post("/widget/v1/conversations", json={}, headers=self.headers)
        answer.raise_for_status()
        self.conversation, self.last_event = answer.json()["id"], answer.json()["last_event_id"]

    async def stop(self, message_id: str) -> None:
        await self.client.post(f"/widget/v1/messages/{message_id}/stop", headers=self.headers)

    async def ask(self, text: str, *, follow: bool = True) -> Answered:
        """Ask, and follow the stream until the answer has ended (or leave it, not to wait for it)."""
        path = f"/widget/v1/conversations/{self.conversation}"
        result = Answered()
        begun = time.perf_counter()
        posted = await self.client.post(f"{path}/messages", json={"text": text}, headers=self.headers)
        result.status = posted.status_code
        if posted.status_code in (429, 503):
            result.refused_after_s = time.perf_counter() - begun
            result.ending = "refused"
            return result
        posted.raise_for_status()
        wanted = result.message_id = posted.json()["answer"]["id"]
        if not follow:
            return result
        try:
            async for kind, data in self._events(f"{path}/events", begun + PATIENCE_S):
                _note(result, kind, data, wanted, time.perf_counter() - begun)
                if result.ending:
                    return result
        except httpx.TimeoutException:
            pass
        result.ending = result.ending or "lost"
        return result

    async def _events(self, path: str, until: float) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Events as they come; opens the stream again when it ended early, resuming behind the last event."""
        while (left := until - time.perf_counter()) > 0:
            headers = {**self.headers, "Accept": "text/event-stream", "Last-Event-ID": self.last_event}
            kind, data = "message", ""
            async with self.client.stream("GET", path, headers=headers, timeout=httpx.Timeout(10.0, read=left)) as stream:
                stream.raise_for_status()
                async for line in stream.aiter_lines():
                    name, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        data += value
                    elif name == "id":
                        self.last_event = value
                    elif not line and data:
                        yield kind, json.loads(data)
                        kind, data = "message", ""


def _note(result: Answered, kind: str, data: dict[str, Any], wanted: str, now: float) -> None:
    """Enter an event into the result, if it belongs to the wanted answer."""
    if kind == "snapshot":
        for message in data["messages"]:
            if message["id"] == wanted:
                if message["evidence"]:
                    result.evidence_s = result.evidence_s or now
                if message["wording"]:
                    result.sentence_s = result.sentence_s or now
                if message["status"] in ENDINGS:
                    result.done_s, result.ending, result.message = now, message["status"], message
        return
    if kind in ENDINGS:
        message = data.get("message", data)
        if wanted in (message.get("id"), message.get("message_id")):
            result.done_s, result.ending, result.message = now, kind, message
        return
    if data.get("message_id") != wanted:
        return
    if kind == "evidence" and result.evidence_s is None:
        result.evidence_s = now
    elif kind == "sentence" and result.sentence_s is None:
        result.sentence_s = now

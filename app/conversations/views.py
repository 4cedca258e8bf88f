"""What a message looks like to its readers (docs/api.md, Message): the same from web and generator. Knows no web framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.conversations.markdown import escape
from app.conversations.models import Message

OPEN = ("queued", "running")


def moment(value: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if value else None


def render_wording(sentences: Sequence[str]) -> str:
    return " ".join(sentence.strip() for sentence in sentences)


def render_text(sentences: Sequence[str], evidence: Sequence[Mapping[str, Any]] | None) -> str:
    """What a visitor reads, as Markdown: the wording, then the evidence as quotations, one a passage.

    Drawn, it shows the characters of both: only what the generator wrote on its own can be emphasis, code or a list.
    """
    parts = [escape(render_wording(sentences), _read_by_the_generator(evidence))] if sentences else []
    previous = None
    for item in evidence or ():
        quote = "\n".join(f"> {line}".rstrip() for line in escape(str(item["text"]).strip()).splitlines())
        passage = item.get("passage_id")
        if passage is not None and passage == previous:
            parts[-1] += f"\n{quote}"
        else:
            parts.append(quote)
        previous = passage
    return "\n\n".join(parts)


def _read_by_the_generator(evidence: Sequence[Mapping[str, Any]] | None) -> str | None:
    """None without evidence: what is then said are fixed sentences, the owner's words and the visitor's."""
    parts = [part for item in evidence or () for part in (item["text"], item.get("title"), *(item.get("heading_path") or ()))]
    return "\n".join(str(part) for part in parts if part) if parts else None


def message_text(message: Message) -> str:
    if message.role != "assistant":
        return message.text
    if message.status == "done" and message.text:
        return message.text
    return render_text(message.sentences or [], message.evidence)


def message_view(message: Message) -> dict[str, Any]:
    """The Message shape, ready for JSON."""
    return {
        "id": str(message.id),
        "conversation_id": str(message.conversation_id),
        "ordinal": message.ordinal,
        "role": message.role,
        "status": message.status,
        "epoch": message.epoch,
        "text": message_text(message),
        "wording": render_wording(message.sentences or []),
        "evidence": message.evidence or [],
        "citations": message.citations or [],
        "nearest": message.nearest or [],
        "refused": bool(message.refused),
        "kind": message.kind,
        "error": message.error,
        "superseded_by": str(message.superseded_by) if message.superseded_by else None,
        "created_at": moment(message.created_at),
        "finished_at": moment(message.finished_at),
        "timings": message.timings or {},
        "tokens": message.tokens or 0,
    }

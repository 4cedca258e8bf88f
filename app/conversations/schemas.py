"""What the conversation routes of visitors and members accept and answer (docs/api.md)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from app.assistants.schemas import AssistantPublic
from app.http.input import Input


class NewSession(Input):
    assistant: Annotated[str, Meta(min_length=1, max_length=100, examples=["guide"])]
    visitor_token: Annotated[str, Meta(max_length=2000)] | None = None


class SessionOut(Struct):
    token: str
    expires_in: int
    visitor_id: str
    assistant: AssistantPublic


# The service checks the text and says what is wrong with it, so that its errors have codes of their own.
class NewMessage(Struct, forbid_unknown_fields=True):
    text: Annotated[str, Meta(examples=["How do I renew a certificate?"])] = ""


class EvidenceOut(Struct):
    number: int
    text: str
    url: str
    title: str
    heading_path: list[str]
    passage_id: str
    document_id: str


class CitationOut(Struct):
    number: int
    url: str
    title: str
    heading_path: list[str]
    passage: str


class NearestOut(Struct):
    url: str
    title: str
    heading_path: list[str]


class MessageOut(Struct):
    id: str
    conversation_id: str
    ordinal: int
    role: str
    status: str
    epoch: int
    text: str
    wording: str
    evidence: list[EvidenceOut]
    citations: list[CitationOut]
    nearest: list[NearestOut]
    refused: bool
    kind: str | None
    error: str | None
    superseded_by: str | None
    created_at: str
    finished_at: str | None
    timings: dict[str, Any]
    tokens: int


class TracedMessageOut(MessageOut):
    trace: dict[str, Any]


class PostedOut(Struct):
    message: MessageOut
    answer: MessageOut


class ConversationOut(Struct):
    id: str
    messages: list[MessageOut]
    last_event_id: str

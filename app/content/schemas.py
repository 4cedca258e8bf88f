"""What the content routes accept and answer (docs/api.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from app.http.input import Input

DocumentStatus = Literal["waiting", "fetching", "read", "unchanged", "skipped", "failed"]
DocumentStep = Literal["queued", "fetching", "fetched", "embedding"]


class NewSource(Input):
    url: Annotated[str, Meta(min_length=1, max_length=2000, examples=["https://docs.example.org/"])]
    assistant: Annotated[str, Meta(min_length=1, max_length=100, examples=["guide"])]
    kind: Literal["website"] = "website"
    title: Annotated[str, Meta(max_length=200)] | None = None


class CountsOut(Struct):
    found: int
    waiting: int
    read: int
    unchanged: int
    skipped: int
    failed: int
    fetching: int
    fetched: int
    passages: int


class SourceOut(Struct):
    id: str
    kind: str
    url: str
    title: str
    status: str
    reason: str | None
    counts: CountsOut
    current: str | None
    pages_per_second: float | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    assistant_ids: list[str]


class SourcePage(Struct):
    items: list[SourceOut]
    next_cursor: str | None


class DocumentOut(Struct):
    id: str
    source_id: str
    url: str
    title: str
    status: str
    step: DocumentStep | None
    reason: str | None
    code: str | None
    http_status: int | None
    version: int
    words: int
    bytes: int
    passages: int
    fetched_at: str | None
    depth: int


class DocumentPage(Struct):
    items: list[DocumentOut]
    next_cursor: str | None


class PassageOut(Struct):
    id: str
    ordinal: int
    heading_path: list[str]
    fragment: str | None
    text: str
    tokens: int


class DocumentWithPassages(Struct):
    id: str
    source_id: str
    url: str
    title: str
    status: str
    step: DocumentStep | None
    reason: str | None
    code: str | None
    http_status: int | None
    version: int
    words: int
    bytes: int
    passages: list[PassageOut]
    fetched_at: str | None
    depth: int

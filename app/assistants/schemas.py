"""What the assistant routes accept and answer (docs/api.md)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from app.http.input import Input


class Brand(Struct):
    brand: str
    brand_on: str
    brand_dark: str


class Contact(Struct):
    email: str | None
    url: str | None


class AssistantPublic(Struct):
    slug: str
    name: str
    greeting: str
    intro: str
    brand: Brand
    suggested_questions: list[str]
    contact: Contact


class AssistantOut(AssistantPublic):
    id: str
    persona: str
    tone: str
    brand_color: str
    allowed_origins: list[str]
    mode: str
    source_ids: list[str]
    created_at: str


class AssistantPage(Struct):
    items: list[AssistantOut]
    next_cursor: str | None


class NewAssistant(Input):
    name: Annotated[str, Meta(min_length=1, max_length=80, examples=["Acme docs"])]
    slug: Annotated[str, Meta(min_length=1, max_length=60, examples=["acme-docs"])] | None = None


class ContactChange(Input):
    email: str | UnsetType | None = UNSET
    url: str | UnsetType | None = UNSET


class AssistantChange(Input):
    """What is absent stays as it is."""

    name: str | UnsetType = UNSET
    greeting: str | UnsetType = UNSET
    intro: str | UnsetType = UNSET
    persona: str | UnsetType = UNSET
    tone: str | UnsetType = UNSET
    mode: str | UnsetType = UNSET
    brand_color: str | UnsetType = UNSET
    allowed_origins: list[str] | UnsetType = UNSET
    suggested_questions: list[str] | UnsetType = UNSET
    contact: ContactChange | UnsetType = UNSET

    def columns(self) -> dict[str, Any]:
        """The given fields under the names of the assistant's columns."""
        given = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not UNSET}
        contact = given.pop("contact", None)
        if contact is not None:
            for name in ("email", "url"):
                if getattr(contact, name) is not UNSET:
                    given[f"contact_{name}"] = (getattr(contact, name) or "").strip() or None
        return given


class Search(Input):
    query: Annotated[str, Meta(min_length=1, max_length=1000, examples=["How do I renew a certificate?"])]


class FoundSentence(Struct):
    text: str
    score: float


class FoundPassage(Struct):
    passage_id: str
    document_id: str
    title: str
    url: str
    heading_path: list[str]
    text: str
    score: float
    vector_score: float | None
    text_rank: float | None
    sentences: list[FoundSentence]


class Found(Struct):
    passages: list[FoundPassage]
    ms: float

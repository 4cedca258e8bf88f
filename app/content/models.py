"""Content: sources, the documents they yield, and the passages that are retrieved."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, deferred, mapped_column

from app.db.base import TenantRow

# all-MiniLM-L6-v2: 384 numbers a vector, normalised, so that the inner product is the cosine.
VECTOR_SIZE = 384


class Source(TenantRow):
    """Something the owner points at. Its row is also the job that reads it: `fence` and `heartbeat_at` guard the one run that counts."""

    __tablename__ = "sources"
    __table_args__ = (
        CheckConstraint("kind IN ('website')", name="kind"),
        CheckConstraint("status IN ('waiting', 'reading', 'read', 'failed')", name="status"),
        UniqueConstraint("workspace_id", "url"),
    )
    kind: Mapped[str] = mapped_column(Text, server_default="website")
    url: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text, server_default="")
    status: Mapped[str] = mapped_column(Text, server_default="waiting")
    reason: Mapped[str | None] = mapped_column(Text)
    run: Mapped[int] = mapped_column(
        server_default="0"
    )  # how often it has been read; a document carries the run that saw it last
    fence: Mapped[int] = mapped_column(server_default="0")
    heartbeat_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Document(TenantRow):
    """One page. `status` and `reason` say what became of it; `text` is the main text as it was read, for the version in use."""

    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("source_id", "url"),
        CheckConstraint("status IN ('waiting', 'fetching', 'fetched', 'read', 'unchanged', 'skipped', 'failed')", name="status"),
        Index("ix_documents_source_id_status", "source_id", "status"),
    )
    source_id: Mapped[UUID] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text, server_default="")
    status: Mapped[str] = mapped_column(Text, server_default="waiting")
    code: Mapped[str | None] = mapped_column(Text)  # the reason's stable name
    reason: Mapped[str | None] = mapped_column(Text)  # the reason as a person reads it
    http_status: Mapped[int | None]
    depth: Mapped[int] = mapped_column(server_default="0")  # links away from the source's address
    run: Mapped[int] = mapped_column(server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    claimed_at: Mapped[datetime | None]  # by the task that fetches or embeds it now; an old claim may be taken over
    etag: Mapped[str | None] = mapped_column(Text)
    last_modified: Mapped[str | None] = mapped_column(Text)
    content_hash: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(server_default="0")
    words: Mapped[int] = mapped_column(server_default="0")
    bytes: Mapped[int] = mapped_column(server_default="0")
    fetched_at: Mapped[datetime | None]
    # Blocks of the extracted main text, waiting to be embedded: [{"heading_path", "fragment", "text"}]. Emptied once indexed.
    blocks: Mapped[list[dict[str, Any]] | None] = deferred(mapped_column(JSONB))


class Passage(TenantRow):
    """A retrievable piece of a document, with its place, and the vectors of its sentences for the choice of evidence."""

    __tablename__ = "passages"
    __table_args__ = (
        UniqueConstraint("document_id", "ordinal"),
        Index("ix_passages_tsv", "tsv", postgresql_using="gin"),
        Index(
            "ix_passages_embedding",
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "halfvec_ip_ops"},
        ),
    )
    source_id: Mapped[UUID] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"), index=True)
    document_id: Mapped[UUID] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    url: Mapped[str] = mapped_column(Text)  # of the document, without fragment
    title: Mapped[str] = mapped_column(Text)  # of the document
    heading_path: Mapped[list[str]] = mapped_column(ARRAY(Text))
    fragment: Mapped[str | None] = mapped_column(Text)  # the id of the nearest heading above
    text: Mapped[str] = mapped_column(Text)
    tokens: Mapped[int]  # of the generator's tokenizer, roughly: used for budgets alone
    embedding: Mapped[Any] = deferred(mapped_column(HALFVEC(VECTOR_SIZE), nullable=False))  # of title, headings and text together
    # [[start, end], …] of each sentence in `text`, and their vectors: float16, row-major, [sentences, 384].
    sentences: Mapped[list[list[int]]] = mapped_column(JSONB)
    sentence_vectors: Mapped[bytes] = deferred(mapped_column(LargeBinary, nullable=False))
    # What made both, by its fingerprint: passages of another encoder than today's are embedded again in the background.
    encoder: Mapped[str] = mapped_column(Text, server_default="", index=True)
    tsv: Mapped[Any] = deferred(
        mapped_column(
            TSVECTOR,
            Computed(
                "setweight(to_tsvector('english', title || ' ' || immutable_join(heading_path)), 'A')"
                " || setweight(to_tsvector('english', text), 'B')",
                persisted=True,
            ),
        )
    )

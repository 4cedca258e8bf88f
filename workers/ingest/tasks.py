"""The tasks by which sources are read. Arguments are identifiers as text."""

from __future__ import annotations

from uuid import UUID

from app.jobs import EMBED_DOCUMENT, FETCH_DOCUMENT, READ_SOURCE, REFRESH_VECTORS
from workers.celery import app
from workers.ingest import crawl, refresh
from workers.process import process

# A page that takes longer than its fetch and its turn at the host together is stuck in a parser: the child is killed.
FETCH_LIMIT = 60


@app.task(name=READ_SOURCE)
def read_source(workspace_id: str, source_id: str) -> None:
    process.run(crawl.read_source(process, UUID(workspace_id), UUID(source_id)))


@app.task(name=FETCH_DOCUMENT, time_limit=FETCH_LIMIT)
def fetch_document(workspace_id: str, document_id: str) -> None:
    process.run(crawl.fetch_document(process, UUID(workspace_id), UUID(document_id)))


@app.task(name=EMBED_DOCUMENT)
def embed_document(workspace_id: str, document_id: str) -> None:
    process.run(crawl.embed_document(process, UUID(workspace_id), UUID(document_id)))


@app.task(name=REFRESH_VECTORS)
def refresh_vectors() -> None:
    process.run(refresh.refresh(process))

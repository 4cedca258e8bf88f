"""Sends work to the Celery workers by name; knows none of their code.

A task is a hint: what must be done stands in SQL, written in the request's own transaction, and a sweeper finds what
no hint reached.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from app.config import settings

READ_SOURCE = "ingest.read_source"  # (workspace_id, source_id)
FETCH_DOCUMENT = "ingest.fetch_document"  # (workspace_id, document_id)
EMBED_DOCUMENT = "ingest.embed_document"  # (workspace_id, document_id)
REFRESH_VECTORS = "ingest.refresh_vectors"
SWEEP = "tidy.sweep"

QUEUE_IO = "io"  # prefork, without torch
QUEUE_MODELS = "models"  # solo, short torch tasks
# Read by both workers: whichever is free sweeps, so neither slow websites nor a long page can put it off.
QUEUE_TIDY = "tidy"

ROUTES = {
    READ_SOURCE: {"queue": QUEUE_IO},
    FETCH_DOCUMENT: {"queue": QUEUE_IO},
    EMBED_DOCUMENT: {"queue": QUEUE_MODELS},
    REFRESH_VECTORS: {"queue": QUEUE_MODELS},
    SWEEP: {"queue": QUEUE_TIDY},
}


def configure(app: Celery, broker: str) -> Celery:
    """The settings that sender and workers must share. Why each: docs/decisions.md."""
    app.conf.update(
        broker_url=broker,
        result_backend=None,
        task_ignore_result=True,
        task_routes=ROUTES,
        task_default_queue=QUEUE_IO,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": 180,
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 2,
            "socket_timeout": 10,
        },
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1, "interval_max": 0.1},
        enable_utc=True,
        timezone="UTC",
    )
    return app


@cache
def sender() -> Celery:
    return configure(Celery("retort-sender"), settings().bus_url)


def send(name: str, *arguments: Any) -> bool:
    """Hand a task to its queue; False when the bus does not answer (the sweeper will find the work in SQL).

    Blocks for a moment: call it in a thread from async code.
    """
    try:
        sender().send_task(name, args=[str(a) for a in arguments])
    except (OperationalError, OSError):
        return False
    return True

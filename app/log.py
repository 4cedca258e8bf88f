"""Structured logs: one JSON object a line, carrying the process and the bound request, conversation and job ids.

    log = structlog.get_logger()
    with structlog.contextvars.bound_contextvars(conversation_id=…): log.info("answered", ms=120)

Logs never hold what a visitor wrote, a token or a key.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(process: str, *, log_format: str | None = None, level: str | None = None) -> None:
    """Set up structlog and the standard library's logging for this process (`web`, `generator`, `worker-io`, …).

    Format and level come from RETORT_LOG_FORMAT (json, console) and RETORT_LOG_LEVEL unless given. Logs go to stderr,
    so that a command's own output stays clean.
    """
    log_format = log_format or os.environ.get("RETORT_LOG_FORMAT", "") or "json"
    threshold = LEVELS.get((level or os.environ.get("RETORT_LOG_LEVEL", "") or "info").lower(), logging.INFO)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _name_process(process),
    ]
    if log_format == "console":
        # A plain trace: the pretty one prints local variables, secrets among them.
        final: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    else:
        final = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library: the same lines, from warnings on unless asked for more.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.WARNING) if threshold > logging.DEBUG else threshold)


def _name_process(process: str) -> structlog.typing.Processor:
    pid = os.getpid()

    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("process", process)
        event.setdefault("pid", pid)
        return event

    return add

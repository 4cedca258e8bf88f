"""The Celery application: `celery -A workers.celery worker -Q io,tidy --pool prefork`, `… -Q models,tidy --pool solo`, and
`celery -A workers.celery beat -S redbeat.RedBeatScheduler`.

A task is a hint: it names rows, and the rows say what is to be done. So a task may be lost, repeated or late, and tasks stay
short. The io pool never imports torch, so that its children fork quickly and stay small; hard time limits hold there.

Start the io worker with REMAP_SIGTERM=SIGQUIT in its environment (Celery reads it before this module): SIGTERM then requeues
what runs and ends at once. Never the solo worker: it would lose its task; there SIGTERM waits for the task, which is short.
"""

from __future__ import annotations

import sys
from typing import Any

import structlog
from celery import Celery, signals

from app import log
from app.config import SettingsError, settings
from app.embedded.child import end_with_parent
from app.jobs import QUEUE_MODELS, REFRESH_VECTORS, SWEEP, configure
from workers import tuned
from workers.process import Pulse, process

SWEEP_SECONDS = 3.0
# The longest task is planning a source (two minutes); a hint comes back after `visibility_timeout`, which is longer.
TIME_LIMIT = 150
# A child that has read so many pages, or grown so large (KiB), is replaced: parsing foreign pages may leak.
CHILD_TASKS, CHILD_MEMORY = 2000, 400_000
# Beat's lock is taken over by another beat after so long.
LOCK_SECONDS, BEAT_LOOP_SECONDS = 15, 3
# Stale vectors are looked for so often (workers.ingest.refresh); a look that waited for long is superseded by later ones.
REFRESH_SECONDS, REFRESH_EXPIRES = 4.0, 30.0

try:
    _bus_url = settings().bus_url
except SettingsError as error:
    sys.exit(str(error))

app = configure(Celery("retort"), _bus_url)
app.conf.update(
    imports=("workers.ingest.tasks", "workers.tidy"),
    task_time_limit=TIME_LIMIT,
    worker_max_tasks_per_child=CHILD_TASKS,
    worker_max_memory_per_child=CHILD_MEMORY,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_soft_shutdown_timeout=2.0,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    beat_max_loop_interval=BEAT_LOOP_SECONDS,
    redbeat_redis_url=_bus_url,
    redbeat_redis_options={"socket_connect_timeout": 2, "socket_timeout": 10},
    redbeat_key_prefix="bus:redbeat",
    redbeat_lock_timeout=LOCK_SECONDS,
    # A sweep that nobody took in time is superseded by the next.
    beat_schedule={
        "sweep": {"task": SWEEP, "schedule": SWEEP_SECONDS, "options": {"expires": SWEEP_SECONDS}},
        "refresh": {"task": REFRESH_VECTORS, "schedule": REFRESH_SECONDS, "options": {"expires": REFRESH_EXPIRES}},
    },
)

_pulses: list[Pulse] = []


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    log.configure("beat" if "beat" in sys.argv else "worker")


@signals.worker_process_init.connect
def _begin_child(**_: Any) -> None:
    end_with_parent()  # a pool whose worker was killed ends at once instead of after its task
    process.forget()


@signals.worker_process_shutdown.connect
def _end_child(**_: Any) -> None:
    process.close()


@signals.celeryd_init.connect
def _check_weights(options: dict[str, Any], **_: Any) -> None:
    """Without whole weights no page gets vectors: say so at once, instead of failing each page."""
    if QUEUE_MODELS in (options.get("queues") or ""):
        try:
            tuned.check(tuned.shipped())
        except tuned.SelectionError as error:
            sys.exit(f"worker: {error}")


@signals.worker_ready.connect
def _announce_worker(sender: Any, **_: Any) -> None:
    queues = sender.app.amqp.queues.consume_from
    kind = "worker-models" if QUEUE_MODELS in queues else "worker-io"
    _start_pulse(kind, str(sender.hostname))


@signals.beat_init.connect
def _announce_beat(**_: Any) -> None:
    _start_pulse("beat", "beat")


def _start_pulse(kind: str, name: str) -> None:
    pulse = Pulse(kind, name)
    pulse.start()
    _pulses.append(pulse)


@signals.worker_shutting_down.connect
def _fall_silent(**_: Any) -> None:
    while _pulses:
        _pulses.pop().stop()


@signals.task_prerun.connect
def _bind_job(task_id: str, task: Any, **_: Any) -> None:
    structlog.contextvars.bind_contextvars(job_id=task_id, job=task.name)


@signals.task_postrun.connect
def _unbind_job(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()

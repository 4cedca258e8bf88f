"""What one worker process holds: an event loop, a pool of connections, a client of the bus, the outbound client.

Everything is made at first use, so that nothing is inherited over a fork, and lives as long as the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

import app.db.models  # noqa: F401 (the ORM needs every table that a foreign key names)
from app.config import Settings, settings
from app.db.session import Database
from app.http.outbound import VERSION, Outbound
from app.jobs import send as send_blocking
from app.redis import client, process_key

T = TypeVar("T")
BEAT_SECONDS = 5.0
KEY_SECONDS = 15


class Process:
    """`run(coroutine)` from a task; the rest from inside coroutines."""

    def __init__(self, current: Settings | None = None) -> None:
        self._settings = current
        self._runner: asyncio.Runner | None = None
        self._database: Database | None = None
        self._bus: Redis | None = None
        self._outbound: Outbound | None = None

    @property
    def settings(self) -> Settings:
        return self._settings or settings()

    @property
    def database(self) -> Database:
        if self._database is None:
            self._database = Database(self.settings.database_url, pool_size=2, max_overflow=2, application="retort-worker")
        return self._database

    @property
    def bus(self) -> Redis:
        if self._bus is None:
            self._bus = client(self.settings.bus_url)
        return self._bus

    @property
    def outbound(self) -> Outbound:
        if self._outbound is None:
            self._outbound = Outbound.create(self.settings)
        return self._outbound

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a task's coroutine to its end on the process's one event loop."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        # In the task's own context, so that logs carry its job and not that of the process's first.
        return self._runner.run(coroutine, context=contextvars.copy_context())

    async def aclose(self) -> None:
        """Close what was opened; the process can be used again afterwards."""
        if self._outbound is not None:
            await self._outbound.close()
        if self._bus is not None:
            await self._bus.aclose()
        if self._database is not None:
            await self._database.close()
        self._outbound = self._bus = self._database = None

    def close(self) -> None:
        """Close everything, the loop included. Only outside a running loop."""
        if self._runner is not None:
            self._runner.run(self.aclose())
            self._runner.close()
            self._runner = None

    def forget(self) -> None:
        """Drop what a fork may have copied, without closing it: the connections are the parent's."""
        self._runner = self._outbound = self._bus = self._database = None


process = Process()


async def send(name: str, *arguments: Any) -> bool:
    """Hand a hint to another task; False when the bus is away (the sweeper finds the work in SQL)."""
    return await asyncio.to_thread(send_blocking, name, *arguments)


class Pulse:
    """A thread that keeps a process's key alive on the bus, so that the status page can tell the truth."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self._key = process_key(kind, f"{name}:{os.getpid()}")
        self._value = json.dumps({"pid": os.getpid(), "started": time.time(), "version": VERSION})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2)

    def _beat(self) -> None:
        bus = BlockingRedis.from_url(settings().bus_url, socket_timeout=2.0, socket_connect_timeout=2.0)
        log = structlog.get_logger()
        away = False
        while True:
            try:
                if self._stop.is_set():
                    bus.delete(self._key)
                    break
                bus.set(self._key, self._value, ex=KEY_SECONDS)
                away = False
            except (RedisError, OSError) as error:
                if not away:
                    log.warning("bus_away", kind=self.kind, error=str(error))
                away = True
                if self._stop.is_set():
                    break
            self._stop.wait(BEAT_SECONDS)
        bus.close()

"""What both applications of the web process share: one database pool, one client for each Redis, one relay, one limiter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from litestar.connection import ASGIConnection
from redis.asyncio import Redis

import app.redis
from app.chat.relay import Relay
from app.config import Settings
from app.db.session import Database
from app.http.metrics import Metrics
from app.http.rate_limit import Limiter

POOL = 8
OVERFLOW = 8


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    database: Database
    bus: Redis
    blocking: Redis  # for BLPOP: its socket waits as long as the command
    states: Redis
    relay: Relay
    limiter: Limiter
    metrics: Metrics
    closing: asyncio.Event  # set when the process is told to end


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Everything that the web process shares, open until the block ends."""
    database = Database(settings.database_url, pool_size=POOL, max_overflow=OVERFLOW, application="retort-web")
    bus, blocking = app.redis.client(settings.bus_url), app.redis.blocking_client(settings.bus_url)
    states, metrics = app.redis.client(settings.states_url), Metrics()
    relay = Relay(database, bus, blocking, metrics.streams)
    reading = asyncio.create_task(relay.run(), name="relay")
    try:
        yield Services(settings, database, bus, blocking, states, relay, Limiter(bus), metrics, asyncio.Event())
    finally:
        relay.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        for client in (bus, blocking, states):
            await client.aclose()
        await database.close()


def services_of(connection: ASGIConnection) -> Services:
    return connection.app.state.services

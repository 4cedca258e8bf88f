"""The generator: claims queued answers and writes them, many at a time over one model. Any number of them may run.

    python -m workers.generate

SQL is the queue. The bell on the bus only saves the second until the next look at it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app import redis as keys
from app.config import Settings, SettingsError, settings
from app.db import lookups
from app.db.lookups import Claim
from app.db.session import Database
from app.log import configure
from retnet_core import CheckpointError, Engine, Model, load_model
from retnet_core.footprint import Footprint
from workers import tuned
from workers.answer import rpc
from workers.answer.claim import hand_back, release_overtaken
from workers.answer.pipeline import answer_claim
from workers.answer.prefixes import Prefixes
from workers.answer.services import Readings, Services, Vectors
from workers.encoder import Encoder
from workers.reader import Reader

BELL_SECONDS = 1
SIGN_SECONDS = 5.0
SIGN_LIFE_SECONDS = 15
# After SIGTERM: so long running answers may still finish, then they are handed back. Together they stay below 2 s.
GRACE_SECONDS = 1.0
HAND_BACK_SECONDS = 0.8
# Web goes first on a shared machine: an answer being written must not slow the page that shows it.
NICENESS = 5
REQUESTS_AT_ONCE = 4
# The engine's queue beyond its slots: each answer has at most two requests waiting there.
ENGINE_QUEUE_PER_SLOT = 4
RECONNECT_SECONDS = 1.0

log = structlog.get_logger()


def build_services(
    chosen: Settings,
    model: Model,
    encoder: Encoder,
    *,
    name: str,
    database: Database,
    bus: Redis,
    states: Redis,
    reader: Reader | None = None,
) -> Services:
    """The parts of a generator around models that are loaded already. Starts the engine."""
    slots = chosen.generator_slots
    engine = Engine(model, slots=slots, queue_limit=ENGINE_QUEUE_PER_SLOT * slots, threads=chosen.threads)
    engine.start()
    return Services(chosen, name, database, bus, states, model, engine, Vectors(encoder), Prefixes(engine), Readings(reader))


class Generator:
    """The loops of the process: answers, short requests, cancels, the sign of life."""

    def __init__(self, services: Services, blocking: Redis) -> None:
        self.services = services
        self._blocking = blocking
        self._answers: dict[UUID, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(services.settings.generator_slots)
        self._stopping = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self.failed = False

    def stop(self) -> None:
        """Claim nothing more. `run` then ends within 2 s."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`."""
        loops: list[Callable[[], Coroutine[Any, Any, None]]] = [self._claim, self._requests, self._control, self._sign]
        self._loops = [asyncio.create_task(self._forever(loop), name=loop.__name__) for loop in loops]
        log.info("generator_ready", name=self.services.name, slots=self.services.settings.generator_slots)
        await self._stopping.wait()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._finish()

    async def _forever(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop again when a server goes away: whatever it missed is in SQL. A mistake of ours ends the whole process, whose
        supervisor starts another: without one of its loops a generator would look alive and do nothing."""
        name = getattr(loop, "__name__", "")
        while not self._stopping.is_set():
            try:
                await loop()
            except (RedisError, SQLAlchemyError, OSError) as error:
                log.warning("server_away", loop=name, error=str(error).partition("\n")[0])
                await asyncio.sleep(RECONNECT_SECONDS)
            except Exception:
                log.exception("loop_failed", loop=name)
                self.failed = True
                self.stop()

    async def _claim(self) -> None:
        while True:
            await self._free.acquire()
            claim = None
            try:
                async with self.services.database.transaction(None) as session:
                    claim = await lookups.claim_message(session, self.services.name)
            finally:
                if claim is None:
                    self._free.release()
            if claim is None:
                await self._wait_for_bell()
                continue
            self._answers[claim.message_id] = asyncio.create_task(self._serve(claim))

    async def _wait_for_bell(self) -> None:
        try:
            await self._blocking.brpop([keys.BELL], timeout=BELL_SECONDS)
        except (RedisError, OSError) as error:
            # Without the bus the queue is still there: look again in a second.
            log.warning("bus_away", error=str(error))
            await asyncio.sleep(BELL_SECONDS)

    async def _serve(self, claim: Claim) -> None:
        try:
            await answer_claim(self.services, claim)
        except asyncio.CancelledError:
            if self._stopping.is_set():
                await hand_back(self.services, claim)
                log.info("answer_handed_back", message_id=str(claim.message_id))
            else:
                await release_overtaken(self.services, claim)
        except (RedisError, SQLAlchemyError, OSError) as error:
            # The row keeps its last sign of life; the sweeper frees it when that is old.
            log.warning("answer_left", message_id=str(claim.message_id), error=str(error).partition("\n")[0])
        finally:
            self._answers.pop(claim.message_id, None)
            self._free.release()

    async def _requests(self) -> None:
        places = asyncio.Semaphore(REQUESTS_AT_ONCE)
        running: set[asyncio.Task[None]] = set()

        async def one(raw: bytes) -> None:
            try:
                await rpc.serve(self.services, raw)
            except (RedisError, SQLAlchemyError, OSError) as error:
                log.warning("request_lost", error=str(error).partition("\n")[0])
            finally:
                places.release()

        while True:
            await places.acquire()
            taken: Any = None
            try:
                taken = await self._blocking.blpop([keys.REQUESTS], timeout=BELL_SECONDS)
            finally:
                if taken is None:
                    places.release()
            if taken is not None:
                task = asyncio.create_task(one(taken[1]))
                running.add(task)
                task.add_done_callback(running.discard)

    async def _control(self) -> None:
        """Stop writing what a visitor stopped. The epoch in SQL is what counts; this saves its time."""
        async with self._blocking.pubsub() as channel:
            await channel.subscribe(keys.CONTROL)
            async for message in channel.listen():
                if message["type"] != "message":
                    continue
                try:
                    message_id = UUID(json.loads(message["data"])["cancel"])
                except (ValueError, KeyError, TypeError):
                    log.warning("control_unreadable")
                    continue
                if (task := self._answers.get(message_id)) is not None:
                    task.cancel()

    async def _sign(self) -> None:
        """The sign of life that /status reads."""
        key = keys.process_key("generator", self.services.name)
        while True:
            counters = self.services.counters
            value = {
                "pid": os.getpid(),
                "started": self._started,
                "version": _version(),
                "slots": self.services.settings.generator_slots,
                "running": len(self._answers),
                "answers": counters.answers,
                "refusals": counters.refusals,
                "failures": counters.failures,
                "requests": counters.requests,
                "tokens": counters.tokens,
                "tokens_per_second": counters.tokens_per_second,
            }
            await self.services.bus.set(key, json.dumps(value), ex=SIGN_LIFE_SECONDS)
            await asyncio.sleep(SIGN_SECONDS)

    async def _finish(self) -> None:
        """Let what runs end, then hand the rest back to the queue."""
        if self._answers:
            await asyncio.wait(set(self._answers.values()), timeout=GRACE_SECONDS)
        rest = set(self._answers.values())
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=HAND_BACK_SECONDS)
        try:
            await self.services.bus.delete(keys.process_key("generator", self.services.name))
        except (RedisError, OSError) as error:
            log.warning("bus_away", error=str(error))


def _version() -> str:
    try:
        return version("retort")
    except PackageNotFoundError:
        return "0"


def _step_back() -> None:
    """Lower this process's priority. Linux counts it per thread, and those of the matrix products run already."""
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


async def serve(chosen: Settings) -> None:
    """Load the models, then work until SIGTERM or SIGINT."""
    begun = time.monotonic()
    # One after the other: each uses all threads.
    model = await asyncio.to_thread(load_model, precision=chosen.model_precision)
    encoder = await asyncio.to_thread(Encoder.load, chosen.threads)
    reader = await asyncio.to_thread(Reader.load)
    database = Database(chosen.database_url, pool_size=chosen.generator_slots + 2, application="retort-generator")
    bus, states, blocking = keys.client(chosen.bus_url), keys.client(chosen.states_url), keys.blocking_client(chosen.bus_url)
    name = f"{socket.gethostname()}-{os.getpid()}"
    services = build_services(chosen, model, encoder, name=name, database=database, bus=bus, states=states, reader=reader)
    await services.vectors.encode(["warm up"])
    await services.prefixes.get(model.tokenizer.encode("<|im_start|>system\n"))
    _step_back()
    log.info(
        "models_loaded",
        seconds=round(time.monotonic() - begun, 1),
        model=model.fingerprint[:12],
        encoder=encoder.name,
        reader="tuned" if reader is not None else "none",
        **Footprint.of(model).fields(),
    )
    generator = Generator(services, blocking)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, generator.stop)
    try:
        await generator.run()
    finally:
        services.engine.close()
        services.vectors.close()
        services.readings.close()
        for client in (bus, states, blocking):
            await client.aclose()
        await database.close()
        log.info("generator_stopped")
    if generator.failed:
        sys.exit(1)


def main() -> None:
    try:
        chosen = settings()
    except SettingsError as error:
        sys.exit(f"generator: {error}")
    configure("generator", log_format=chosen.log_format, level=chosen.log_level)
    try:
        tuned.check(tuned.shipped())  # before the seconds that loading takes
        asyncio.run(serve(chosen))
    except (CheckpointError, tuned.SelectionError) as error:
        sys.exit(f"generator: {error}")


if __name__ == "__main__":
    main()

"""The real thing: Celery workers and beat as processes, a site, and a worker killed in the middle of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from app import jobs
from app.redis import process_key
from tests.ingest.crawled_site import Crawler, Website, page
from tests.ingest.test_tidy import abandoned, stored

ROOT = Path(__file__).parents[2]
PAGES = 24


class Workers:
    """Starts workers as `retort up` does, each in its own process group; logs to files."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str, **extra: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "workers.celery", *arguments]
        with (self.folder / f"{name}-{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment | extra, stdout=log, stderr=log, start_new_session=True
            )
        self.started.append(process)
        return process

    def io(self) -> subprocess.Popen[bytes]:
        return self.start(
            "io", "worker", "-Q", "io,tidy", "--pool", "prefork", "-c", "2", "-n", "io@%h", "--without-gossip", "--without-mingle",
            REMAP_SIGTERM="SIGQUIT",
        )  # fmt: skip

    def models(self) -> subprocess.Popen[bytes]:
        return self.start(
            "models", "worker", "-Q", "models,tidy", "--pool", "solo", "-n", "models@%h", "--without-gossip", "--without-mingle"
        )

    def beat(self) -> subprocess.Popen[bytes]:
        return self.start("beat", "beat", "-S", "redbeat.RedBeatScheduler")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """kill -9 of a worker and all its children, as an out-of-memory killer or a power cut would."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
        for process in self.started:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill(process)

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-4000:]}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def workers(stack: Any, site: Website, tmp_path: Path) -> Iterator[Workers]:
    environment = stack.environment | {"RETORT_ALLOW_PRIVATE": site.host, "OMP_NUM_THREADS": "1"}
    started = Workers(environment, tmp_path)
    yield started
    started.stop()


async def until(condition: Callable[[], Any], seconds: float, workers: Workers) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"did not happen within {seconds} s\n{workers.logs()}")


def build(site: Website) -> None:
    paths = tuple(f"/page-{number}" for number in range(PAGES - 1))
    site["/"] = page("Handbook", "The handbook has a page for each of the machines in the hall.", links=paths)
    for number, path in enumerate(paths):
        site[path] = page(
            f"Machine {number}", f"Machine {number} is oiled every {number + 2} days with oil number {number + 40}."
        )


@pytest.mark.faults
async def test_a_site_becomes_searchable_and_a_killed_worker_costs_no_page(
    crawler: Crawler, site: Website, workers: Workers, bus: Any
) -> None:
    build(site)
    site.delay = 0.25
    first = workers.io()
    workers.models()
    workers.beat()
    source_id = await crawler.add(f"{site.url}/")
    await until(lambda: len(site.pages_asked()) >= 5, 90, workers)
    in_flight = site.open
    workers.kill(first)
    asked = dict(site.pages_asked())
    workers.io()

    async def ended() -> bool:
        return (await crawler.source(source_id)).status in ("read", "failed")

    await until(ended, 120, workers)
    source = await crawler.source(source_id)
    documents = await crawler.documents(source_id)
    assert source.status == "read", source.reason
    assert len(documents) == PAGES and {d.status for d in documents.values()} == {"read"}
    twice = {path: count for path, count in site.pages_asked().items() if count > 1}
    assert sum(count - 1 for count in twice.values()) <= max(in_flight, 2), f"asked again: {twice} (before the kill: {asked})"
    assert len({p.document_id for p in await crawler.passages(source_id)}) == PAGES
    assert site.most_open <= 2 + in_flight
    assert await searchable(crawler, "oil number 51") == f"{site.url}/page-11"
    await announced(bus, workers)
    assert_light(workers)


async def searchable(crawler: Crawler, query: str) -> str:
    """The address of the best match by words, through the function that the live path uses."""
    async with crawler.db.transaction(crawler.tenant.workspace_id) as session:
        rows = await session.execute(
            text(
                """SELECT p.url FROM search_text(:assistant, phraseto_tsquery('english', :query)::text, 5) found
                   JOIN passages p ON p.id = found.passage_id ORDER BY found.rank DESC LIMIT 1"""
            ),
            {"assistant": crawler.tenant.assistant_id, "query": query},
        )
        return rows.scalar_one()


async def announced(bus: Any, workers: Workers) -> None:
    """Each process says on the bus that it lives."""
    for kind in ("worker-io", "worker-models", "beat"):

        async def alive(kind: str = kind) -> list[Any]:
            keys = [key async for key in bus.scan_iter(process_key(kind, "*"))]
            values = [json.loads(await bus.get(key) or b"{}") for key in keys]
            return [value for value in values if value.get("pid") in {process.pid for process in workers.started}]

        (value, *_) = await until(alive, 10, workers)
        assert {"pid", "started", "version"} <= value.keys()


def assert_light(workers: Workers) -> None:
    """The io pool has fetched and extracted pages without torch."""
    for process in workers.started:
        if process.poll() is not None or b"-Q\0io," not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            continue
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(tree) >= 3
        for one in tree:
            maps = Path(f"/proc/{one.pid}/maps").read_text()
            assert "libtorch" not in maps, "a child of the io pool has loaded torch"


@pytest.mark.faults
async def test_sigterm_ends_workers_soon_and_their_keys_with_them(stack: Any, workers: Workers, bus: Any) -> None:
    io = workers.io()

    async def alive() -> bool:
        keys = [key async for key in bus.scan_iter(process_key("worker-io", "*"))]
        return any(key.decode().endswith(f":{io.pid}") for key in keys)

    await until(alive, 60, workers)
    io.terminate()
    began = time.monotonic()
    await asyncio.to_thread(io.wait, 20)
    assert time.monotonic() - began < 10 and io.returncode in (0, -signal.SIGTERM, -signal.SIGQUIT), workers.logs()
    assert not await alive()


async def test_hints_go_to_the_queues_that_the_workers_read() -> None:
    assert {jobs.ROUTES[name]["queue"] for name in (jobs.READ_SOURCE, jobs.FETCH_DOCUMENT)} == {"io"}
    assert jobs.ROUTES[jobs.EMBED_DOCUMENT]["queue"] == "models"
    assert jobs.ROUTES[jobs.SWEEP]["queue"] == "tidy"


@pytest.mark.faults
async def test_slow_websites_do_not_keep_an_answer_from_being_freed(
    crawler: Crawler, site: Website, workers: Workers, db: Any, tenant: Any
) -> None:
    """Both children of the io pool are held by sites that hardly answer; the other worker sweeps."""
    site.delay = 25
    sources = [await crawler.add(f"{site.url}/{name}/") for name in ("one", "two")]
    workers.io()
    workers.models()
    workers.beat()
    for source_id in sources:
        jobs.send(jobs.READ_SOURCE, tenant.workspace_id, source_id)
    await until(lambda: site.open >= 2, 60, workers)
    answer = await abandoned(db, tenant, attempt=1)

    async def freed() -> bool:
        return (await stored(db, tenant, answer))[0] == "queued"

    await until(freed, 15, workers)
    assert {(await crawler.source(source_id)).status for source_id in sources} == {"reading"}
    assert [await crawler.documents(source_id) for source_id in sources] == [{}, {}], "the io pool was not held"


def test_the_worker_says_in_one_line_what_setting_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RETORT_")}
    ended = subprocess.run(
        [sys.executable, "-c", "import workers.celery"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1 and ended.stderr.startswith("RETORT_DATABASE_URL is not set") and ended.stderr.count("\n") == 1


async def test_a_lost_hint_for_a_waiting_source_is_found_in_sql(crawler: Crawler, site: Website, workers: Workers) -> None:
    site["/"] = page("Only", "The only page of this site says that lost messages are found again by the sweeper.")
    source_id = await crawler.add(f"{site.url}/")
    workers.io()
    workers.models()
    workers.beat()

    async def ended() -> bool:
        return (await crawler.source(source_id)).status == "read"

    await until(ended, 90, workers)
    assert site.pages_asked() == {"/": 1}

"""What runs is told truly, and what ends, ends at once and cleanly."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import httpx
import msgspec
import psutil
import psycopg
import pytest

from app import redis as keys
from app.http import edge
from tests.api.conftest import free_port, join, problem, read_events, serving


async def test_health_tells_of_both_servers(visitors, members):
    for client in (visitors, members):
        assert (await client.get("/health/live")).json() == {"status": "live"}
        assert (await client.get("/health/ready")).json() == {"status": "ready", "postgresql": True, "bus": True}


async def test_status_reads_the_signs_of_life(members, bus):
    async def components() -> dict[str, dict]:
        await asyncio.sleep(1.1)  # a status is kept for a second
        body = (await members.get("/status", headers={"accept": "application/json"})).json()
        return {c["key"]: c for c in body["components"]} | {"all": body}

    before = await components()
    assert set(before) == {"web", "generator", "worker", "beat", "postgresql", "bus", "states", "all"}
    assert before["generator"]["state"] == "down" and before["all"]["status"] == "down"
    assert all(before[name]["state"] == "up" and before[name]["ms"] < 1000 for name in ("postgresql", "bus", "states"))
    alive = msgspec.json.encode({"pid": 1, "started": time.time(), "version": "0"})
    for kind in ("generator", "worker-io", "beat"):
        await bus.set(keys.process_key(kind, "test"), alive, ex=15)
    half = await components()
    assert half["generator"]["state"] == "up" and half["generator"]["count"] == 1
    assert half["worker"]["state"] == "down" and "worker-models" in half["worker"]["detail"]
    assert half["all"]["status"] == "degraded"
    await bus.set(keys.process_key("worker-models", "test"), alive, ex=15)
    assert (await components())["all"]["status"] == "up"
    for kind in ("generator", "worker-io", "worker-models", "beat"):
        await bus.delete(keys.process_key(kind, "test"))
    page = await members.get("/status", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html") and "PostgreSQL" in page.text


async def test_metrics_are_on_the_dashboard_origin_only(visitors, members):
    await visitors.get("/health/live")
    text = (await members.get("/metrics")).text
    for name in ("retort_requests_total", "retort_request_seconds_bucket", "retort_queue_depth", "retort_open_streams"):
        assert name in text
    assert "retort_bus_up 1.0" in text and "retort_database_up 1.0" in text
    problem(await visitors.get("/metrics"), 404, "not-found")


async def test_without_the_bus_a_question_is_stored_and_nothing_hangs(stack, db, tenant):
    settings = replace(stack.settings, bus_url=f"redis://127.0.0.1:{free_port()}/0")
    async with (
        serving(settings) as web,
        httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}, timeout=10) as client,
    ):
        started = time.perf_counter()
        asker = await join(client, tenant.slug)
        asked = await asker.ask("Still there?")
        assert asked.status_code == 202 and time.perf_counter() - started < 4
        ready = await client.get("/health/ready")
        assert ready.status_code == 503 and ready.json() == {"status": "not ready", "postgresql": True, "bus": False}
        status = (await client.get("/status", headers={"accept": "application/json"})).json()
        states = {c["key"]: c["state"] for c in status["components"]}
        assert states["bus"] == "down" and states["generator"] == "unknown" and states["postgresql"] == "up"
        path = f"/widget/v1/conversations/{asker.conversation}/events"
        async with asyncio.timeout(8), client.stream("GET", path, headers=asker.auth) as response:
            stream = read_events(response)
            first = await anext(stream)
            assert first["event"] == "snapshot" and first["data"]["messages"][1]["status"] == "queued"
            stopped = await asker.act(asked.json()["answer"]["id"], "stop")
            assert stopped.json()["status"] == "cancelled"
            last = [event async for event in stream][-1]
            assert last["data"]["messages"][1]["status"] == "cancelled"
        codes = [(await asker.ask("Noise")).status_code for _ in range(25)]
        assert codes[-1] == 429  # limits hold in the process while the bus is away


async def test_without_the_database_everything_is_refused_at_once(stack, tenant):
    settings = replace(stack.settings, database_url=f"postgresql://retort_app:x@127.0.0.1:{free_port()}/none")
    async with (
        serving(settings) as web,
        httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}, timeout=10) as client,
    ):
        started = time.perf_counter()
        answer = await client.post("/widget/v1/session", json={"assistant": tenant.slug})
        problem(answer, 503, "database-away")
        assert answer.headers["retry-after"] and time.perf_counter() - started < 2
        assert (await client.get("/health/ready")).json()["postgresql"] is False
        assert (await client.get("/health/live")).status_code == 200


@pytest.fixture
async def silent_server():
    """A server that takes connections and never says a word."""

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_bus_that_hangs_holds_nobody_up(stack, tenant, silent_server):
    settings = replace(stack.settings, bus_url=f"redis://127.0.0.1:{silent_server}/0")
    async with (
        serving(settings) as web,
        httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}, timeout=10) as client,
    ):
        asker = await join(client, tenant.slug)
        for text in ("One", "Two"):
            started = time.perf_counter()
            asked = await asker.ask(text)
            assert asked.status_code == 202 and time.perf_counter() - started < 2
        started = time.perf_counter()
        assert (await client.get("/health/ready")).status_code == 503
        assert (await asker.see())["messages"][3]["status"] == "queued"
        assert time.perf_counter() - started < 3
        await asker.act(asked.json()["answer"]["id"], "stop")


async def test_a_request_that_hangs_is_answered_like_any_other(stack, tenant, monkeypatch):
    monkeypatch.setattr(edge, "REQUEST_SECONDS", 0.4)
    async with (
        serving(stack.settings) as web,
        httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}, timeout=10) as client,
    ):
        with psycopg.connect(stack.admin_url) as other:
            other.execute("LOCK TABLE assistants IN ACCESS EXCLUSIVE MODE")
            answer = await client.post("/widget/v1/session", json={"assistant": tenant.slug})
            other.rollback()
        problem(answer, 503, "too-slow")
        assert answer.headers["x-content-type-options"] == "nosniff" and "content-security-policy" in answer.headers
        assert int(answer.headers["retry-after"]) >= 1
        monkeypatch.undo()  # a busy machine takes longer than that to count
        counted = (await client.get(f"{web.dashboard_url}/metrics")).text
        assert 'status="503",surface="visitor"} 1.0' in counted and 'status="0"' not in counted


def test_the_web_process_imports_neither_the_model_nor_the_workers():
    code = (
        "import app.asgi, sys; print([m for m in ('torch','workers','retnet_core','sentence_transformers') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"


@pytest.fixture
async def process(stack):
    """`python -m app.asgi` on ports of its own."""
    visitor, dashboard = free_port(), free_port()
    environment = {**stack.environment, "RETORT_VISITOR_PORT": str(visitor), "RETORT_DASHBOARD_PORT": str(dashboard)}
    started = subprocess.Popen(  # noqa: ASYNC220 (it returns at once)
        [sys.executable, "-m", "app.asgi"], env=environment, stderr=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{visitor}"
    async with httpx.AsyncClient(base_url=url, headers={"origin": url}, timeout=10) as client:
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.get("/health/live")
                    break
                except httpx.ConnectError:
                    assert started.poll() is None, started.stderr.read()
                    await asyncio.sleep(0.1)
        yield started, client, f"http://127.0.0.1:{dashboard}"
    if started.poll() is None:
        started.kill()
    started.communicate()


async def test_the_process_is_small_seen_and_ends_at_once_with_streams_open(process, tenant, bus):
    started, client, dashboard = process
    asker = await join(client, tenant.slug)
    asked = await asker.ask("Hold on")
    await client.get(f"{dashboard}/docs")
    resident = psutil.Process(started.pid).memory_info().rss / 2**20
    assert resident <= 200, f"{resident:.0f} MB"
    assert any([str(started.pid).encode() in key async for key in bus.scan_iter(match=keys.process_key("web", "*"))])
    path = f"/widget/v1/conversations/{asker.conversation}/events"
    async with client.stream("GET", path, headers=asker.auth) as response:
        stream = read_events(response)
        assert (await anext(stream))["event"] == "snapshot"
        os.kill(started.pid, signal.SIGTERM)
        ended = time.perf_counter()
        assert [event async for event in stream] == []  # ended by the server, whole
        await asyncio.to_thread(started.wait, 5)
    assert time.perf_counter() - ended < 1.0
    assert started.returncode == 0
    errors = started.stderr.read()
    # One question is followed by its call, its conversation and its answer.
    lines = [msgspec.json.decode(line) for line in errors.splitlines()]
    posted = next(line for line in lines if line.get("request_id") == asked.headers["x-request-id"])
    assert posted["conversation_id"] == asker.conversation and posted["message_id"] == asked.json()["answer"]["id"]
    followed = next(line for line in lines if line.get("path", "").endswith("/events"))
    assert followed["conversation_id"] == asker.conversation
    assert all("conversation_id" not in line for line in lines if line.get("path") in ("/docs", "/widget/v1/session"))
    assert "Traceback" not in errors and '"level": "error"' not in errors
    assert all(msgspec.json.decode(line)["process"] == "web" for line in errors.splitlines())
    assert not any([str(started.pid).encode() in key async for key in bus.scan_iter(match=keys.process_key("web", "*"))])


def test_a_port_in_use_is_one_clear_line(stack):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {**stack.environment, "RETORT_VISITOR_PORT": str(taken.getsockname()[1])}
        ended = subprocess.run(
            [sys.executable, "-m", "app.asgi"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1 and len(ended.stderr.strip().splitlines()) == 1
    assert "RETORT_VISITOR_PORT" in ended.stderr

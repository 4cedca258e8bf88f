"""A really started web process (both origins, on one loop with the tests), and people who call it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis

from app.accounts import service as accounts
from app.accounts.models import Member
from app.asgi import create_dashboard_app, create_visitor_app, web_server
from app.config import Settings
from app.conversations import events
from app.conversations.models import Message
from app.conversations.views import message_view
from app.db.session import Database
from app.http.services import Services, open_services


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@dataclass(frozen=True)
class Web:
    services: Services
    settings: Settings
    visitor_url: str
    dashboard_url: str


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for what only polling can see; TimeoutError when it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Web]:
    """Both origins on free ports of 127.0.0.1."""
    settings = replace(settings, visitor_port=free_port(), dashboard_port=free_port())
    async with open_services(settings) as services:
        applications = ((create_visitor_app, settings.visitor_port), (create_dashboard_app, settings.dashboard_port))
        servers = [web_server(services, make(services), host="127.0.0.1", port=port) for make, port in applications]
        running = [asyncio.create_task(server.serve()) for server in servers]
        await until(lambda: all(server.started for server in servers))
        yield Web(services, settings, settings.visitor_url, settings.dashboard_url)
        for server in servers:
            server.handle_exit(2, None)
        await asyncio.gather(*running)


@pytest.fixture(scope="session")
async def web(stack) -> AsyncIterator[Web]:
    async with serving(stack.settings) as started:
        yield started


@pytest.fixture(autouse=True)
async def full_buckets(bus: Redis) -> None:
    """Every test begins with nothing taken from any limit, and with an empty queue of rings."""
    async for key in bus.scan_iter(match="bus:limit:*"):
        await bus.delete(key)


@pytest.fixture
async def visitors(web: Web) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}, timeout=15) as client:
        yield client


@pytest.fixture
async def members(web: Web) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody yet: add a key or a cookie."""
    async with httpx.AsyncClient(base_url=web.dashboard_url, timeout=15) as client:
        yield client


@dataclass
class Asker:
    """A visitor with a token and one conversation."""

    client: httpx.AsyncClient
    token: str
    visitor_id: UUID
    conversation: str

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    async def ask(self, text: Any, **headers: str) -> httpx.Response:
        path = f"/widget/v1/conversations/{self.conversation}/messages"
        return await self.client.post(path, json={"text": text}, headers={**self.auth, **headers})

    async def see(self) -> dict[str, Any]:
        answer = await self.client.get(f"/widget/v1/conversations/{self.conversation}", headers=self.auth)
        assert answer.status_code == 200
        return answer.json()

    async def act(self, message_id: str, verb: str) -> httpx.Response:
        return await self.client.post(f"/widget/v1/messages/{message_id}/{verb}", headers=self.auth, json={})


async def join(client: httpx.AsyncClient, slug: str) -> Asker:
    session = (await client.post("/widget/v1/session", json={"assistant": slug})).json()
    auth = {"authorization": f"Bearer {session['token']}"}
    conversation = (await client.post("/widget/v1/conversations", json={}, headers=auth)).json()
    return Asker(client, session["token"], UUID(session["visitor_id"]), conversation["id"])


@pytest.fixture
async def asker(visitors: httpx.AsyncClient, tenant) -> AsyncIterator[Asker]:
    asker = await join(visitors, tenant.slug)
    yield asker


@pytest.fixture
async def key(tenant) -> dict[str, str]:
    return {"authorization": f"Bearer {tenant.api_key}"}


async def finish(db: Database, bus: Redis, workspace_id: UUID, answer_id: str, *, text: str = "It does.") -> dict[str, Any]:
    """Do what a generator does at the end: SQL first, then the event."""
    async with db.transaction(workspace_id) as session:
        message = await session.get(Message, UUID(answer_id))
        message.status, message.sentences, message.text, message.kind = "done", [text], text, "grounded"
        await session.flush()
        await session.refresh(message)
        view = message_view(message)
    await events.publish(bus, UUID(view["conversation_id"]), "done", {"message": view})
    return view


async def add_member(db: Database, workspace_id: UUID, role: str, email: str) -> Member:
    async with db.transaction(workspace_id) as session:
        return await accounts.create_member(session, workspace_id, email, role.title(), role)


async def sign_in(client: httpx.AsyncClient, db: Database, member: Member) -> str:
    """By link; gives the CSRF token. The cookie stays in the client."""
    async with db.transaction(member.workspace_id) as session:
        token = await accounts.create_sign_in_link(session, member)
    answer = await client.post("/api/v1/sign-in/link", json={"token": token})
    assert answer.status_code == 200, answer.text
    return answer.json()["csrf_token"]


async def read_events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream, comments left out."""
    event: dict[str, Any] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if not line:
            if event:
                yield event
            event = {}
            continue
        name, _, value = line.partition(": ")
        event[name] = json.loads(value) if name == "data" else value


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The response is a whole problem document with this status and code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] == code and body["status"] == status and body["title"] and body["detail"]
    assert body["type"].endswith(code) and body["request_id"] == response.headers["x-request-id"]
    return body

"""Real servers for every test: one PostgreSQL and two Valkeys a session, on free ports, in a folder of their own."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from redis.asyncio import Redis

import app.redis
from app.accounts.models import ApiKey, Member, Workspace
from app.assistants.models import Assistant
from app.config import Settings, settings
from app.db.ids import new_id
from app.db.migrate import migrate
from app.db.session import Database
from app.embedded import Embedded, Ports

SCOPES = ["read", "write", "ask"]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass(frozen=True, slots=True)
class Stack:
    """The session's servers. A test that breaks one (`stack.servers.states.kill()`) starts it again."""

    settings: Settings
    environment: dict[str, str]  # for child processes: this process's own, and every RETORT_… variable
    admin_url: str
    servers: Embedded


@dataclass(frozen=True, slots=True)
class Tenant:
    """A fresh workspace with its owner, an API key with every scope, and one assistant."""

    workspace_id: UUID
    member_id: UUID
    assistant_id: UUID
    slug: str
    api_key: str
    email: str


TenantFactory = Callable[..., Awaitable[Tenant]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser tests come last: from their first on, the whole product works on the session's servers.

    Its workers and its generator would take what other tests queue for their own.
    """
    items.sort(key=lambda item: "browser" in item.path.parts)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="retort-test-"))
    folder.chmod(0o711)  # the servers' own account passes through it
    postgres, bus, states, visitor, dashboard = free_ports(5)
    servers = Embedded(folder / "data", Ports(postgres, bus, states))
    before = {name: value for name, value in os.environ.items() if name.startswith("RETORT_")}
    try:
        servers.start()
        migrate(servers.admin_url, servers.database_url)
        ours = {
            **servers.environment(),
            "RETORT_VISITOR_PORT": str(visitor),
            "RETORT_DASHBOARD_PORT": str(dashboard),
            "RETORT_THREADS": "1",
        }
        for name in before:
            del os.environ[name]
        os.environ.update(ours)
        settings.cache_clear()
        yield Stack(Settings.load(ours), {**os.environ, "HF_HUB_OFFLINE": "1"}, servers.admin_url, servers)
    finally:
        for name in [name for name in os.environ if name.startswith("RETORT_")]:
            del os.environ[name]
        os.environ.update(before)
        settings.cache_clear()
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def db(stack: Stack) -> AsyncIterator[Database]:
    """A pool as the application's role, which row-level security binds."""
    database = Database(stack.settings.database_url, application="retort-test")
    yield database
    await database.close()


@pytest.fixture
async def bus(stack: Stack) -> AsyncIterator[Redis]:
    client = app.redis.client(stack.settings.bus_url)
    yield client
    await client.aclose()


@pytest.fixture
async def states(stack: Stack) -> AsyncIterator[Redis]:
    client = app.redis.client(stack.settings.states_url)
    yield client
    await client.aclose()


@pytest.fixture
def tenant_factory(db: Database) -> TenantFactory:
    """`await tenant_factory(**columns_of_the_assistant)` makes another workspace."""

    async def make(**columns: object) -> Tenant:
        name = secrets.token_hex(4)
        workspace_id, member_id, assistant_id = new_id(), new_id(), new_id()
        slug, email, key = f"assistant-{name}", f"owner-{name}@example.org", f"rk_{secrets.token_urlsafe(32)}"
        described: dict[str, object] = {
            "slug": slug,
            "name": f"Assistant {name}",
            "persona": "You are the assistant of a website. Answer briefly and only from the passages.",
            "greeting": "What would you like to look up?",
        }
        async with db.transaction(workspace_id) as session:
            session.add(Workspace(id=workspace_id, name=f"Workspace {name}", slug=f"workspace-{name}"))
            await session.flush()
            session.add(Member(id=member_id, workspace_id=workspace_id, email=email, name="Owner", role="owner"))
            session.add(Assistant(id=assistant_id, workspace_id=workspace_id, **{**described, **columns}))
            await session.flush()
            session.add(
                ApiKey(
                    workspace_id=workspace_id,
                    member_id=member_id,
                    name="test",
                    prefix=key[:8],
                    token_hash=hashlib.sha256(key.encode()).hexdigest(),
                    scopes=SCOPES,
                )
            )
        return Tenant(workspace_id, member_id, assistant_id, str(columns.get("slug", slug)), key, email)

    return make


@pytest.fixture
async def tenant(tenant_factory: TenantFactory) -> Tenant:
    return await tenant_factory()

"""The guide's own documentation is read again when it has changed, and never comes back once its owner has removed it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from app.content.models import Source
from app.operate import install, up
from app.operate.doctor import _guide
from app.operate.output import Output
from tests.api.conftest import Web, serving
from tests.conftest import free_ports


@pytest.fixture
async def web(stack, tmp_path) -> AsyncIterator[tuple[Web, str]]:
    """A web process without workers, and the address of the docs that it may read."""
    port = free_ports(1)[0]
    settings = replace(stack.settings, data=tmp_path, allow_private=(f"127.0.0.1:{port}", "127.0.0.1:1"))
    async with serving(settings) as started:
        yield started, f"http://127.0.0.1:{port}/guide-docs/"


async def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def addresses(db, tenant) -> list[str]:
    async with db.transaction(tenant.workspace_id) as session:
        return list((await session.scalars(select(Source.url).order_by(Source.created_at))).all())


async def add(web: Web, tenant, url: str) -> UUID:
    async with httpx.AsyncClient(base_url=web.dashboard_url) as client:
        auth = {"authorization": f"Bearer {tenant.api_key}"}
        answer = await client.post("/api/v1/sources", json={"url": url, "assistant": tenant.slug}, headers=auth)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])


async def finish(db, tenant, source_id: UUID, status: str) -> None:
    """What the workers do at the end of a reading."""
    async with db.transaction(tenant.workspace_id) as session:
        (await session.get_one(Source, source_id)).status = status


async def test_docs_that_changed_are_read_again_while_their_source_is_there(web, db, tenant, monkeypatch, tmp_path):
    started, docs = web
    monkeypatch.setattr(install, "GUIDE", tenant.slug)
    source = await add(started, tenant, docs)
    await finish(db, tenant, source, "read")
    install.note_docs_read(tmp_path, docs, "as they were")
    up._read_docs_beside(started.settings, tenant.api_key, docs, Output(), up.Interrupts())

    async def waiting() -> bool:
        async with db.transaction(tenant.workspace_id) as session:
            return (await session.get_one(Source, source)).status == "waiting"

    async with asyncio.timeout(8):
        while not await waiting():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await finish(db, tenant, source, "read")
    await until(lambda: install.docs_were_read(tmp_path, docs))
    assert await addresses(db, tenant) == [docs] and _guide(tmp_path, docs).good is True


async def test_docs_that_the_owner_removed_do_not_come_back(web, db, tenant, monkeypatch, tmp_path):
    started, docs = web
    monkeypatch.setattr(install, "GUIDE", tenant.slug)
    source = await add(started, tenant, docs)
    async with httpx.AsyncClient(base_url=started.dashboard_url) as client:
        auth = {"authorization": f"Bearer {tenant.api_key}"}
        assert (await client.delete(f"/api/v1/sources/{source}", headers=auth)).status_code == 204
    install.note_docs_read(tmp_path, docs, "as they were")
    assert _guide(tmp_path, docs).good is False
    up._read_docs_beside(started.settings, tenant.api_key, docs, Output(), up.Interrupts())
    await until(lambda: install.docs_were_read(tmp_path, docs))
    assert await addresses(db, tenant) == []
    # The next start asks for nothing either, and `retort doctor` says how to have them again.
    finding = _guide(tmp_path, docs)
    assert finding.good is None and f"retort add {docs}" in finding.text


async def test_at_another_port_the_docs_are_read_from_their_new_address(web, db, tenant, monkeypatch, tmp_path):
    started, docs = web
    monkeypatch.setattr(install, "GUIDE", tenant.slug)
    before = "http://127.0.0.1:1/guide-docs/"
    await finish(db, tenant, await add(started, tenant, before), "read")
    install.note_docs_read(tmp_path, before, install.docs_hash())
    up._read_docs_beside(started.settings, tenant.api_key, docs, Output(), up.Interrupts())
    async with asyncio.timeout(8):
        while await addresses(db, tenant) != [before, docs]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with db.transaction(tenant.workspace_id) as session:
        (await session.scalars(select(Source).where(Source.url == docs))).one().status = "read"
    await until(lambda: install.docs_were_read(tmp_path, docs))

"""The servers that every other test stands on."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select, text

from app.accounts.models import Workspace
from app.db import lookups


async def test_the_application_runs_under_a_role_that_policies_bind(db):
    async with db.transaction(None) as session:
        role = await session.execute(
            text("SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user")
        )
        row = role.one()
        owned = await session.scalar(text("SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) = current_user"))
    assert tuple(row) == ("retort_app", False, False, False, False)
    assert owned == 0


async def test_a_tenant_sees_its_own_workspace_and_its_key_finds_it(db, tenant, tenant_factory):
    other = await tenant_factory()
    async with db.transaction(tenant.workspace_id) as session:
        assert (await session.scalars(select(Workspace.id))).all() == [tenant.workspace_id]
        assert await lookups.assistant_by_slug(session, other.slug) == (other.workspace_id, other.assistant_id)


async def test_bus_never_evicts_and_states_may(bus, states):
    assert (await bus.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
    assert (await bus.config_get("appendonly"))["appendonly"] == "yes"
    assert (await states.config_get("maxmemory-policy"))["maxmemory-policy"] == "allkeys-lru"
    assert int((await states.config_get("maxmemory"))["maxmemory"]) > 0
    assert (await states.config_get("appendonly"))["appendonly"] == "no"


def test_no_server_answers_without_its_password(stack):
    port = stack.servers.postgres.port
    for role in ("postgres", "retort_app", "retort_owner"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://{role}:wrong@127.0.0.1:{port}/retort")
    with psycopg.connect(stack.admin_url) as connection:
        shown = connection.execute(sql.SQL("SHOW jit")).fetchone()
    assert shown == ("off",)

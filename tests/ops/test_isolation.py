"""The second wall: without a single filter of the application's, a workspace sees its own rows alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg import errors, sql

from app.accounts.models import MemberSession, SignInLink
from app.assistants.models import AssistantSource
from app.content.models import Document, Passage, Source
from app.conversations.models import Conversation, Message, StateSnapshot, Visitor
from app.db.ids import new_id
from app.db.models import Base

TENANT_TABLES = sorted(name for name, table in Base.metadata.tables.items() if "workspace_id" in table.columns)
ALL_TABLES = [*TENANT_TABLES, "workspaces"]


async def _fill(db, tenant) -> None:
    """A row of this tenant in every table."""
    workspace = tenant.workspace_id
    source, document, visitor, conversation = (new_id() for _ in range(4))
    later = datetime.now(UTC) + timedelta(hours=1)
    async with db.transaction(workspace) as session:
        session.add_all(
            [
                Source(id=source, workspace_id=workspace, url=f"https://{secrets.token_hex(6)}.example.org/"),
                Visitor(id=visitor, workspace_id=workspace, assistant_id=tenant.assistant_id),
                SignInLink(workspace_id=workspace, member_id=tenant.member_id, token_hash=secrets.token_hex(), expires_at=later),
                MemberSession(
                    workspace_id=workspace,
                    member_id=tenant.member_id,
                    token_hash=secrets.token_hex(),
                    csrf_token="x",
                    expires_at=later,
                ),
            ]
        )
        await session.flush()
        session.add_all(
            [
                AssistantSource(assistant_id=tenant.assistant_id, source_id=source, workspace_id=workspace),
                Document(id=document, workspace_id=workspace, source_id=source, url="https://example.org/page"),
                Conversation(id=conversation, workspace_id=workspace, assistant_id=tenant.assistant_id, visitor_id=visitor),
            ]
        )
        await session.flush()
        vector = np.zeros(384, dtype=np.float32)
        vector[0] = 1
        session.add_all(
            [
                Passage(
                    workspace_id=workspace, source_id=source, document_id=document, ordinal=0, url="https://example.org/page",
                    title="A page", heading_path=["A page"], text="The kettle is red.", tokens=5, embedding=vector,
                    sentences=[], sentence_vectors=b"",
                ),
                Message(
                    workspace_id=workspace, conversation_id=conversation, ordinal=1, role="visitor", status="done", epoch=1,
                    text="What colour is the kettle?",
                ),
                StateSnapshot(
                    conversation_id=conversation, workspace_id=workspace, state_key="k", ordinal=1, tokens=3, data=b"state"
                ),
            ]
        )  # fmt: skip


@pytest.fixture
def bare(stack) -> Iterator[psycopg.Connection]:
    """A connection as the application's role, without any code of the application's in between."""
    with psycopg.connect(stack.settings.database_url) as connection:
        yield connection


def _enter(connection: psycopg.Connection, workspace: UUID | None) -> None:
    connection.rollback()
    if workspace is not None:
        connection.execute("SELECT set_config('app.workspace_id', %s, true)", (str(workspace),))


def _all(connection: psycopg.Connection, table: str, column: str) -> list[UUID]:
    return [row[0] for row in connection.execute(sql.SQL("SELECT {} FROM {}").format(*map(sql.Identifier, (column, table))))]


async def test_without_the_applications_filters_no_other_workspaces_row_is_seen(db, tenant, tenant_factory, bare):
    other = await tenant_factory()
    await _fill(db, tenant)
    await _fill(db, other)
    for mine in (tenant, other):
        _enter(bare, mine.workspace_id)
        for table in TENANT_TABLES:
            seen = _all(bare, table, "workspace_id")
            assert seen and set(seen) == {mine.workspace_id}, table
        assert _all(bare, "workspaces", "id") == [mine.workspace_id]


@pytest.mark.parametrize("setting", [None, ""])
async def test_without_a_workspace_nothing_is_seen(db, tenant, bare, setting):
    await _fill(db, tenant)
    _enter(bare, None)
    if setting is not None:
        bare.execute("SELECT set_config('app.workspace_id', %s, false)", (setting,))
    for table in ALL_TABLES:
        assert _all(bare, table, "id" if table == "workspaces" else "workspace_id") == [], table


async def test_no_row_is_written_changed_or_moved_across_the_wall(db, tenant, tenant_factory, bare):
    other = await tenant_factory()
    await _fill(db, tenant)
    await _fill(db, other)
    for table in TENANT_TABLES:
        _enter(bare, tenant.workspace_id)
        name = sql.Identifier(table)
        theirs = bare.execute(
            sql.SQL("UPDATE {} SET workspace_id = %s WHERE workspace_id = %s").format(name),
            (tenant.workspace_id, other.workspace_id),
        )
        assert theirs.rowcount == 0, table
        gone = bare.execute(sql.SQL("DELETE FROM {} WHERE workspace_id = %s").format(name), (other.workspace_id,))
        assert gone.rowcount == 0, table
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            bare.execute(sql.SQL("UPDATE {} SET workspace_id = %s").format(name), (other.workspace_id,))
    _enter(bare, tenant.workspace_id)
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        bare.execute(
            "INSERT INTO sources (id, workspace_id, url) VALUES (%s, %s, 'https://example.org/')", (new_id(), other.workspace_id)
        )


def test_every_table_of_a_tenant_has_forced_policies_and_another_owner(stack):
    with psycopg.connect(stack.admin_url) as connection:
        rows = connection.execute(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, pg_get_userbyid(c.relowner),"
            " (SELECT count(*) FROM pg_policies p WHERE p.tablename = c.relname) FROM pg_class c"
            " WHERE c.relkind = 'r' AND (c.relname = 'workspaces' OR EXISTS (SELECT 1 FROM pg_attribute a"
            " WHERE a.attrelid = c.oid AND a.attname = 'workspace_id' AND NOT a.attisdropped))"
        ).fetchall()
    assert sorted(row[0] for row in rows) == sorted(ALL_TABLES)
    for table, enabled, forced, owner, policies in rows:
        assert (enabled, forced, owner, policies) == (True, True, "retort_owner", 1), table


def test_the_applications_role_can_neither_bypass_nor_become_another(stack, bare):
    role = bare.execute("SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone()
    assert role == (False, False, False)
    for statement in (
        "SET ROLE retort_owner",
        "SET ROLE retort_lookup",
        "SET ROLE postgres",
        "ALTER TABLE sources DISABLE ROW LEVEL SECURITY",
        "ALTER ROLE retort_app BYPASSRLS",
        "CREATE TABLE mine (id int)",
        "DROP POLICY own_workspace ON sources",
    ):
        bare.rollback()
        with pytest.raises(errors.InsufficientPrivilege):
            bare.execute(statement)
    bare.rollback()
    # `row_security = off` turns a filtered answer into an error; it does not open the wall.
    bare.execute("SET LOCAL row_security = off")
    with pytest.raises(errors.InsufficientPrivilege):
        bare.execute("SELECT * FROM sources")
    bare.rollback()


def test_the_lookup_role_is_closed_to_everybody(stack):
    with psycopg.connect(stack.admin_url) as connection:
        login = connection.execute("SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = 'retort_lookup'").fetchone()
        open_functions = connection.execute(
            "SELECT proname FROM pg_proc WHERE prosecdef AND pg_get_userbyid(proowner) = 'retort_lookup'"
            " AND has_function_privilege('public', oid, 'EXECUTE')"
        ).fetchall()
    assert login == (False, False)
    assert open_functions == []

"""Migrations go up, down and up again, and make what the models say."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import CheckConstraint, create_engine, text
from sqlalchemy.engine import make_url

from app.db.bootstrap import bootstrap
from app.db.ids import new_id
from app.db.migrate import migrate
from app.db.models import Base
from app.db.session import driver_url

CHECKS = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace"


def _url(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture
def empty_database(stack) -> Iterator[tuple[str, str]]:
    """(superuser's URL, application's URL) of a database of its own."""
    name = f"schema_{secrets.token_hex(4)}"
    with psycopg.connect(stack.admin_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield _url(stack.admin_url, name), _url(stack.settings.database_url, name)
    with psycopg.connect(stack.admin_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _described(admin_url: str) -> dict[str, set]:
    """Everything in the public schema that a migration makes."""
    questions = {
        "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public'",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "policies": "SELECT tablename, policyname, qual, with_check FROM pg_policies",
        "functions": "SELECT p.oid::regprocedure::text, pg_get_userbyid(proowner), prosecdef, proacl::text, prosrc FROM pg_proc p"
        " JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'public' AND NOT EXISTS"
        " (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')",
        "tables": "SELECT relname, pg_get_userbyid(relowner), relrowsecurity, relforcerowsecurity, relacl::text FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    }
    with psycopg.connect(admin_url) as connection:
        return {name: set(connection.execute(question).fetchall()) for name, question in questions.items()}


def test_the_migrations_go_up_down_and_up_again(empty_database):
    admin_url, app_url = empty_database
    migrate(admin_url, app_url)
    first = _described(admin_url)
    assert {row[0] for row in first["tables"]} == {*Base.metadata.tables, "alembic_version"}
    migrate(admin_url, app_url, "base")
    bare = _described(admin_url)
    assert {row[0] for row in bare["tables"]} == {"alembic_version"}
    assert not bare["functions"] and not bare["policies"]
    migrate(admin_url, app_url)
    assert _described(admin_url) == first


def test_visitors_who_never_asked_go_and_the_others_stay(empty_database):
    admin_url, app_url = empty_database
    migrate(admin_url, app_url, "0001")
    workspace, assistant, member, silent, asking, trying = (new_id() for _ in range(6))
    with psycopg.connect(admin_url) as connection:
        connection.execute("INSERT INTO workspaces (id, name, slug) VALUES (%s, 'W', 'w')", (workspace,))
        connection.execute(
            "INSERT INTO assistants (id, workspace_id, slug, name, persona, greeting) VALUES (%s, %s, 'a', 'A', 'P', 'G')",
            (assistant, workspace),
        )
        connection.execute(
            "INSERT INTO members (id, workspace_id, email, name, role) VALUES (%s, %s, 'm@example.org', 'M', 'owner')",
            (member, workspace),
        )
        for visitor, of in ((silent, None), (asking, None), (trying, member)):
            connection.execute(
                "INSERT INTO visitors (id, workspace_id, assistant_id, member_id) VALUES (%s, %s, %s, %s)",
                (visitor, workspace, assistant, of),
            )
        connection.execute(
            "INSERT INTO conversations (id, workspace_id, assistant_id, visitor_id) VALUES (%s, %s, %s, %s)",
            (new_id(), workspace, assistant, asking),
        )
    migrate(admin_url, app_url)
    with psycopg.connect(admin_url) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM visitors")} == {asking, trying}


def test_a_second_migration_changes_nothing(empty_database):
    admin_url, app_url = empty_database
    migrate(admin_url, app_url)
    before = _described(admin_url)
    migrate(admin_url, app_url)
    assert _described(admin_url) == before


def test_the_schema_equals_the_models(empty_database):
    admin_url, app_url = empty_database
    migrate(admin_url, app_url)
    engine = create_engine(driver_url(admin_url))
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
            differences = compare_metadata(context, Base.metadata)
            # alembic compares no CHECK constraints: their names and number are compared here.
            checks = {row[0] for row in connection.execute(text(CHECKS))}
    finally:
        engine.dispose()
    assert differences == []
    expected = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert expected and checks == expected


def test_the_application_may_not_be_the_superuser(stack):
    with pytest.raises(ValueError, match="role of its own"):
        bootstrap(stack.admin_url, stack.admin_url)

"""`retort owner` and `retort key`, beside a running database as in a container: the way in for every owner but the first."""

from __future__ import annotations

import json
import secrets

import httpx
import pytest
from sqlalchemy import select

from app.accounts.models import Member, Workspace
from app.assistants.models import Assistant
from app.db import lookups
from tests.api.conftest import serving
from tests.conftest import free_ports
from tests.ops.test_obstacles import one_line, run


def command(stack, *arguments: str):
    return run(*arguments, environment=stack.servers.environment())


@pytest.fixture
def email() -> str:
    return f"Ada.Owner-{secrets.token_hex(4)}@example.org"


async def test_a_second_owner_gets_a_workspace_with_an_assistant_and_a_key_that_works(stack, db, email):
    done = command(stack, "owner", email, "--assistant", "Ada's docs")
    assert done.returncode == 0, done.stderr
    token = done.stdout.rpartition("#token=")[2].strip()
    slug = done.stdout.partition("its slug is ")[2].partition(".")[0]
    assert slug.startswith("ada-s-docs")

    made = command(stack, "key", "create", email, "--name", "terminal")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("rk_") and "\n" not in secret
    async with serving(stack.settings) as web, httpx.AsyncClient(base_url=web.dashboard_url) as client:
        assert (await client.post("/api/v1/sign-in/link", json={"token": token})).json()["member"]["role"] == "owner"
        client.cookies.clear()
        auth = {"authorization": f"Bearer {secret}"}
        assistants = (await client.get("/api/v1/assistants", headers=auth)).json()["items"]
        assert [(one["slug"], one["name"]) for one in assistants] == [(slug, "Ada's docs")]
        started = await client.post(f"/api/v1/assistants/{slug}/conversations", json={}, headers=auth)
        assert started.status_code == 201
        second = await client.post("/api/v1/assistants", json={"name": "Another"}, headers=auth)
        assert second.status_code == 201

        listed = json.loads(command(stack, "key", "list", email, "--json").stdout)
        assert [(one["name"], one["member"]) for one in listed] == [("terminal", email.lower())] and secret not in str(listed)
        revoked = command(stack, "key", "revoke", email, listed[0]["prefix"])
        assert revoked.returncode == 0 and "terminal" in revoked.stdout
        assert (await client.get("/api/v1/assistants", headers=auth)).status_code == 401
    assert "No key" in one_line(command(stack, "key", "revoke", email, listed[0]["prefix"]))

    # A second sign-in makes nothing new, and a second owner of the same name has an assistant and a workspace of their own.
    again = command(stack, "owner", email)
    assert again.returncode == 0 and "its slug is" not in again.stdout and "Sign-in for" in again.stdout
    assert "has an assistant already" in one_line(command(stack, "owner", email, "--assistant", "More"))
    other = command(stack, "owner", email.replace(".Owner", "-owner"), "--assistant", "Ada's docs")
    assert other.returncode == 0, other.stderr
    assert other.stdout.partition("its slug is ")[2].partition(".")[0] != slug


async def test_an_owner_whose_workspace_has_no_assistant_gets_one(stack, db, tenant):
    async with db.transaction(tenant.workspace_id) as session:
        await session.delete(await session.get(Assistant, tenant.assistant_id))
    done = command(stack, "owner", tenant.email, "--slug", f"first-{tenant.slug}")
    assert done.returncode == 0 and f"its slug is first-{tenant.slug}." in done.stdout


async def test_what_cannot_be_made_is_one_line_and_makes_nothing(stack, db, tenant, email):
    for arguments, told in (
        (("owner", "nobody"), "no e-mail address"),
        (("owner", email, "--slug", tenant.slug), "another assistant's address"),
        (("owner", email, "--slug", "No Slug"), "is no slug"),
        (("owner", email, "--assistant", " "), "1 to 80 characters"),
        (("key", "create", email), "No member has the address"),
        (("key", "create", tenant.email, "--scope", "all"), "Scopes are some of"),
        (("key", "create", tenant.email, "--name", ""), "needs a name"),
        (("key", "revoke", tenant.email, "rk_unknown"), "No key"),
    ):
        assert told in one_line(command(stack, *arguments)), arguments
    async with db.transaction(None) as session:
        assert await lookups.member_by_email(session, email) is None


async def test_keys_of_another_workspace_are_neither_shown_nor_revoked(stack, db, tenant, tenant_factory):
    other = await tenant_factory()
    shown = command(stack, "key", "list", tenant.email).stdout
    assert tenant.email in shown and other.email not in shown
    theirs = json.loads(command(stack, "key", "list", other.email, "--json").stdout)[0]
    assert "No key" in one_line(command(stack, "key", "revoke", tenant.email, theirs["id"]))
    async with db.transaction(other.workspace_id) as session:
        assert (await session.scalars(select(Workspace.id))).one() == other.workspace_id
        assert (await session.scalars(select(Member.email))).one() == other.email


def test_a_database_that_is_away_or_empty_is_one_line(stack, email):
    environment = stack.servers.environment()
    away = environment | {"RETORT_DATABASE_URL": f"postgresql://retort_app:x@127.0.0.1:{free_ports(1)[0]}/retort"}
    assert "PostgreSQL does not answer" in one_line(run("owner", email, environment=away))
    empty = environment | {"RETORT_DATABASE_URL": stack.settings.database_url.rpartition("/")[0] + "/postgres"}
    assert "retort migrate" in one_line(run("owner", email, environment=empty))
    admin = environment | {"RETORT_ADMIN_DATABASE_URL": stack.admin_url}
    assert "cannot be migrated" in one_line(run("migrate", "--revision", "nonsense", environment=admin))


@pytest.mark.parametrize(
    "arguments", [("ask", b"a\xff\xfeb"), ("add", b"http://\xff/", "--assistant", "x"), ("owner", b"\xe9@x")]
)
def test_arguments_that_are_no_text_are_one_line(arguments, tmp_path):
    told = one_line(run(*arguments, environment={"RETORT_DATA": str(tmp_path)}))
    assert "not text in UTF-8" in told


def test_a_key_or_an_address_that_is_none_is_one_line(tmp_path):
    given = {"RETORT_DATA": str(tmp_path)}
    assert "no API key" in one_line(run("ask", "Hi", environment=given | {"RETORT_API_KEY": "clé"}))

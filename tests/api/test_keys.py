"""Members make, see and revoke API keys; a key's secret is shown once, and nothing crosses the walls."""

from __future__ import annotations

import secrets

import httpx
import pytest

from app.accounts.models import Member
from app.db.ids import new_id
from tests.api.conftest import add_member, problem, sign_in

PATH = "/api/v1/keys"


async def as_owner(members, db, tenant) -> dict[str, str]:
    async with db.transaction(tenant.workspace_id) as session:
        member = await session.get(Member, tenant.member_id)
    return {"x-csrf-token": await sign_in(members, db, member)}


async def test_a_key_is_made_used_and_revoked_and_its_secret_is_shown_once(members, web, db, tenant):
    csrf = await as_owner(members, db, tenant)
    made = await members.post(PATH, json={"name": " The build ", "scopes": ["read"]}, headers=csrf)
    assert made.status_code == 201
    body = made.json()
    secret = body.pop("key")
    assert secret.startswith("rk_") and secret.startswith(body["prefix"]) and body["name"] == "The build"
    assert (body["scopes"], body["member"], body["last_used_at"]) == (["read"], tenant.email, None)
    listed = await members.get(PATH)
    assert body in listed.json()["items"] and secret not in listed.text and "token_hash" not in listed.text

    auth = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=web.dashboard_url) as program:
        assert (await program.get("/api/v1/assistants", headers=auth)).status_code == 200
        problem(await program.post("/api/v1/assistants", json={"name": "Not allowed"}, headers=auth), 403, "not-allowed")
        used = next(one for one in (await members.get(PATH)).json()["items"] if one["id"] == body["id"])
        assert used["last_used_at"] is not None
        assert (await members.delete(f"{PATH}/{body['id']}", headers=csrf)).status_code == 204
        problem(await program.get("/api/v1/assistants", headers=auth), 401, "key-invalid")
    assert body["id"] not in [one["id"] for one in (await members.get(PATH)).json()["items"]]
    problem(await members.delete(f"{PATH}/{body['id']}", headers=csrf), 404, "not-found")


async def test_a_program_makes_lists_and_revokes_no_keys(members, key):
    problem(await members.post(PATH, json={"name": "Another", "scopes": ["read"]}, headers=key), 403, "session-needed")
    problem(await members.get(PATH, headers=key), 403, "session-needed")
    problem(await members.delete(f"{PATH}/{new_id()}", headers=key), 403, "session-needed")


async def test_keys_need_the_csrf_token(members, db, tenant):
    await as_owner(members, db, tenant)
    problem(await members.post(PATH, json={"name": "Forged", "scopes": ["read"]}), 403, "csrf")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "scopes": ["read"]},
        {"name": "x" * 81, "scopes": ["read"]},
        {"name": "Key", "scopes": []},
        {"name": "Key", "scopes": ["everything"]},
        {"name": "a\x00b", "scopes": ["read"]},
        {"scopes": ["read"]},
    ],
)
async def test_a_key_that_cannot_be_is_refused(members, db, tenant, body):
    csrf = await as_owner(members, db, tenant)
    before = (await members.get(PATH)).json()
    assert (await members.post(PATH, json=body, headers=csrf)).status_code == 422
    assert (await members.get(PATH)).json() == before


async def test_a_key_has_no_more_than_its_members_role_and_members_see_their_own(members, db, tenant):
    owners = await as_owner(members, db, tenant)
    theirs = (await members.post(PATH, json={"name": "The owner's", "scopes": ["write"]}, headers=owners)).json()
    agent = await add_member(db, tenant.workspace_id, "agent", f"agent-{secrets.token_hex(4)}@example.org")
    members.cookies.clear()
    csrf = {"x-csrf-token": await sign_in(members, db, agent)}
    refused = await members.post(PATH, json={"name": "Too much", "scopes": ["ask", "write"]}, headers=csrf)
    assert problem(refused, 403, "not-allowed")["field"] == "scopes"
    mine = (await members.post(PATH, json={"name": "Mine", "scopes": ["ask"]}, headers=csrf)).json()
    assert [one["id"] for one in (await members.get(PATH)).json()["items"]] == [mine["id"]]
    problem(await members.delete(f"{PATH}/{theirs['id']}", headers=csrf), 404, "not-found")
    # An owner sees and ends every key of the workspace.
    members.cookies.clear()
    owners = await as_owner(members, db, tenant)
    assert {mine["id"], theirs["id"]} <= {one["id"] for one in (await members.get(PATH)).json()["items"]}
    assert (await members.delete(f"{PATH}/{mine['id']}", headers=owners)).status_code == 204


async def test_another_workspaces_keys_do_not_exist(members, db, tenant, tenant_factory):
    other = await tenant_factory()
    csrf = await as_owner(members, db, other)
    theirs = (await members.post(PATH, json={"name": "Theirs", "scopes": ["read"]}, headers=csrf)).json()
    members.cookies.clear()
    csrf = await as_owner(members, db, tenant)
    assert theirs["id"] not in (await members.get(PATH)).text
    problem(await members.delete(f"{PATH}/{theirs['id']}", headers=csrf), 404, "not-found")
    auth = {"authorization": f"Bearer {theirs['key']}"}
    assert (await members.get("/api/v1/me", headers=auth)).json()["workspace"]["id"] == str(other.workspace_id)


async def test_keys_are_paged(members, db, tenant):
    csrf = await as_owner(members, db, tenant)
    for number in range(3):
        await members.post(PATH, json={"name": f"Key {number}", "scopes": ["read"]}, headers=csrf)
    names, cursor = [], None
    while True:
        page = (await members.get(PATH, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        assert len(page["items"]) <= 2
        names += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == ["test", "Key 0", "Key 1", "Key 2"]
    problem(await members.get(PATH, params={"cursor": "zz"}), 422, "cursor-invalid")

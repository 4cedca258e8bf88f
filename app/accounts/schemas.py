"""What the account routes accept and answer (docs/api.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from app.accounts.service import KEY_NAME_LENGTH, PASSWORD_LENGTH, PASSWORD_LIMIT
from app.http.input import Input


class SignIn(Input):
    email: Annotated[str, Meta(min_length=3, max_length=254, examples=["ada@example.org"])]
    password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LIMIT)]


class SignInByLink(Input):
    token: Annotated[str, Meta(min_length=1, max_length=200)]


class NewPassword(Input):
    """`current_password` is asked for when one is set, but for an hour after a sign-in by link."""

    password: Annotated[str, Meta(min_length=PASSWORD_LENGTH, max_length=PASSWORD_LIMIT)]
    current_password: Annotated[str, Meta(max_length=PASSWORD_LIMIT)] | None = None


class NewApiKey(Input):
    name: Annotated[str, Meta(min_length=1, max_length=KEY_NAME_LENGTH, examples=["our website's build"])]
    scopes: Annotated[list[Literal["read", "write", "ask"]], Meta(min_length=1, max_length=3, examples=[["read", "ask"]])]


class ApiKeyOut(Struct):
    id: str
    name: str
    prefix: str
    scopes: list[str]
    member: str
    created_at: str
    last_used_at: str | None


class ApiKeyPage(Struct):
    items: list[ApiKeyOut]
    next_cursor: str | None


class NewApiKeyOut(ApiKeyOut, kw_only=True):
    """`key` is the secret, shown this once."""

    key: str


class MemberOut(Struct):
    id: str
    email: str
    name: str
    role: str
    has_password: bool


class WorkspaceOut(Struct):
    id: str
    name: str
    slug: str


class Me(Struct):
    """`csrf_token` is null for an API key, which needs none."""

    member: MemberOut
    workspace: WorkspaceOut
    csrf_token: str | None

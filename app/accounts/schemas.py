"""What the account routes accept and answer (docs/api.md)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from app.accounts.service import PASSWORD_LENGTH, PASSWORD_LIMIT
from app.http.input import Input


class SignIn(Input):
    email: Annotated[str, Meta(min_length=3, max_length=254, examples=["ada@example.org"])]
    password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LIMIT)]


class SignInByLink(Input):
    token: Annotated[str, Meta(min_length=1, max_length=200)]


class NewPassword(Input):
    password: Annotated[str, Meta(min_length=PASSWORD_LENGTH, max_length=PASSWORD_LIMIT)]


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

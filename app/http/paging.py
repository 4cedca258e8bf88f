"""Cursor paging: a cursor names the last row of a page by what the list is ordered by, so pages neither skip nor repeat rows."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec
from litestar.params import Parameter

from app.http.problems import Problem

LIMIT = 50
MOST = 200

Limit = Annotated[int, Parameter(ge=1, le=MOST, required=False)]
Cursor = Annotated[str | None, Parameter(max_length=4000, required=False)]


def encode_cursor(*values: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def decode_cursor(cursor: str, shape: Any) -> Any:
    """The values of `encode_cursor`, as a tuple of this type. Raises Problem 422."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=shape)
    except (ValueError, msgspec.MsgspecError):
        raise Problem(
            422, "cursor-invalid", "The cursor is not valid", "Take next_cursor as it was given.", field="cursor"
        ) from None


def page(items: list[Any], next_cursor: str | None = None) -> dict[str, Any]:
    return {"items": items, "next_cursor": next_cursor}

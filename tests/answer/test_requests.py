"""Short requests over the bus: the web process has no model."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np

from app import redis as keys
from tests.answer.conftest import SITE
from tests.conftest import Tenant
from workers.answer import rpc
from workers.answer.services import Services


async def ask(services: Services, **fields: Any) -> dict[str, Any] | None:
    request = {"id": uuid4().hex, "deadline": time.time() + 2, **fields}
    await rpc.serve(services, msgspec.json.encode(request))
    key = keys.reply_list(request["id"])
    raw: Any = await services.bus.lpop(key)
    if raw is None:
        return None
    await services.bus.rpush(key, raw)
    return msgspec.json.decode(raw)


async def test_a_search_gives_passages_with_scored_sentences(services: Services, shop: Tenant) -> None:
    reply = await ask(
        services,
        kind="retrieve",
        workspace_id=str(shop.workspace_id),
        assistant_id=str(shop.assistant_id),
        query="deposit for e-bikes",
    )
    assert reply is not None
    first = reply["passages"][0]
    assert first["heading_path"] == ["Deposit"] and first["url"] == f"{SITE}/hire.html#deposit"
    assert set(first) == {
        "passage_id", "document_id", "title", "url", "heading_path", "text", "score", "vector_score", "text_rank", "sentences",
    }  # fmt: skip
    assert [one["text"] for one in first["sentences"]] == [
        "We ask for a deposit of 100 euros for each electric bicycle.",
        "The deposit is returned within three days after the bicycle has come back without damage.",
    ]
    assert isinstance(reply["ms"], int)


async def test_a_search_in_a_foreign_workspace_gives_nothing(services: Services, shop: Tenant) -> None:
    reply = await ask(services, kind="retrieve", workspace_id=str(uuid4()), assistant_id=str(shop.assistant_id), query="deposit")
    assert reply is not None and reply["passages"] == []


async def test_a_text_is_encoded(services: Services) -> None:
    reply = await ask(services, kind="encode", query="deposit")
    assert reply is not None
    assert abs(float(np.linalg.norm(reply["vector"])) - 1) < 1e-3


async def test_an_expired_request_is_dropped(services: Services) -> None:
    assert await ask(services, kind="encode", query="deposit", deadline=time.time() - 0.1) is None


async def test_an_unknown_request_is_answered_with_an_error_and_an_unreadable_one_dropped(services: Services) -> None:
    reply = await ask(services, kind="paint", query="deposit")
    assert reply is not None and "paint" in reply["error"]
    await rpc.serve(services, b"{")


async def test_a_reply_nobody_fetches_expires(services: Services) -> None:
    request = {"id": uuid4().hex, "kind": "encode", "query": "x", "deadline": time.time() + 2}
    await rpc.serve(services, msgspec.json.encode(request))
    assert 0 < await services.bus.ttl(keys.reply_list(request["id"])) <= 10

"""Models loaded once, and a small website indexed with real vectors, for the tests of the answer pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.orm import undefer

from app.assistants.models import AssistantSource
from app.content.models import Document, Passage, Source
from app.conversations import service
from app.conversations.models import Conversation, Message
from app.db import lookups
from app.db.ids import new_id
from app.db.session import Database
from app.log import configure
from retnet_core import Model, load_model
from tests.conftest import Stack, Tenant
from workers.answer.pipeline import answer_claim
from workers.answer.sentences import split_sentences
from workers.answer.services import Services
from workers.encoder import Encoder
from workers.generate import build_services

SITE = "https://bikes.example.org"
# (page, title, headings, fragment, text)
PAGES = (
    (
        "/repair.html",
        "Repairs at Harbour Bikes",
        ["Brakes"],
        "brakes",
        "A squeaking disc brake usually has oil on its pads. Clean the disc with isopropyl alcohol and replace the pads if they"
        " stay dirty. Never spray lubricant near the brakes. New pads need about thirty hard stops before they bite.",
    ),
    (
        "/repair.html",
        "Repairs at Harbour Bikes",
        ["Chain"],
        "chain",
        "Oil the chain every 200 kilometres, or after each ride in the rain. Wipe off what drips, because oil that stays outside"
        " only collects dust. A chain that has grown by 0.75 per cent must be replaced.",
    ),
    (
        "/lights.html",
        "Lights and dynamo",
        ["Switching the lights"],
        "switch",
        "The headlight is switched on by pressing the round button behind the lamp for two seconds. To turn the headlight off,"
        " hold the same button for five seconds until it blinks twice. The rear light follows the headlight by itself.",
    ),
    (
        "/hire.html",
        "Hiring a bicycle",
        ["Prices"],
        "prices",
        "A city bicycle costs 14 euros a day and 60 euros a week. Electric bicycles cost 29 euros a day. A child seat is free of"
        " charge. You pay by card when you bring the bicycle back.",
    ),
    (
        "/hire.html",
        "Hiring a bicycle",
        ["Deposit"],
        "deposit",
        "We ask for a deposit of 100 euros for each electric bicycle. The deposit is returned within three days after the bicycle"
        " has come back without damage.",
    ),
    (
        "/hours.html",
        "Opening hours",
        ["Workshop"],
        "workshop",
        "The workshop is open from Tuesday to Saturday, from 9 am to 6 pm. It is closed on Sundays, Mondays and public holidays."
        " In July and August it opens an hour earlier.",
    ),
    (
        "/orders.html",
        "Orders and returns",
        ["Returns"],
        "returns",
        "You can return unused parts within 30 days. Send them to the workshop together with the delivery note. We refund the"
        " price within one week, but not the cost of postage.",
    ),
)  # fmt: skip


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return Encoder.load(1)


@pytest.fixture(scope="session")
def model() -> Model:
    configure("test-generator", log_format="json")
    return load_model()


@pytest.fixture
async def services(
    stack: Stack, db: Database, bus: Redis, states: Redis, model: Model, encoder: Encoder
) -> AsyncIterator[Services]:
    """A generator's parts without its loops: a test claims and answers by itself."""
    built = build_services(stack.settings, model, encoder, name="test-generator", database=db, bus=bus, states=states)
    yield built
    built.engine.close()
    built.vectors.close()


async def index_site(db: Database, encoder: Encoder, tenant: Tenant, pages: Any = PAGES) -> None:
    """Store the pages as ingest does: passages with vectors of the whole and of each sentence."""
    source = Source(id=new_id(), workspace_id=tenant.workspace_id, url=SITE, title="Harbour Bikes", status="read")
    documents: dict[str, Document] = {}
    rows = []
    for ordinal, (path, title, headings, fragment, text) in enumerate(pages):
        document = documents.setdefault(
            path,
            Document(
                id=new_id(), workspace_id=tenant.workspace_id, source_id=source.id, url=SITE + path, title=title, status="read"
            ),
        )
        spans = split_sentences(text)
        whole = f"{title} — {' › '.join(headings)}\n{text}"
        vectors = await asyncio.to_thread(encoder.encode, [whole, *(f"{headings[-1]}: {text[a:b]}" for a, b in spans)])
        rows.append(
            Passage(
                workspace_id=tenant.workspace_id,
                source_id=source.id,
                document_id=document.id,
                ordinal=ordinal,
                url=SITE + path,
                title=title,
                heading_path=headings,
                fragment=fragment,
                text=text,
                tokens=len(text) // 4,
                embedding=vectors[0],
                sentences=[list(span) for span in spans],
                sentence_vectors=vectors[1:].astype(np.float16).tobytes(),
            )
        )
    async with db.transaction(tenant.workspace_id) as session:
        session.add(source)
        await session.flush()
        session.add_all(documents.values())
        session.add(AssistantSource(assistant_id=tenant.assistant_id, source_id=source.id, workspace_id=tenant.workspace_id))
        await session.flush()
        session.add_all(rows)


@pytest.fixture
async def shop(db: Database, encoder: Encoder, tenant: Tenant) -> Tenant:
    """An assistant that answers from PAGES."""
    await index_site(db, encoder, tenant)
    return tenant


class Chat:
    """One conversation, asked through the services that the web process calls, answered by a claim in this process."""

    def __init__(self, services: Services, tenant: Tenant, conversation: Conversation) -> None:
        self.services, self.tenant, self.conversation = services, tenant, conversation
        self.id: UUID = conversation.id

    async def post(self, text: str) -> UUID:
        """Queue an answer; returns its id."""
        async with self.services.database.transaction(self.tenant.workspace_id) as session:
            conversation = await service.find_conversation(session, self.id, None)
            assert conversation is not None
            return (await service.post_message(session, conversation, text)).answer.id

    async def claim(self) -> lookups.Claim:
        async with self.services.database.transaction(None) as session:
            claim = await lookups.claim_message(session, self.services.name)
        assert claim is not None and claim.conversation_id == self.id
        return claim

    async def read(self, message_id: UUID) -> Message:
        async with self.services.database.transaction(self.tenant.workspace_id) as session:
            options = (undefer(Message.trace), undefer(Message.token_ids))
            return (await session.execute(select(Message).options(*options).where(Message.id == message_id))).scalar_one()

    async def stored(self) -> Conversation:
        async with self.services.database.transaction(self.tenant.workspace_id) as session:
            return await session.get_one(Conversation, self.id)

    async def ask(self, text: str) -> Message:
        """The answer as it is stored in the end."""
        message_id = await self.post(text)
        await answer_claim(self.services, await self.claim())
        return await self.read(message_id)

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        import msgspec

        from app import redis as keys

        entries = await self.services.bus.xrange(keys.conversation_stream(self.id))
        return [(fields[b"type"].decode(), msgspec.json.decode(fields[b"data"])) for _, fields in entries]


ChatFactory = Callable[[Tenant], Awaitable[Chat]]


@pytest.fixture
def chat_with(services: Services) -> ChatFactory:
    async def start(tenant: Tenant) -> Chat:
        async with services.database.transaction(tenant.workspace_id) as session:
            visitor = await service.create_visitor(session, tenant.workspace_id, tenant.assistant_id)
            conversation = await service.start_conversation(session, tenant.workspace_id, tenant.assistant_id, visitor.id)
        return Chat(services, tenant, conversation)

    return start


@pytest.fixture
async def chat(chat_with: ChatFactory, shop: Tenant) -> Chat:
    return await chat_with(shop)

"""The reader's place in an answer: it reads the best passages, and selection and the gate hear what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.content.search import Hit, hybrid
from app.db.session import Database
from tests.answer.conftest import Chat, Tenant
from tests.ingest.selection_weights import make
from workers.answer.retrieve import CITED, READ, read
from workers.answer.services import Readings, Services
from workers.encoder import Encoder
from workers.reader import Page, Reader, title_of

QUESTION = "How large is the deposit for an electric bicycle?"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A reader of weights that say little: what is tested is who is read, and who hears of it."""
    folder = tmp_path_factory.mktemp("selection")
    make(folder)
    loaded = Reader.load(folder=folder)
    assert loaded is not None
    return loaded


@pytest.fixture
def readings(reader: Reader) -> Iterator[Readings]:
    made = Readings(reader)
    yield made
    made.close()


async def found(db: Database, encoder: Encoder, shop: Tenant) -> list[Hit]:
    async with db.transaction(shop.workspace_id) as session:
        vector = encoder.encode([QUESTION])[0].tolist()
        return await hybrid(session, shop.assistant_id, query=QUESTION, vector=vector)


async def test_the_best_passages_and_those_cited_last_are_read(
    db: Database, encoder: Encoder, shop: Tenant, reader: Reader, readings: Readings
) -> None:
    hits = (await found(db, encoder, shop)) * 6
    cited = [replace(hit, score=0.0) for hit in hits[: CITED + 1]]
    candidates = await read(readings, QUESTION, [*hits, *cited])
    have = [place for place, one in enumerate(candidates) if one.reads is not None]
    assert have == [*range(READ - CITED), *range(len(hits), len(hits) + CITED)]
    first = hits[0]
    (alone,) = reader.read(QUESTION, [Page(title_of(first.title, first.heading_path), first.text, first.spans)])
    assert candidates[0].reads == alone.passage
    assert candidates[0].sentence_reads is not None and len(candidates[0].sentence_reads) == len(first.spans)


async def test_without_a_reader_the_candidates_are_those_that_were_found(db: Database, encoder: Encoder, shop: Tenant) -> None:
    hits = await found(db, encoder, shop)
    candidates = await read(Readings(), QUESTION, hits)
    assert [one.passage_id for one in candidates] == [hit.passage_id for hit in hits]
    assert all(one.reads is None for one in candidates) and await read(Readings(), QUESTION, []) == []


async def test_an_answers_gate_weighs_what_the_reader_says(
    services: Services, readings: Readings, shop: Tenant, chat: Chat
) -> None:
    services.readings = readings
    message = await chat.ask(QUESTION)
    features = message.trace["gate"]["features"]
    assert {"reads", "sentence_reads"} <= features.keys() and message.status == "done"

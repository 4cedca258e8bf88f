"""What the live path sees of each hand-written question: retrieval, selection and the model's p(0), on real servers."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from app import redis as keys
from app.accounts.models import Workspace
from app.assistants.models import Assistant, AssistantSource
from app.config import Settings
from app.content.models import Document, Passage, Source
from app.conversations.models import Message
from app.db.ids import new_id
from app.db.migrate import migrate
from app.db.session import Database
from app.embedded import Embedded, Ports
from retnet_core import Request, load_model
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import OWN
from workers.answer import generate, prompt, query, retrieve
from workers.answer.prefixes import read
from workers.answer.publish import quotations
from workers.answer.select import select
from workers.answer.sentences import split_sentences
from workers.answer.services import Services
from workers.encoder import Encoder
from workers.generate import build_services
from workers.ingest.embed import passage_text, sentence_texts
from workers.reader import Reader

PERSONA = "You answer the questions of visitors of a website. Use only the passages."
ELSEWHERE = "elsewhere"
ELSEWHERE_EVERY = 4
EMBED_BATCH = 64  # passages at a time, so that progress can be shown

Site = tuple[UUID, UUID]  # workspace, assistant


def read_rows() -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """(development passages by package, development questions that are put to a site), as the project holds them."""
    passages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in handwritten.passages().values():
        if one.dev:
            passages[one.package].append({"id": one.id, "title": one.title, "text": one.text})
    questions = [
        {"kind": row.kind, "passages": row.passages, "turns": row.turns, "facts": row.facts, "half": row.half}
        for row in handwritten.rows("dev")
        if row.passages and row.kind not in OWN
    ]
    return passages, questions


@contextmanager
def servers() -> Iterator[Settings]:
    """PostgreSQL and two Valkeys of their own, migrated, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="retort-gate-"))
    folder.chmod(0o711)  # the servers' own account passes through it
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    embedded = Embedded(folder / "data", Ports(*ports))
    try:
        embedded.start()
        migrate(embedded.admin_url, embedded.database_url)
        yield Settings.load(embedded.environment())
    finally:
        embedded.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def measure() -> list[dict[str, Any]]:
    """One row a question: kind, package, half, the gate's features, p(0), and what share of its facts the selected sentences hold."""
    passages, questions = read_rows()
    encoder, model = Encoder.load(2), load_model()
    with servers() as chosen:
        database = Database(chosen.database_url)
        bus, states = keys.client(chosen.bus_url), keys.client(chosen.states_url)
        services = build_services(
            chosen, model, encoder, reader=Reader.load(), name="gate", database=database, bus=bus, states=states
        )
        try:
            sites, ids = {}, {}
            for package, rows in passages.items():
                sites[package] = await _index(services, encoder, package, rows)
                ids.update({row["id"]: package for row in rows})
            asked = [(question["kind"], ids[question["passages"][0]], question) for question in questions]
            asked += _elsewhere(asked, list(passages))
            measured = []
            for number, (kind, package, question) in enumerate(asked, start=1):
                measured.append(
                    {"kind": kind, "package": package, "half": question["half"], **await _ask(services, sites[package], question)}
                )
                _progress("questions", number, len(asked))
            return measured
        finally:
            services.engine.close()
            services.vectors.close()
            await bus.aclose()
            await states.aclose()
            await database.close()


def _elsewhere(asked: list[tuple[str, str, dict[str, Any]]], packages: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Some of the questions, put to another site, which cannot answer them: the plain case of a refusal."""
    answerable = [(package, question) for kind, package, question in asked if kind == "answerable"]
    return [
        (ELSEWHERE, packages[(packages.index(package) + 1 + place % (len(packages) - 1)) % len(packages)], question)
        for place, (package, question) in enumerate(answerable[::ELSEWHERE_EVERY])
    ]


async def _index(services: Services, encoder: Encoder, package: str, rows: list[dict[str, Any]]) -> Site:
    """A workspace whose one site is the package."""
    workspace, assistant, source, document = new_id(), new_id(), new_id(), new_id()
    async with services.database.transaction(workspace) as session:
        session.add(Workspace(id=workspace, name=package, slug=f"gate-{package}"))
        await session.flush()
        session.add(Source(id=source, workspace_id=workspace, url=f"https://{package}.example", status="read"))
        session.add(
            Assistant(id=assistant, workspace_id=workspace, slug=f"gate-{package}", name=package, persona=PERSONA, greeting="")
        )
        await session.flush()
        session.add(AssistantSource(assistant_id=assistant, source_id=source, workspace_id=workspace))
        session.add(
            Document(id=document, workspace_id=workspace, source_id=source, url=f"https://{package}.example/", status="read")
        )
    for start in range(0, len(rows), EMBED_BATCH):
        async with services.database.transaction(workspace) as session:
            for ordinal, row in enumerate(rows[start : start + EMBED_BATCH], start=start):
                draft = {
                    "heading_path": [],
                    "text": row["text"],
                    "sentences": [list(span) for span in split_sentences(row["text"])],
                }
                vectors = encoder.encode([passage_text(row["title"], draft), *sentence_texts(row["title"], draft)])
                session.add(
                    Passage(
                        workspace_id=workspace,
                        source_id=source,
                        document_id=document,
                        ordinal=ordinal,
                        url=f"https://{package}.example/{row['id']}",
                        title=row["title"],
                        heading_path=[],
                        text=row["text"],
                        tokens=len(row["text"]) // 4,
                        embedding=vectors[0],
                        sentences=draft["sentences"],
                        sentence_vectors=vectors[1:].astype(np.float16).tobytes(),
                    )
                )
        _progress(package, min(start + EMBED_BATCH, len(rows)), len(rows))
    return workspace, assistant


async def _ask(services: Services, site: Site, question: dict[str, Any]) -> dict[str, Any]:
    workspace, assistant = site
    *before, text = question["turns"]
    dialogue = [Message(id=new_id(), role="visitor", status="done", text=turn) for turn in before]
    asked = await query.build(services.vectors, text, dialogue)
    asked, hits = await retrieve.retrieve(services.database, workspace, assistant, asked)
    candidates = await retrieve.read(services.readings, asked.text, hits)
    selection = select(asked.vector, candidates, question=asked.text)
    evidence, _ = quotations(selection, hits)
    tokenizer = services.model.tokenizer
    state = await services.prefixes.get(prompt.persona_prefix(tokenizer, PERSONA))
    turns = [token for turn in question["turns"] for token in prompt.visitor_turn(tokenizer, turn)]
    state = await read(services.engine, Request(turns, state=state))
    fork = await generate.read_evidence(services, workspace, state, evidence, text)
    shown = " ".join(item["text"] for item in evidence)
    facts = [bool(re.search(fact, shown, re.IGNORECASE)) for fact in question["facts"]]
    return {
        "features": {**selection.features, **retrieve.features(hits)},
        "zero": fork.zero,
        "facts": float(np.mean(facts)) if facts else None,
        "words": len(shown.split()),
    }


def _progress(what: str, done: int, whole: int) -> None:
    print(f"\r{what}: {done} of {whole} ", end="\n" if done == whole else "", file=sys.stderr, flush=True)

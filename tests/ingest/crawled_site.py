"""A website on 127.0.0.1 that misbehaves on demand and counts what it is asked, and a crawler that reads it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from app.assistants.models import AssistantSource
from app.content.models import Document, Passage, Source
from app.db.ids import new_id
from workers.ingest import crawl
from workers.process import Process


@dataclass
class Reply:
    """What a path answers. `body` may be a function that writes to the connection itself."""

    body: bytes | Callable[[Any], None] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "text/html; charset=utf-8"


def page(title: str, *paragraphs: str, links: tuple[str, ...] = (), head: str = "") -> Reply:
    """A small page with a heading, text and links."""
    items = "".join(f'<li><a href="{link}">{link}</a></li>' for link in links)
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    html = f"<!doctype html><title>{title}</title>{head}<nav><ul>{items}</ul></nav><main><h1 id=top>{title}</h1>{body}</main>"
    return Reply(html.encode())


class Website:
    """`site["/path"] = page(…)`; `site.asked` counts requests by path; unknown paths answer 404."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Callable[[Any], Reply]] = {}
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.times: list[tuple[str, float]] = []
        self.open = 0
        self.most_open = 0
        self.delay = 0.0
        self.stop = threading.Event()
        self._lock = threading.Lock()
        website = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                website._answer(self)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def __setitem__(self, path: str, reply: Reply | Callable[[Any], Reply]) -> None:
        self.replies[path] = reply

    def __delitem__(self, path: str) -> None:
        del self.replies[path]

    def pages_asked(self) -> dict[str, int]:
        """Without robots.txt and sitemaps."""
        return {path: count for path, count in self.asked.items() if "robots" not in path and "sitemap" not in path}

    def close(self) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked[handler.path] += 1
            self.agents.add(handler.headers.get("User-Agent", ""))
            self.times.append((handler.path, time.monotonic()))
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            if self.delay:
                time.sleep(self.delay)
            self._send(handler)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True
        finally:
            with self._lock:
                self.open -= 1

    def _send(self, handler: BaseHTTPRequestHandler) -> None:
        found = self.replies.get(handler.path, Reply(b"nothing here", 404))
        reply = found(handler) if callable(found) else found
        handler.send_response(reply.status)
        handler.send_header("Content-Type", reply.kind)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if callable(reply.body):
            handler.send_header("Connection", "close")
            handler.close_connection = True
            handler.end_headers()
            reply.body(handler)
            return
        handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        handler.wfile.write(reply.body)


class Crawler:
    """Runs the tasks of a crawl one after the other in this process, with the real servers and the real encoder.

    It follows SQL alone, as the sweeper does: what a lost hint named is done all the same.
    """

    def __init__(self, process: Process, db: Any, tenant: Any) -> None:
        self.process = process
        self.db = db
        self.tenant = tenant

    async def add(self, url: str) -> UUID:
        source_id = new_id()
        async with self.db.transaction(self.tenant.workspace_id) as session:
            session.add(Source(id=source_id, workspace_id=self.tenant.workspace_id, url=url))
            await session.flush()
            session.add(
                AssistantSource(assistant_id=self.tenant.assistant_id, source_id=source_id, workspace_id=self.tenant.workspace_id)
            )
        return source_id

    async def again(self, source_id: UUID) -> None:
        async with self.db.transaction(self.tenant.workspace_id) as session:
            await session.execute(text("UPDATE sources SET status = 'waiting' WHERE id = :id"), {"id": source_id})

    async def read(self, source_id: UUID) -> Source:
        """Run the crawl to its end."""
        workspace = self.tenant.workspace_id
        await crawl.read_source(self.process, workspace, source_id)
        for _ in range(500):
            source = await self.source(source_id)
            if source.status in ("read", "failed"):
                return source
            async with self.db.transaction(workspace) as session:
                rows = (await session.execute(OPEN, {"source": source_id})).all()
            for document_id, status in rows:
                step = crawl.embed_document if status == "fetched" else crawl.fetch_document
                await step(self.process, workspace, document_id)
        raise AssertionError("the crawl does not end")

    async def source(self, source_id: UUID) -> Source:
        async with self.db.transaction(self.tenant.workspace_id) as session:
            return (await session.execute(select(Source).where(Source.id == source_id))).scalar_one()

    async def documents(self, source_id: UUID) -> dict[str, Document]:
        """By path and query."""
        async with self.db.transaction(self.tenant.workspace_id) as session:
            rows = (await session.execute(select(Document).where(Document.source_id == source_id))).scalars()
            return {"/" + row.url.split("/", 3)[3]: row for row in rows}

    async def passages(self, source_id: UUID) -> list[Passage]:
        async with self.db.transaction(self.tenant.workspace_id) as session:
            query = select(Passage).where(Passage.source_id == source_id).order_by(Passage.url, Passage.ordinal)
            return list((await session.execute(query)).scalars())


OPEN = text(
    """SELECT id, status FROM documents
       WHERE source_id = :source AND (status = 'fetched' OR status = 'waiting' AND claimed_at IS NOT NULL) ORDER BY id"""
)

"""Content that is read for an evaluation alone: a website's address, or a folder of pages served on this machine."""

from __future__ import annotations

import html
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from markdown_it import MarkdownIt

from app.operate import Problem
from app.operate.add import add_source_making_assistant, follow_source
from app.operate.client import Api
from app.operate.local import admit
from app.operate.output import Output
from benchmarks._pages import PageHandler

PAGES = (".html", ".htm", ".md")

_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


@contextmanager
def ingested(api: Api, content: str, output: Output) -> Iterator[str]:
    """The slug of a new assistant that has read `content`; its source is removed in the end (an assistant without content stays).

    Raises Problem when there is nothing to read, or nothing could be read.
    """
    with _address(content) as url:
        slug = f"eval-{secrets.token_hex(3)}"
        with output.step(f"Reading {content}") as step:
            source = add_source_making_assistant(api, url, slug, on_made=lambda name: None)
            try:
                source = follow_source(api, source["id"], on_progress=lambda one: step.detail(f"{one['counts']['read']} pages"))
                if source["status"] == "failed" or not source["counts"]["passages"]:
                    raise Problem(f"{content} could not be read: {source['reason'] or 'no page had text'}")
                step.result = f"{source['counts']['read']} pages, {source['counts']['passages']} passages"
            except BaseException:
                _remove(api, source["id"])
                raise
        try:
            yield slug
        finally:
            _remove(api, source["id"])


def _remove(api: Api, source_id: str) -> None:
    api.delete(f"/api/v1/sources/{source_id}")


@contextmanager
def _address(content: str) -> Iterator[str]:
    if "://" in content:
        yield content
        return
    folder = Path(content)
    if not folder.is_dir():
        raise Problem(f"{content} is neither a folder nor an address such as https://docs.example.org/.")
    pages = pages_of(folder)
    if not pages:
        raise Problem(f"{content} holds no page ({', '.join(PAGES)}).")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(PageHandler, pages))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        admit(url)
        yield url
    finally:
        server.shutdown()
        server.server_close()


def pages_of(folder: Path) -> dict[str, bytes]:
    """The pages below a folder by their path on the server, Markdown made into HTML, with a first page that links to all."""
    pages: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PAGES and path.is_file():
            name = "/" + quote(str(path.relative_to(folder)))
            raw = path.read_bytes()
            pages[name] = _page(path.stem, raw.decode("utf-8", "replace")) if path.suffix.lower() == ".md" else raw
    if pages:
        links = "".join(f'<li><a href="{html.escape(name)}">{html.escape(name[1:])}</a></li>' for name in pages)
        pages["/"] = f"<!doctype html><title>Contents</title><nav><ul>{links}</ul></nav>".encode()
    return pages


def _page(name: str, text: str) -> bytes:
    first = next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("# ")), name)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(first)}</title>'
    return f"{head}<main>{_markdown.render(text)}</main></html>".encode()

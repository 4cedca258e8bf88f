"""A website for the crawl to read: pages of real prose with headings, made of what Python says about itself."""

from __future__ import annotations

import html
import importlib
import inspect
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Modules of the standard library with much to say about themselves.
MODULES = (
    "argparse", "ast", "asyncio", "calendar", "cmd", "collections", "configparser", "contextlib", "csv", "dataclasses",
    "datetime", "decimal", "difflib", "email.message", "enum", "fractions", "functools", "heapq", "http.cookiejar",
    "imaplib", "inspect", "ipaddress", "itertools", "json", "logging", "logging.handlers", "mailbox", "optparse", "os",
    "pathlib", "pdb", "pickle", "random", "selectors", "shutil", "socket", "statistics", "string", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "timeit", "typing", "unittest", "unittest.mock", "urllib.request", "zipfile",
)  # fmt: skip
SECTIONS = 6
FEWEST_WORDS = 8


def page(name: str, links: list[str]) -> str:
    """One module as a page: its own words, then a section each for what it defines."""
    module = importlib.import_module(name)
    body = [f"<h1>{name}</h1>", _prose(inspect.getdoc(module) or name)]
    members = [(n, inspect.getdoc(m) or "") for n, m in inspect.getmembers(module) if inspect.isclass(m) or inspect.isroutine(m)]
    told = [(n, text) for n, text in members if len(text.split()) >= FEWEST_WORDS and not n.startswith("_")]
    for member, text in told[:SECTIONS]:
        body.append(f'<h2 id="{html.escape(member)}">{html.escape(member)}</h2>{_prose(text)}')
    navigation = "".join(f'<li><a href="{link}.html">{link}</a></li>' for link in links)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title></head>'
        f"<body><nav><ul>{navigation}</ul></nav><main><article>{''.join(body)}</article></main></body></html>"
    )


def _prose(text: str) -> str:
    return "".join(f"<p>{html.escape(' '.join(part.split()))}</p>" for part in text.split("\n\n") if part.strip())


class PageHandler(BaseHTTPRequestHandler):
    """Serves `pages`, HTML by path, and 404 for every other path."""

    def __init__(self, pages: dict[str, bytes], *arguments: object) -> None:
        self.pages = pages
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        body = self.pages.get(self.path.partition("?")[0])
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not news."""


class LocalSite:
    """`count` pages on 127.0.0.1 until `stop()`; port 0 is any free one."""

    def __init__(self, count: int, port: int = 0) -> None:
        names = list(MODULES[:count])
        self.pages = {f"/{name}.html": page(name, names).encode() for name in names}
        self.pages["/"] = self.pages[f"/{names[0]}.html"]
        self.server = ThreadingHTTPServer(("127.0.0.1", port), partial(PageHandler, self.pages))
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

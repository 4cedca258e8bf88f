"""Websites of the tests' own, on 127.0.0.1: the ones that the product reads, and one page that embeds the widget."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parent / "site"
HANDBOOK = Path("/usr/share/doc/debian-handbook/html/en-US")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "retort-tests" / "debian-handbook"


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder, and pages that exist in no file. Says nothing."""

    made: dict[str, str] = {}  # those pages, by path

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/favicon.ico":  # a browser asks for it by itself; its absence would be a complaint
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
            return
        body = self.made.get(path)
        if body is None:
            super().do_GET()
            return
        data = body.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not news."""


class Website:
    """A folder served until `stop()`. `delay` seconds pass before each page, so that a reading can be watched."""

    def __init__(self, folder: Path, made: dict[str, str] | None = None, delay: float = 0.0) -> None:
        self.pages = {} if made is None else made
        handler = type("SiteHandler", (Handler,), {"made": self.pages})
        if delay:
            handler.do_GET = _delayed(handler.do_GET, delay)  # type: ignore[method-assign]
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)


def _delayed(handle: Callable[[Handler], None], seconds: float) -> Callable[[Handler], None]:
    def wait_first(self: Handler) -> None:
        threading.Event().wait(seconds)
        handle(self)

    return wait_first


def handbook() -> Path | None:
    """The HTML of the Debian Administrator's Handbook: installed, cached or fetched once; None where it cannot be had."""
    for folder in (HANDBOOK, CACHE / "usr/share/doc/debian-handbook/html/en-US"):
        if (folder / "index.html").exists():
            return folder
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    CACHE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["apt-get", "download", "debian-handbook"], cwd=CACHE, capture_output=True, timeout=120)
    packages = sorted(CACHE.glob("debian-handbook_*.deb"))
    if done.returncode != 0 or not packages:
        return None
    subprocess.run(["dpkg", "-x", str(packages[-1]), str(CACHE)], check=True, capture_output=True, timeout=120)
    packages[-1].unlink()
    folder = CACHE / "usr/share/doc/debian-handbook/html/en-US"
    return folder if (folder / "index.html").exists() else None

"""Which Retort a benchmark measures: the one that runs, or one of its own on free ports, started as `make up` starts it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from app.operate.checks import data_folder
from app.operate.client import KEY_FILE
from app.operate.install import READ_DOCS
from app.operate.supervisor import read_record

START_SECONDS = 300.0
PORTS = 5  # visitors, dashboard, PostgreSQL, bus, states: in a row


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and whose memory to look at (none when it runs on another machine)."""

    visitor: str
    dashboard: str
    key: str
    data: Path | None
    own: bool

    @property
    def root(self) -> psutil.Process | None:
        """The process of `retort up`."""
        pid = read_record(self.data).get("pid") if self.data else None
        return psutil.Process(int(str(pid))) if pid else None

    def child(self, name: str) -> psutil.Process | None:
        children = read_record(self.data).get("children") if self.data else None
        known = children.get(name) if isinstance(children, dict) else None
        return psutil.Process(int(known["pid"])) if known else None


def running(visitor: str | None) -> Target | None:
    """The Retort of RETORT_URL and RETORT_API_KEY (`visitor` then says its visitor origin), or of this data folder."""
    url, key = os.environ.get("RETORT_URL", ""), os.environ.get("RETORT_API_KEY", "")
    if url:
        if not visitor or not key:
            raise SystemExit("With RETORT_URL, give RETORT_API_KEY and --visitor ORIGIN (where the widget is served).")
        return Target(visitor.rstrip("/"), url.rstrip("/"), key, None, own=False)
    data = data_folder()
    record = read_record(data)
    if not record.get("dashboard") or not psutil.pid_exists(int(str(record.get("pid", 0)))):
        return None
    return Target(
        visitor or str(record["visitor"]), str(record["dashboard"]), (data / KEY_FILE).read_text().strip(), data, own=False
    )


class OwnStack:
    """`retort up` in a folder of its own. `start()` may be called again after `stop()`: the data stays until `remove()`."""

    def __init__(self, allowed: list[str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="retort-bench-"))
        self.folder.chmod(0o711)  # the servers' own account passes through it
        self.port = _free_row(PORTS)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RETORT_")},
            "RETORT_DATA": str(self.folder / "data"),
            "RETORT_ALLOW_PRIVATE": ",".join(allowed),
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> Target:
        data = self.folder / "data"
        key = (data / KEY_FILE).read_text().strip()
        return Target(f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.port + 1}", key, data, own=True)

    def start(self) -> None:
        """Start it and wait until the web application is ready. Raises SystemExit with its last words when it ends."""
        log = (self.folder / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up", "--port", str(self.port)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        until = time.monotonic() + START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"retort up did not start: {(self.folder / 'up.log').read_text()[-600:]}")
            time.sleep(0.05)

    def wait_for_docs(self) -> None:
        """Wait until the guide has read all of its documentation: before, some questions have no answer yet."""
        until = time.monotonic() + START_SECONDS
        while not (self.folder / "data" / READ_DOCS).exists():
            if time.monotonic() > until:
                raise SystemExit(f"The documentation was not read: {(self.folder / 'up.log').read_text()[-600:]}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        if not (self.folder / "data" / KEY_FILE).exists():
            return False
        try:
            return httpx.get(f"http://127.0.0.1:{self.port + 1}/health/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def own_stack(allowed: list[str]) -> Iterator[OwnStack]:
    stack = OwnStack(allowed)
    try:
        yield stack
    finally:
        stack.remove()


def resident_mb(process: psutil.Process | None) -> float | None:
    """What the process alone keeps in memory (RSS), in millions of bytes."""
    return None if process is None else process.memory_info().rss / 1e6


def whole_mb(root: psutil.Process | None) -> float | None:
    """What a process and all its descendants keep in memory, shared pages counted once (PSS), in millions of bytes."""
    if root is None:
        return None
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.AccessDenied:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def _free_row(count: int) -> int:
    """The first of `count` ports in a row on 127.0.0.1 that nobody listens on."""
    for first in range(21460, 60000, 100):
        sockets = []
        try:
            for port in range(first, first + count):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise SystemExit(f"There are no {count} free ports in a row on 127.0.0.1.")

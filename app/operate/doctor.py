"""`retort doctor`: looks at every part and says what to do about what is wrong."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from app.embedded import EmbeddedError
from app.embedded.postgres import MAJOR, installation
from app.embedded.valkey import program
from app.operate import Problem, checks
from app.operate.client import KEY_FILE, connect
from app.operate.install import docs_hash, docs_note, docs_were_read
from app.operate.plan import PORT_MEANINGS, chosen_ports
from app.operate.supervisor import read_record

NEEDED_BYTES = int(2.5 * 10**9)
# Kinds of processes as they name themselves on the bus and in /status.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    good: bool | None  # None: worth knowing, no fault
    text: str


def examine() -> Iterator[Finding]:
    """One finding a part, the cheap and basic ones first."""
    yield _try("environment", lambda: (checks.check_environment(), f"complete, Python {platform.python_version()}")[1])
    yield _try("PostgreSQL", lambda: f"version {MAJOR} with pgvector ({installation().parent.name})")
    yield _try("Valkey", lambda: f"{program().name} for {platform.machine()}")
    data = checks.data_folder()
    yield _try("disk", lambda: f"{checks.check_disk(data) / 10**9:.0f} GB free at {data}")
    yield _memory()
    yield _browser()
    running = _is_running(data)
    if not running:
        yield Finding("running", None, f"Retort does not run on {data}; start it with `make up`")
        yield _try("ports", _free_ports)
        return
    record = read_record(data)
    yield Finding("running", True, f"pid {record.get('pid', '?')}, data in {data}")
    yield _try("API key", lambda: _key_works(data))
    yield from _parts(str(record.get("api", "")))
    yield _resident(record)
    visitor = str(record.get("visitor", ""))
    yield _guide(data, visitor + "/guide-docs/")


def _guide(data: Path, url: str) -> Finding:
    if not docs_were_read(data, url):
        return Finding("guide", False, "has not read the present docs; restart")
    if docs_note(data).get("removed"):
        return Finding("guide", None, f"its documentation was removed; to have it again: retort add {url} --assistant guide")
    return Finding("guide", True, f"has read the documentation ({docs_hash()[:8]})")


def _try(part: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, check())
    except (Problem, EmbeddedError) as problem:
        return Finding(part, False, str(problem))


def _memory() -> Finding:
    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    good = total >= NEEDED_BYTES
    text = f"{total / 10**9:.1f} GB, {free / 10**9:.1f} GB available, {os.cpu_count()} cores"
    return Finding("memory", good, text if good else f"{text}; Retort needs {NEEDED_BYTES / 10**9:.1f} GB")


def _browser() -> Finding:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    return Finding("browser", None, f"{found} (for the tests)" if found else "no Chromium; only the browser tests need it")


def _free_ports() -> str:
    ports = chosen_ports(None, os.environ)
    checks.check_ports("127.0.0.1", {PORT_MEANINGS[name]: number for name, number in ports.items()})
    return f"{min(ports.values())} to {max(ports.values())} are free"


def _is_running(data: Path) -> bool:
    try:
        with (data / "lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _key_works(data: Path) -> str:
    with connect() as api:
        me = api.get("/api/v1/me")
    return f"of workspace {me['workspace']['name']} ({data / KEY_FILE})"


def _parts(dashboard: str) -> Iterator[Finding]:
    """What /status says of web, generators, workers, PostgreSQL and both Redis."""
    try:
        response = httpx.get(f"{dashboard}/status", headers={"Accept": "application/json"}, timeout=5, trust_env=False)
        status = response.json()
    except (httpx.HTTPError, ValueError) as error:
        yield Finding("web", False, f"{dashboard}/status does not answer ({type(error).__name__}); see logs/web.log")
        return
    for part in status.get("components", []):
        good = part["state"] == "up"
        text = f"{part['state']}: {part['detail']}"
        yield Finding(part["name"], good, text if good else f"{text}; it is started again by itself, see the logs folder")


def _resident(record: dict[str, object]) -> Finding:
    """Memory of everything that a running `retort up` started; shared pages count once (PSS)."""
    total, uncounted = 0, 0
    children = record.get("children")
    for known in (children if isinstance(children, dict) else {}).values():
        try:
            parent = psutil.Process(int(known["pid"]))
            for process in [parent, *parent.children(recursive=True)]:
                total += process.memory_full_info().pss
        except (psutil.Error, KeyError, ValueError):
            uncounted += 1
    note = f" ({uncounted} processes may not be looked at)" if uncounted else ""
    good = total <= NEEDED_BYTES
    return Finding("in use", good, f"{total / 10**6:.0f} MB by all processes{note}{'' if good else '; more than intended'}")

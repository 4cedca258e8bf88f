"""A process of our own: started, watched and stopped, and gone when we are gone."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from app.embedded.account import Account

# prctl(2): the signal that a process gets when the thread that started it ends, however it ends.
PR_SET_PDEATHSIG = 1
# Above this size a log is set aside (as .1) when its process starts: logs of a machine that runs for months stay bounded.
LOG_BYTES = 20 * 2**20

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process `number` when the thread that started it ends. Nothing where there is no Linux."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def _die_with_parent(parent: int, death_signal: int, niceness: int) -> Callable[[], None]:
    def in_child() -> None:
        end_with_parent(death_signal)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the call above could bind us to it
        if niceness:
            os.nice(niceness)

    return in_child


class Child:
    """One child process in a session of its own, so that Ctrl-C in the terminal reaches the parent alone.

    The kernel sends `death_signal` when the parent dies without saying goodbye. Start it from the main thread: the
    kernel watches the thread, not the process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
        folder: Path | None = None,
        stop_signal: int = signal.SIGTERM,
        death_signal: int | None = None,
        niceness: int = 0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.environment = environment
        self.account = account
        self.folder = folder
        self.stop_signal = stop_signal
        self.death_signal = stop_signal if death_signal is None else death_signal
        self.niceness = niceness
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.process.poll() if self.process else None

    def start(self) -> None:
        """Start the process unless it runs. Raises OSError when the program cannot be executed."""
        if self.running:
            return
        with self._open_log() as log:
            identity: dict[str, Any] = {} if self.account is None else self.account.popen_arguments()
            self.process = subprocess.Popen[bytes](
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=None if self.environment is None else dict(self.environment),
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid(), self.death_signal, self.niceness),
                **identity,
            )

    def signal(self, number: int) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """True when the process has ended within so many seconds."""
        if self.process is None:
            return True
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the process and its own children at once."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 5.0) -> None:
        """Ask the process to end, and make it end after so many seconds."""
        self.signal(self.stop_signal)
        if not self.wait(seconds):
            self.kill()

    def last_words(self, lines: int = 1) -> str:
        """The end of its log, for an error message."""
        try:
            tail = self.log.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return " ".join(line.strip() for line in tail[-lines:])

    def _open_log(self) -> IO[bytes]:
        """Readable by its owner alone: a log names addresses and paths, and an earlier release wrote it for everybody."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
            self.log.with_suffix(".log.1").chmod(0o600)
        log = os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        os.fchmod(log.fileno(), 0o600)
        return log

"""Keeps the processes running: starts them, restarts one that dies, and stops all of them in order."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil
import redis

from app.embedded import Child, Embedded
from app.embedded.secrets import write_private
from app.operate import Problem
from app.operate.plan import Planned

FIRST_PAUSE = 0.5  # seconds before a dead process is started again; doubled each time
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 60.0  # a process that ran so long is healthy again
EARLY_DEATHS = 3  # so many while starting, and `retort up` gives up
STOP_SECONDS = 3.5  # for each of the groups that are stopped one after another
RECORD = "run.json"


class Watched:
    """A child and the history of its deaths."""

    def __init__(self, name: str, child: Child, start: Callable[[], None], kind: str = "") -> None:
        self.name = name
        self.kind = kind
        self.child = child
        self.started_at = 0.0
        self.deaths = 0
        self.restart_at: float | None = None
        self._start = start

    def start(self) -> None:
        self._start()
        self.started_at = time.monotonic()
        self.restart_at = None


class Supervisor:
    """All processes of one data folder. Used from the main thread alone (the kernel ties children to the thread)."""

    def __init__(self, servers: Embedded, tell: Callable[[str], None]) -> None:
        self.servers = servers
        self.watched: list[Watched] = []
        self.starting = True
        self._tell = tell
        self._record: dict[str, object] = {}

    def adopt_servers(self) -> None:
        """Watch the three servers, which run already."""
        for name, server in (("PostgreSQL", self.servers.postgres), ("bus", self.servers.bus), ("states", self.servers.states)):
            watched = Watched(name, server.child, server.start)
            watched.started_at = time.monotonic()
            self.watched.append(watched)
        self._write_record()

    def start(self, plan: Iterable[Planned]) -> None:
        for one in plan:
            watched = Watched(one.name, one.child, one.child.start, one.kind)
            watched.start()
            self.watched.append(watched)
        self._write_record()

    def tick(self) -> None:
        """Look after the children: call it a few times a second. Raises Problem when one will not start at all."""
        now = time.monotonic()
        for one in self.watched:
            if one.child.running:
                continue
            if one.restart_at is None:
                self._died(one, now)
            elif now >= one.restart_at:
                one.start()
                self._write_record()

    def _died(self, one: Watched, now: float) -> None:
        one.deaths = 1 if now - one.started_at > STEADY_SECONDS else one.deaths + 1
        if self.starting and one.deaths >= EARLY_DEATHS:
            raise Problem(f"{one.name} does not start: {one.child.last_words() or 'it says nothing'} (log: {one.child.log})")
        pause = min(FIRST_PAUSE * 2 ** (one.deaths - 1), LONGEST_PAUSE)
        one.restart_at = now + pause
        self._tell(f"{one.name} ended ({_how(one.child.exit_code)}); it starts again in {pause:g} s. Log: {one.child.log}")

    def renew(self, kinds: Sequence[str], variables: dict[str, str]) -> None:
        """Start the processes of these kinds anew, with other variables."""
        chosen = [one for one in self.watched if one.kind in kinds]
        _stop_together([one.child for one in chosen], STOP_SECONDS, lambda: False)
        for one in chosen:
            one.child.environment = {**(one.child.environment or {}), **variables}
            one.start()
        self._write_record()

    def wait_for(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Look after the children until `done()`. Raises Problem when it takes too long."""
        until = time.monotonic() + seconds
        while not done():
            self.tick()
            if time.monotonic() > until:
                raise Problem(f"{what} did not get ready within {seconds:.0f} s; see the logs in {self.servers.data / 'logs'}.")
            time.sleep(0.1)

    def alive(self, kinds: Sequence[str]) -> dict[str, int]:
        """How many processes of each kind that were started by us give signs of life on the bus."""
        ours = {one.child.pid: one.kind for one in self.watched if one.kind in kinds}
        counts = dict.fromkeys(kinds, 0)
        with redis.Redis.from_url(self.servers.bus.url, socket_timeout=2, socket_connect_timeout=2) as bus:
            try:
                for key in bus.scan_iter(match="bus:process:*", count=200):
                    value = bus.get(key)
                    pid = json.loads(value).get("pid") if value else None
                    if pid in ours:
                        counts[ours[pid]] += 1
            except redis.RedisError:
                return dict.fromkeys(kinds, 0)
        return counts

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Web and beat first, then generators and workers, the servers last; each group for at most a few seconds."""
        first = [one.child for one in self.watched if one.kind in ("web", "beat")]
        second = [one.child for one in self.watched if one.kind and one.kind not in ("web", "beat")]
        last = [self.servers.states.child, self.servers.bus.child, self.servers.postgres.child]
        for group in (first, second, last):
            _stop_together(group, 0.0 if hurry() else STOP_SECONDS, hurry)
        (self.servers.data / RECORD).unlink(missing_ok=True)

    def describe(self, **values: object) -> None:
        """Add to the record that `retort ask` and `retort doctor` read."""
        self._record.update(values)
        self._write_record()

    def _write_record(self) -> None:
        children = {}
        for one in self.watched:
            if one.child.pid is not None and one.child.running:
                try:
                    children[one.name] = {"pid": one.child.pid, "started": psutil.Process(one.child.pid).create_time()}
                except psutil.NoSuchProcess:
                    continue
        write_private(self.servers.data / RECORD, json.dumps({"pid": os.getpid(), **self._record, "children": children}))


def read_record(data: Path) -> dict[str, object]:
    """What the running `retort up` wrote about itself; empty when there is none."""
    try:
        held = json.loads((data / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def end_leftovers(data: Path, seconds: float = 8.0) -> int:
    """End what an earlier Retort that was killed left running here; how many those were.

    They end by themselves as a rule (the kernel told them); this waits for it, and kills what does not listen.
    Call it with the folder's lock held.
    """
    children = read_record(data).get("children")
    left = []
    for known in (children if isinstance(children, dict) else {}).values():
        try:
            process = psutil.Process(int(known["pid"]))
            if abs(process.create_time() - float(known["started"])) < 1:
                left += [*process.children(recursive=True), process]
        except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
            continue
    for process in left:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(left, timeout=seconds)
    for process in stubborn:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(stubborn, timeout=2)
    (data / RECORD).unlink(missing_ok=True)
    return len(left)


def _stop_together(children: Sequence[Child], seconds: float, hurry: Callable[[], bool]) -> None:
    for child in children:
        child.signal(child.stop_signal)
    until = time.monotonic() + seconds
    while any(child.running for child in children) and time.monotonic() < until and not hurry():
        time.sleep(0.03)
    for child in children:
        if child.running:
            child.kill()


def _how(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

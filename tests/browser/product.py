"""The whole product as a test starts it: web, generator, both workers and beat, as `retort up` starts them, on free ports."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from app.config import Settings
from app.embedded import Child
from app.operate.plan import planned

READY_SECONDS = 90.0  # importing torch beside a busy machine takes its time


@dataclass(slots=True)
class Product:
    """The running processes and where they answer."""

    visitor: str
    dashboard: str
    environment: dict[str, str]
    logs: Path
    children: dict[str, Child] = field(default_factory=dict)

    def start(self) -> None:
        """Start everything and wait until questions can be asked. Raises AssertionError with the last words of what failed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for one in planned(Settings.load(self.environment), self.environment, self.logs):
            one.child.start()
            self.children[one.name] = one.child
        self.wait(self._serves, "the product to start", READY_SECONDS)

    def stop(self) -> None:
        for name in reversed(self.children):
            self.children[name].signal(signal.SIGTERM)
        for name in reversed(self.children):
            self.children[name].stop(10.0)

    def restart(self, name: str, *, number: int = signal.SIGTERM) -> None:
        """End a process with a signal and start it again."""
        child = self.children[name]
        child.signal(number)
        if not child.wait(15.0):
            child.kill()
        child.start()

    def status(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.dashboard}/status", headers={"Accept": "application/json"}, timeout=5)
        return answer.json()

    def wait(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not ready():
            for child in self.children.values():
                assert child.running, f"{child.name} ended with {child.exit_code}: {child.last_words(8)}"
            assert time.monotonic() < until, f"Waited {seconds:.0f} s for {what}; logs in {self.logs}"
            time.sleep(0.2)

    def _serves(self) -> bool:
        try:
            ready = httpx.get(f"{self.dashboard}/health/ready", timeout=3).status_code == 200
        except httpx.HTTPError:
            return False
        return ready and all(self._alive(kind) for kind in ("generator", "worker-io", "worker-models"))

    def _alive(self, kind: str) -> bool:
        with redis.Redis.from_url(self.environment["RETORT_BUS_URL"], socket_timeout=3) as bus:
            return next(bus.scan_iter(f"bus:process:{kind}:*", count=1000), None) is not None

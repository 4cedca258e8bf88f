"""PostgreSQL and two Valkeys, real servers out of wheels, in one data folder.

`retort up` and the tests own the processes: they start with `start()`, end with `stop()`, and end with us however we end.
The folder holds `secrets.json`, `postgres/`, `bus/`, `states/` and `logs/`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.embedded.account import Account, server_account
from app.embedded.child import Child
from app.embedded.errors import EmbeddedError
from app.embedded.postgres import Postgres
from app.embedded.secrets import Secrets
from app.embedded.valkey import BUS, STATES, Valkey

__all__ = ["APP_ROLE", "Account", "Child", "Embedded", "EmbeddedError", "Ports", "Postgres", "Secrets", "Valkey"]

APP_ROLE = "retort_app"


@dataclass(frozen=True, slots=True)
class Ports:
    postgres: int = 8462
    bus: int = 8463
    states: int = 8464


class Embedded:
    """The three servers of one data folder. The caller holds the folder's lock."""

    def __init__(self, data: Path, ports: Ports) -> None:
        self.data = data.absolute()
        self.data.mkdir(parents=True, exist_ok=True)
        cluster = self.data / "postgres" / "cluster"
        self.account = server_account(cluster)
        # The servers' account must pass through the folder to its own; nobody can list it, and the secrets are 0600.
        self.data.chmod(0o711 if self.account else 0o700)
        self.secrets = Secrets.of(self.data)
        secrets, account, logs = self.secrets, self.account, self.data / "logs"
        self.postgres = Postgres(
            self.data / "postgres", ports.postgres, secrets.postgres, log=logs / "postgres.log", account=account
        )
        self.bus = Valkey("bus", self.data / "bus", ports.bus, secrets.bus, BUS, log=logs / "bus.log", account=account)
        self.states = Valkey(
            "states", self.data / "states", ports.states, secrets.states, STATES, log=logs / "states.log", account=account
        )

    @property
    def admin_url(self) -> str:
        return self.postgres.url()

    @property
    def database_url(self) -> str:
        return self.postgres.url(role=APP_ROLE, password=self.secrets.application)

    def environment(self) -> dict[str, str]:
        """The `RETORT_…` variables by which processes reach these servers. The superuser's URL is not among them."""
        return {
            "RETORT_DATA": os.fspath(self.data),
            "RETORT_DATABASE_URL": self.database_url,
            "RETORT_BUS_URL": self.bus.url,
            "RETORT_STATES_URL": self.states.url,
            "RETORT_SECRET": self.secrets.visitor_tokens,
        }

    def start(self) -> None:
        """Start all three and wait until they answer. Raises EmbeddedError; what was started is stopped then."""
        try:
            self.postgres.prepare()
            self.postgres.start()
            for valkey in (self.bus, self.states):
                valkey.prepare()
                valkey.start()
            for server in (self.bus, self.states, self.postgres):
                server.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all three, PostgreSQL last."""
        for server in (self.states, self.bus, self.postgres):
            server.stop()

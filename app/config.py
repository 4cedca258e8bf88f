"""The one settings object, read from `RETORT_…` environment variables.

`retort up` writes these variables for every process it starts; in production they come from docker-compose.yml or
the owner's own deployment. `docs/operate.md` lists them all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from ipaddress import ip_network
from pathlib import Path

HERE = Path(__file__).parent
STATIC = HERE / "static"
PAGES = HERE / "frontend" / "pages"

# The shortest secret from which visitor tokens are signed: 256 bits, the size of the HMAC's key (RFC 7518, section 3.2).
SECRET_BYTES = 32


class SettingsError(ValueError):
    """A setting is missing or makes no sense; the message names the variable and says what to write."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a process may be told from outside. Each field is the variable `RETORT_` + its name in capitals."""

    database_url: str  # postgresql://retort_app:…@host/db: the role that row-level security binds
    bus_url: str  # redis://…: doorbells, events, Celery; noeviction
    states_url: str  # redis://…: parked states; may be lost at any time
    secret: str  # signs visitor tokens; at least 32 bytes
    admin_database_url: str = ""  # a superuser's URL, for `retort migrate` alone
    data: Path = Path(".retort")
    host: str = "127.0.0.1"
    visitor_port: int = 8460
    dashboard_port: int = 8461
    visitor_origin: str = ""  # as a browser sees it, e.g. https://ask.example.org; empty: http://host:visitor_port
    dashboard_origin: str = ""
    trusted_proxies: tuple[str, ...] = ()  # addresses and networks whose X-Forwarded-For names the visitor; empty: nobody's
    allow_private: tuple[str, ...] = ()  # exact host:port targets that the outbound client may reach though private
    generators: int = 1
    generator_slots: int = 4  # conversations that share one forward pass
    threads: int = 2  # of torch, in the generator
    queue_limit: int = 32  # answers waiting in all; beyond it a message is refused with 503
    log_format: str = "json"  # json, or console for people
    log_level: str = "info"
    model_precision: str = "auto"

    @property
    def visitor_url(self) -> str:
        return self.visitor_origin or f"http://{self.host}:{self.visitor_port}"

    @property
    def dashboard_url(self) -> str:
        return self.dashboard_origin or f"http://{self.host}:{self.dashboard_port}"

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read and check the environment.

        Raises SettingsError naming the variable, what it held (never a secret) and what it should hold.
        """
        env = os.environ if environment is None else environment
        given: dict[str, object] = {}
        for field in fields(cls):
            name = f"RETORT_{field.name.upper()}"
            raw = env.get(name)
            if raw is None or raw == "":
                continue
            given[field.name] = _parse(name, raw, str(field.type))
        for required in ("database_url", "bus_url", "states_url", "secret"):
            if required not in given:
                raise SettingsError(
                    f"RETORT_{required.upper()} is not set. `retort up` sets it for you; elsewhere see docs/operate.md."
                )
        settings = cls(**given)  # type: ignore[arg-type]
        settings._check()
        return settings

    def _check(self) -> None:
        if not re.match(r"postgres(ql)?(\+psycopg)?://", self.database_url):
            raise SettingsError("RETORT_DATABASE_URL must begin with postgresql://")
        for name in ("bus_url", "states_url"):
            if not re.match(r"(rediss?|unix|valkeys?)://", getattr(self, name)):
                raise SettingsError(f"RETORT_{name.upper()} must begin with redis://, rediss:// or unix://")
        if len(self.secret.encode()) < SECRET_BYTES:
            raise SettingsError(f"RETORT_SECRET must have at least {SECRET_BYTES} bytes; try: openssl rand -hex 32")
        if self.visitor_url == self.dashboard_url:
            raise SettingsError(
                "RETORT_VISITOR_ORIGIN and RETORT_DASHBOARD_ORIGIN must differ: visitors and members share no origin."
            )
        for name in ("visitor_origin", "dashboard_origin"):
            value = getattr(self, name)
            if value and not re.fullmatch(r"https?://[^/\s]+", value):
                raise SettingsError(f"RETORT_{name.upper()} must be an origin such as https://ask.example.org, without a path.")
        for target in self.allow_private:
            if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d+", target):
                raise SettingsError(f"RETORT_ALLOW_PRIVATE holds {target!r}; write host:port, several with commas.")
        for proxy in self.trusted_proxies:
            try:
                ip_network(proxy)
            except ValueError:
                raise SettingsError(
                    f"RETORT_TRUSTED_PROXIES holds {proxy!r}; write addresses or networks such as 10.0.0.2 or 172.18.0.0/16."
                ) from None
        if self.log_format not in ("json", "console"):
            raise SettingsError("RETORT_LOG_FORMAT must be json or console.")
        if self.generators < 1 or self.generator_slots < 1 or self.threads < 1 or self.queue_limit < 1:
            raise SettingsError("RETORT_GENERATORS, _GENERATOR_SLOTS, _THREADS and _QUEUE_LIMIT must be at least 1.")


def _parse(name: str, raw: str, kind: str) -> object:
    if kind == "int":
        try:
            return int(raw)
        except ValueError:
            raise SettingsError(f"{name} must be a whole number, not {raw!r}.") from None
    if kind == "Path":
        return Path(raw)
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    return raw


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings.load()

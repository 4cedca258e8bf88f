"""Which processes `retort up` runs, with which variables."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.config import Settings
from app.embedded import Child, Embedded, Ports
from app.operate import ROOT, Problem

FIRST_PORT = 8460
# In a row from the first: visitors, dashboard, PostgreSQL, bus, states.
PORT_NAMES = ("visitor", "dashboard", "postgres", "bus", "states")
PORT_MEANINGS = {"visitor": "visitors", "dashboard": "dashboard", "postgres": "PostgreSQL", "bus": "bus", "states": "states"}

# Below web and the generator, which lowers itself once it has loaded its models (nice, 0 to 19).
WORKER_NICENESS = 10
# What a visitor needs, and so what a start waits for. The rest is started after these, which load with both cores then.
FIRST_KINDS = ("web", "generator")

ALLOWED = "allow-private"
# Those that make outbound connections, or judge addresses that somebody gave.
OUTBOUND_KINDS = ("web", "worker-io", "worker-models")
OWN_SERVERS = ("RETORT_DATABASE_URL", "RETORT_BUS_URL", "RETORT_STATES_URL")


def chosen_ports(first: int | None, environment: Mapping[str, str]) -> dict[str, int]:
    """`--port` wins, then RETORT_VISITOR_PORT and its four siblings, then 8460 to 8464."""
    ports = {}
    for offset, name in enumerate(PORT_NAMES):
        variable = f"RETORT_{name.upper()}_PORT"
        written = environment.get(variable, "")
        if first is not None:
            ports[name] = first + offset
        elif written:
            if not written.isdigit():
                raise Problem(f"{variable} must be a port number, not {written!r}.")
            ports[name] = int(written)
        else:
            ports[name] = FIRST_PORT + offset
        if not 1 <= ports[name] <= 65535:
            raise Problem(f"There is no port {ports[name]} ({PORT_MEANINGS[name]}); choose a first port from 1024 to 65531.")
    if len(set(ports.values())) < len(ports):
        raise Problem(f"Each part needs a port of its own, but these are given: {', '.join(map(str, ports.values()))}.")
    return ports


def server_ports(ports: Mapping[str, int]) -> Ports:
    return Ports(ports["postgres"], ports["bus"], ports["states"])


def child_environment(servers: Embedded, ports: Mapping[str, int], environment: Mapping[str, str]) -> dict[str, str]:
    """What the processes are told: the caller's variables, and the RETORT_… that reach these servers."""
    env = {name: value for name, value in environment.items() if name != "RETORT_ADMIN_DATABASE_URL"}
    env |= servers.environment()
    env |= {"RETORT_VISITOR_PORT": str(ports["visitor"]), "RETORT_DASHBOARD_PORT": str(ports["dashboard"])}
    # The guide's own pages are served by this very machine: the crawler may reach them, and nothing else that is private.
    given = [part for part in env.get("RETORT_ALLOW_PRIVATE", "").split(",") if part.strip()]
    allowed = [*given, target_of(Settings.load(env).visitor_url), *allowed_private(servers.data)]
    env["RETORT_ALLOW_PRIVATE"] = ",".join(dict.fromkeys(allowed))
    env.setdefault("HF_HUB_OFFLINE", "1")
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    env.setdefault("TQDM_DISABLE", "1")
    env.setdefault("MALLOC_ARENA_MAX", "2")  # glibc's arenas would add tens of megabytes to each threaded process
    env["PYTHONUNBUFFERED"] = "1"
    return env


def target_of(url: str) -> str:
    """`host:port` of an address, as RETORT_ALLOW_PRIVATE wants it. Raises Problem when it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise Problem(f"{url!r} is no address of a website; it begins with http:// or https://.") from None
    if not parts.hostname:
        raise Problem(f"{url!r} names no host.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


def allowed_private(data: Path) -> list[str]:
    """The private targets that `retort add --allow-private` has admitted, one a line."""
    try:
        return (data / ALLOWED).read_text().split()
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class Planned:
    """A process to run. `kind` is the name under which it gives signs of life on the bus."""

    name: str
    kind: str
    child: Child


def planned(settings: Settings, environment: Mapping[str, str], logs: Path) -> list[Planned]:
    """Every process but the three servers, in the order of starting."""

    def make(
        name: str, kind: str, *arguments: str, niceness: int = 0, death_signal: int = signal.SIGTERM, **variables: str
    ) -> Planned:
        child = Child(
            name,
            [sys.executable, "-m", *arguments],
            log=logs / f"{name}.log",
            environment={**environment, **variables},
            folder=ROOT,
            stop_signal=signal.SIGTERM,
            death_signal=death_signal,
            niceness=niceness,
        )
        return Planned(name, kind, child)

    celery = ("celery", "-A", "workers.celery", "worker", "--without-gossip", "--without-mingle", "--loglevel", "INFO")
    threads = os.environ.get("OMP_NUM_THREADS", str(settings.threads))
    plan = [make("web", "web", "app.asgi")]
    for number in range(1, settings.generators + 1):
        name = "generator" if settings.generators == 1 else f"generator-{number}"
        plan.append(make(name, "generator", "workers.generate", OMP_NUM_THREADS=threads))
    # When `retort up` is killed the bus dies too, and a worker told to finish would wait for it for ever: workers are killed
    # then (what they were to do stands in SQL). Stopped in order they have their time: under prefork SIGTERM, turned into
    # SIGQUIT, hands a running task back to its queue at once; under solo it would be lost, so there it is finished.
    plan.append(
        make(
            "worker-io", "worker-io", *celery, "-Q", "io,tidy", "--pool", "prefork", "--concurrency", "2", "-n", "io@%h",
            niceness=WORKER_NICENESS, death_signal=signal.SIGKILL, REMAP_SIGTERM="SIGQUIT", OMP_NUM_THREADS="1",
        )
    )  # fmt: skip
    plan.append(make("beat", "beat", "celery", "-A", "workers.celery", "beat", "-S", "redbeat.RedBeatScheduler", "--pidfile="))
    plan.append(
        make(
            "worker-models", "worker-models", *celery, "-Q", "models,tidy", "--pool", "solo", "-n", "models@%h",
            niceness=WORKER_NICENESS, death_signal=signal.SIGKILL, OMP_NUM_THREADS="1",
        )
    )  # fmt: skip
    return plan

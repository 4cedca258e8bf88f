"""What a command does with the Retort that runs on this machine, or with the one its variables name."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping

import redis

from app.config import Settings
from app.embedded import APP_ROLE, Secrets
from app.embedded.postgres import DATABASE
from app.embedded.secrets import write_private
from app.operate import Problem
from app.operate.checks import data_folder
from app.operate.plan import ALLOWED, allowed_private, target_of
from app.operate.supervisor import read_record

ADMIT_SECONDS = 60.0
# Their names on the bus carry the host's, so one that hangs is not excused by another that lives.
NAMED_BY_HOST = ("web", "worker-io", "worker-models", "generator")


def settings_here(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment, or of the `retort up` that runs on this data folder."""
    env = os.environ if environment is None else environment
    if env.get("RETORT_DATABASE_URL"):
        return Settings.load(env)
    data = data_folder(env)
    record = read_record(data)
    ports = record.get("ports")
    if not isinstance(ports, dict):
        raise Problem(f"Retort does not run on {data}; start it with `make up`, or set the variables of docs/operate.md.")
    secrets = Secrets.of(data)
    host = "127.0.0.1"
    return Settings.load(
        {
            "RETORT_DATA": str(data),
            "RETORT_DATABASE_URL": f"postgresql://{APP_ROLE}:{secrets.application}@{host}:{ports['postgres']}/{DATABASE}",
            "RETORT_BUS_URL": f"redis://:{secrets.bus}@{host}:{ports['bus']}/0",
            "RETORT_STATES_URL": f"redis://:{secrets.states}@{host}:{ports['states']}/0",
            "RETORT_SECRET": secrets.visitor_tokens,
            "RETORT_VISITOR_ORIGIN": str(record["visitor"]),
            "RETORT_DASHBOARD_ORIGIN": str(record["dashboard"]),
        }
    )


def is_alive(settings: Settings, kind: str) -> bool:
    """Whether a process of this kind on this host has renewed its sign of life (web: and answers)."""
    with redis.Redis.from_url(settings.bus_url, socket_timeout=5, socket_connect_timeout=5) as bus:
        try:
            names = [key.decode() for key in bus.scan_iter(match=f"bus:process:{kind}:*", count=1000)]
        except redis.RedisError:
            return False
    return any(socket.gethostname() in name for name in names) if kind in NAMED_BY_HOST else bool(names)


def admit(url: str, environment: Mapping[str, str] | None = None) -> bool:
    """Let the Retort of this machine read a private address: whoever owns its data folder may. False: it could already.

    Web and workers are started anew with the longer list; this waits for it.
    """
    env = os.environ if environment is None else environment
    target = target_of(url)
    if env.get("RETORT_URL"):
        raise Problem(f"--allow-private is for a Retort on this machine; where it runs, set RETORT_ALLOW_PRIVATE={target}.")
    data = data_folder(env)
    record = read_record(data)
    if not record:
        raise Problem(f"Retort does not run on {data}; start it with `make up`.")
    if target in _allowed(record):
        return False
    write_private(data / ALLOWED, "".join(f"{one}\n" for one in dict.fromkeys([*allowed_private(data), target])))
    try:
        os.kill(int(str(record["pid"])), signal.SIGUSR1)
    except (ProcessLookupError, PermissionError) as error:
        raise Problem(f"Retort (pid {record['pid']}) cannot be told about {target} ({error.strerror}).") from None
    until = time.monotonic() + ADMIT_SECONDS
    while target not in _allowed(read_record(data)):
        if time.monotonic() > until:
            raise Problem(f"Retort did not take up {target} within {ADMIT_SECONDS:.0f} s; see what `retort up` prints.")
        time.sleep(0.1)
    return True


def _allowed(record: Mapping[str, object]) -> list[str]:
    return str(record.get("allowed", "")).split(",")

"""The embedded servers keep what they were given, whatever ends them."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from app.embedded import Child, Embedded, EmbeddedError, Ports, child
from app.embedded.secrets import Secrets
from tests.conftest import free_ports


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' own account may pass through, which pytest's may not be."""
    path = Path(tempfile.mkdtemp(prefix="retort-embedded-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def servers(folder: Path) -> Iterator[Embedded]:
    embedded = Embedded(folder / "data", Ports(*free_ports(3)))
    embedded.start()
    yield embedded
    embedded.stop()


@pytest.mark.faults
def test_committed_rows_and_queued_jobs_survive_kill_9(servers):
    with psycopg.connect(servers.admin_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    with redis.Redis.from_url(servers.bus.url) as bus:
        bus.rpush("queue", *range(100))
        # appendfsync everysec: what is older than a second is on disk; kill -9 alone loses not even that second.
    servers.postgres.kill()
    servers.bus.kill()
    servers.postgres.start()
    servers.bus.start()
    servers.postgres.wait_ready()
    servers.bus.wait_ready()
    with psycopg.connect(servers.admin_url) as connection:
        assert connection.execute("SELECT count(*), sum(n) FROM kept").fetchone() == (1000, 500500)
    with redis.Redis.from_url(servers.bus.url) as bus:
        assert bus.lrange("queue", 0, -1) == [str(n).encode() for n in range(100)]


def test_a_postmaster_pid_of_somebody_else_does_not_keep_postgres_from_starting(servers):
    servers.postgres.kill()
    path = servers.postgres.cluster / "postmaster.pid"
    lines = path.read_text().splitlines()
    lines[0] = str(os.getpid())
    path.write_text("\n".join(lines) + "\n")
    servers.postgres.start()
    servers.postgres.wait_ready(20)
    with psycopg.connect(servers.admin_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_secrets_are_private_and_stay_the_same(servers):
    path = servers.data / "secrets.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Secrets.of(servers.data) == servers.secrets
    configuration = servers.bus.folder / "valkey.conf"
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    for server in (servers.postgres, servers.bus, servers.states):
        shown = " ".join(psutil.Process(server.child.pid).cmdline())
        assert not any(secret in shown for secret in (servers.secrets.postgres, servers.secrets.bus, servers.secrets.states))


def test_the_servers_listen_on_this_machine_alone(servers):
    for server in (servers.postgres, servers.bus, servers.states):
        listening = [c for c in psutil.Process(server.child.pid).net_connections("all") if c.status == psutil.CONN_LISTEN]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the servers to another account")
def test_under_root_the_servers_run_without_its_rights(servers):
    for server in (servers.postgres, servers.bus, servers.states):
        assert psutil.Process(server.child.pid).uids().real != 0


def test_data_of_another_major_version_is_refused_in_one_line(servers):
    servers.stop()
    (servers.postgres.cluster / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 17, this release has 18.*pg_dump") as told:
        servers.start()
    assert "\n" not in str(told.value)


def test_lost_secrets_are_named_instead_of_a_hanging_start(servers, folder):
    servers.stop()
    (servers.data / "secrets.json").unlink()
    again = Embedded(servers.data, Ports(servers.postgres.port, servers.bus.port, servers.states.port))
    with pytest.raises(EmbeddedError, match=r"secrets\.json is not the one"):
        again.start()
    assert not any(server.child.running for server in (again.postgres, again.bus, again.states))


def test_logs_are_for_their_owner_alone_even_those_of_an_earlier_release(tmp_path, monkeypatch):
    log = tmp_path / "logs" / "web.log"
    for large in (False, True):
        if large:
            monkeypatch.setattr(child, "LOG_BYTES", 2)
            log.chmod(0o644)
        one = Child("web", [sys.executable, "-c", "print('said')"], log=log)
        one.start()
        assert one.wait(20) and one.last_words() == "said"
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.with_suffix(".log.1").stat().st_mode) == 0o600


OWNER = """
import sys, time
from pathlib import Path
from app.embedded import Embedded, Ports
servers = Embedded(Path(sys.argv[1]), Ports(*map(int, sys.argv[2:])))
servers.start()
print(servers.postgres.child.pid, servers.bus.child.pid, servers.states.child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.faults
def test_no_server_outlives_an_owner_that_is_killed(folder):
    command = [sys.executable, "-c", OWNER, str(folder / "data"), *map(str, free_ports(3))]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 3
    children = [psutil.Process(pid) for pid in pids]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until = time.monotonic() + 10
    while time.monotonic() < until and any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        time.sleep(0.05)
    gone = [not child.is_running() or child.status() == psutil.STATUS_ZOMBIE for child in children]
    assert gone == [True, True, True]

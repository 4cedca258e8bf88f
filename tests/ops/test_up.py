"""`retort up` as a newcomer runs it, with everything real: started, broken, killed, started again, stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.operate import ROOT
from tests.ops.test_obstacles import first_port  # noqa: F401 - a fixture

READY = "Ctrl-C stops everything."
STOP_SECONDS = 12.0
# A bound on a busy machine of two cores; how fast it is elsewhere is told by `retort bench`.
START_SECONDS = 150.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(420)]


class Up:
    """One `retort up` on a folder of its own."""

    def __init__(self, data: Path, port: int) -> None:
        self.data = data
        self.port = port
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RETORT_")}
        self.environment |= {"RETORT_DATA": str(data), "RETORT_THREADS": "1"}
        self.output = data.parent / "output.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start, wait until it is ready, and give back what it printed."""
        command = [sys.executable, "-m", "app.cli", "up", "--port", str(self.port)]
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=file, stderr=subprocess.STDOUT)
        until = time.monotonic() + START_SECONDS
        while READY not in (text := self.output.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() < until, text
            time.sleep(0.1)
        return text

    def record(self) -> dict[str, Any]:
        return json.loads((self.data / "run.json").read_text())

    def processes(self) -> list[psutil.Process]:
        """Everything below the supervisor."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def retort(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


@pytest.fixture
def up(first_port: int) -> Iterator[Up]:  # noqa: F811
    folder = Path(tempfile.mkdtemp(prefix="retort-up-"))
    folder.chmod(0o711)
    one = Up(folder / "data", first_port)
    yield one
    if one.process is not None:
        one.process.terminate()
        try:
            one.process.wait(20)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_newcomer_starts_it_asks_breaks_it_and_loses_nothing(up):
    first = up.start()
    addresses = re.findall(r"https?://\S+", first[first.index("Retort is ready") :])
    demo, full, dashboard = addresses
    for address in (demo, full, dashboard):
        assert httpx.get(address, headers={"Accept": "text/html"}, timeout=10).status_code == 200, address
    token = dashboard.partition("#token=")[2]
    signed_in = httpx.post(f"http://127.0.0.1:{up.port + 1}/api/v1/sign-in/link", json={"token": token})
    assert signed_in.status_code == 200 and signed_in.json()["member"]["role"] == "owner"
    assert "passages" in first

    _the_command_line_works(up)
    _a_process_that_dies_comes_back(up)

    # Killed without warning: nothing of it stays behind, and the next start has everything.
    everything = up.processes()
    assert len(everything) > 7
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    assert wait_until(lambda: gone(everything), 12), [one for one in everything if one.is_running()]
    second = up.start()
    assert "Preparing the workspace (found" in second and "Reading the documentation" not in second
    answer = json.loads(up.retort("ask", "Which ports does Retort use?", "--assistant", "guide", "--json").stdout)
    assert answer["evidence"]

    # Stopped in order, within ten seconds, with exit code 0.
    everything = up.processes()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(STOP_SECONDS) == 0
    assert gone(everything)
    assert not (up.data / "run.json").exists()


def _the_command_line_works(up: Up) -> None:
    done = up.retort("ask", "Which ports does Retort use?", "--assistant", "guide", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert list(answer) == [
        "conversation_id", "message_id", "answer", "wording", "evidence", "citations", "refused", "ttft_ms", "total_ms", "tokens",
    ]  # fmt: skip
    assert answer["refused"] is False and answer["evidence"] and answer["citations"]
    assert all(list(one) == ["text", "url", "title"] for one in answer["evidence"])
    assert all(list(one) == ["url", "title", "passage"] for one in answer["citations"])
    assert all(quote["text"] in answer["answer"] for quote in answer["evidence"])
    assert 0 < answer["ttft_ms"] <= answer["total_ms"]
    _the_question_is_followed_through_both_logs(up, answer["message_id"], answer["conversation_id"])
    again = up.retort("ask", "And how do I change them?", "--conversation", answer["conversation_id"], "--json")
    assert json.loads(again.stdout)["conversation_id"] == answer["conversation_id"]

    site = f"http://127.0.0.1:{up.port}/guide-docs/"
    added = up.retort("add", site, "--assistant", "guide", "--wait", "--json")
    assert added.returncode == 0, added.stderr
    source = json.loads(added.stdout)
    assert source["status"] == "read" and source["counts"]["passages"] > 0
    assert {page["url"] for page in source["pages"]} >= {site}
    for wrong, told in (("not an address", "retort: "), ("http://127.0.0.1:9/", "retort: ")):
        for assistant in ("guide", "not-yet-there"):
            refused = up.retort("add", wrong, "--assistant", assistant)
            assert refused.returncode == 1 and refused.stderr.startswith(told) and refused.stderr.count("\n") == 1
    made = up.retort("add", site + "content.html", "--assistant", "another-one", "--json")
    assert made.returncode == 0 and "Made the assistant “Another one” (another-one)." in made.stderr
    refused = up.retort("add", site, "--assistant", "No Slug")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "slug" in refused.stderr

    examined = up.retort("doctor", "--json")
    findings = {one["part"]: one for one in json.loads(examined.stdout)}
    assert [one for one in findings.values() if one["good"] is False] == []
    owner = up.retort("owner", "owner@retort.localhost")
    assert owner.returncode == 0 and "/sign-in#token=" in owner.stdout


def _the_question_is_followed_through_both_logs(up: Up, message: str, conversation: str) -> None:
    """The call that asked, the conversation and the answer have the same ids in the web process and in the generator."""

    def lines(name: str) -> list[dict[str, Any]]:
        file = up.data / "logs" / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        read = (json.loads(line) for line in file.read_text().splitlines() if line.startswith("{"))
        return [line for line in read if line.get("message_id") == message and line.get("request_id")]

    (asked,) = [line for line in lines("web.log") if line["path"].endswith("/messages")]
    answered = next(line for line in lines("generator.log") if line["event"] == "answered")
    assert asked["request_id"] == answered["request_id"]
    assert asked["conversation_id"] == answered["conversation_id"] == conversation


def _a_process_that_dies_comes_back(up: Up) -> None:
    before = up.record()["children"]
    for name in ("web", "states"):
        os.kill(before[name]["pid"], signal.SIGKILL)
    assert wait_until(
        lambda: (
            {"web", "states"} <= set(up.record()["children"])
            and all(up.record()["children"][name]["pid"] != before[name]["pid"] for name in ("web", "states"))
        ),
        20,
    )
    told = up.output.read_text()
    assert re.search(r"web ended \(signal 9\); it starts again in 0\.5 s\. Log: \S+web\.log", told)

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{up.port + 1}/health/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    assert wait_until(ready, 20)

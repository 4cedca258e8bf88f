"""`retort up`: everything on this machine, from the checks to the three addresses, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import psycopg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.config import Settings
from app.db.migrate import migrate
from app.embedded import Embedded
from app.operate import Problem, checks, install
from app.operate.add import add_source, follow_source
from app.operate.client import Api
from app.operate.output import Output
from app.operate.plan import (
    FIRST_KINDS,
    OUTBOUND_KINDS,
    OWN_SERVERS,
    PORT_MEANINGS,
    child_environment,
    chosen_ports,
    planned,
    server_ports,
)
from app.operate.supervisor import Supervisor, end_leftovers

READY_SECONDS = 120.0  # importing torch takes 3 to 7 s on a fast disk, a minute on a cold slow one
DOCS_SECONDS = 60.0  # without another page finished; the reading goes on by itself then


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. No Exception: nothing on the way may mistake it for a failure."""


class Interrupts:
    """The first signal unwinds what is being done, the second hurries the stopping."""

    def __init__(self) -> None:
        self.stopping = False
        self.hurried = False
        self.renew = False  # SIGUSR1: `retort add --allow-private` has admitted a target

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._received)
        signal.signal(signal.SIGUSR1, self._asked_to_renew)

    def _asked_to_renew(self, _number: int, _frame: FrameType | None) -> None:
        self.renew = True

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            self.hurried = True
            return
        self.stopping = True
        raise Stopped


def up(port: int | None, output: Output) -> None:
    """Run until a signal comes. Raises Problem; whatever was started is stopped by then."""
    interrupts = Interrupts()
    interrupts.install()
    supervisor: Supervisor | None = None
    lock: checks.DataLock | None = None
    try:
        ports, data = _check(port, output)
        lock = checks.DataLock(data)
        lock.take()
        if left := end_leftovers(data):
            output.line(f"Ended {left} processes that an earlier Retort left behind.")
        checks.check_ports("127.0.0.1", {PORT_MEANINGS[name]: number for name, number in ports.items()})
        servers = Embedded(data, server_ports(ports))
        supervisor = Supervisor(servers, output.line)
        _run(supervisor, servers, ports, interrupts, output)
    except Stopped:
        pass
    finally:
        interrupts.stopping = True
        if supervisor is not None:
            with output.step("Stopping"):
                supervisor.stop(lambda: interrupts.hurried)
        if lock is not None:
            lock.release()


def _check(port: int | None, output: Output) -> tuple[dict[str, int], Path]:
    given = [name for name in OWN_SERVERS if os.environ.get(name)]
    if given:
        raise Problem(
            f"{given[0]} is set, but `retort up` runs servers of its own: unset it, "
            "or start the processes one by one as docker-compose.yml does."
        )
    with output.step("Checking the environment"):
        checks.check_environment()
        ports = chosen_ports(port, os.environ)
        data, note = checks.choose_data_folder()
        checks.check_disk(data)
    if note:
        output.line(note)
    return ports, data


def _run(supervisor: Supervisor, servers: Embedded, ports: dict[str, int], interrupts: Interrupts, output: Output) -> NoReturn:
    settings, installation = _start(supervisor, servers, ports, output)
    docs = settings.visitor_url + "/guide-docs/"
    if installation.created or not (settings.data / install.READ_DOCS).exists():
        _read_docs_now(supervisor, settings, installation.api_key, docs, output)
    elif not install.docs_were_read(settings.data, docs):
        _read_docs_beside(settings, installation.api_key, docs, output, interrupts)
    supervisor.starting = False
    _print_addresses(settings, installation.sign_in_token, servers, output)
    while True:
        supervisor.tick()
        if interrupts.renew:
            interrupts.renew = False
            _admit(supervisor, servers, ports, output)
        time.sleep(0.25)


def _admit(supervisor: Supervisor, servers: Embedded, ports: dict[str, int], output: Output) -> None:
    """Tell web and workers which private targets the crawler may reach now."""
    environment = child_environment(servers, ports, os.environ)
    allowed = environment["RETORT_ALLOW_PRIVATE"]
    supervisor.renew(OUTBOUND_KINDS, {"RETORT_ALLOW_PRIVATE": allowed})
    supervisor.wait_for(lambda: _answers(Settings.load(environment)), READY_SECONDS, "web")
    supervisor.describe(allowed=allowed)
    output.line(f"Web and workers were started anew; private targets that may be read: {allowed}")


def _start(
    supervisor: Supervisor, servers: Embedded, ports: dict[str, int], output: Output
) -> tuple[Settings, install.Installation]:
    """Servers, schema, workspace and processes."""
    with output.step("Starting PostgreSQL and Redis (bus, states)"):
        servers.start()
        supervisor.adopt_servers()
    with output.step("Migrating the database"):
        try:
            migrate(servers.admin_url, servers.database_url)
        except psycopg.Error as error:
            raise Problem(f"The database cannot be migrated: {' '.join(str(error).split())}") from error
    environment = child_environment(servers, ports, os.environ)
    settings = Settings.load(environment)
    with output.step("Preparing the workspace") as step:
        owner = os.environ.get("RETORT_OWNER_EMAIL") or install.OWNER_EMAIL
        installation = asyncio.run(install.install(settings, owner))
        step.result = "made" if installation.created else "found"
    plan = planned(settings, environment, servers.data / "logs")
    supervisor.describe(
        dashboard=settings.dashboard_url,
        visitor=settings.visitor_url,
        api=_local(settings),
        ports=ports,
        allowed=environment["RETORT_ALLOW_PRIVATE"],
    )
    with output.step("Starting web, generator, worker and beat") as step:
        supervisor.start(one for one in plan if one.kind in FIRST_KINDS)
        supervisor.wait_for(lambda: _answers(settings), READY_SECONDS, "web")
        step.detail("web answers, the generator loads its model")
        supervisor.wait_for(
            lambda: supervisor.alive(["generator"])["generator"] >= settings.generators, READY_SECONDS, "generator"
        )
        # Last, so that they do not take the generator's processor while that loads; nothing but new pages waits for them.
        supervisor.start(one for one in plan if one.kind not in FIRST_KINDS)
    return settings, installation


def _answers(settings: Settings) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{_local(settings)}/health/ready", timeout=2, trust_env=False).status_code == 200
    return False


def _local(settings: Settings) -> str:
    """The dashboard as this machine reaches it, whatever name visitors use."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.dashboard_port}"


@contextmanager
def _bar(output: Output) -> Iterator[Progress | None]:
    if not output.console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.console, transient=True) as progress:
        yield progress


def _read_docs_now(supervisor: Supervisor, settings: Settings, key: str, docs: str, output: Output) -> None:
    """The first start: the guide knows nothing yet, so wait until it does. A failure is told and does not stop the rest."""
    read_hash = install.docs_hash()
    with Api(_local(settings), key) as api, _bar(output) as progress:
        began = moved = time.monotonic()
        last = -1
        output.line("Reading the documentation for the Retort guide")
        bar = progress.add_task("  pages", total=None) if progress else None

        def on_progress(source: dict) -> None:
            nonlocal moved, last
            counts = source["counts"]
            finished = sum(counts[name] for name in ("read", "unchanged", "skipped", "failed"))
            if progress and bar is not None:
                progress.update(bar, total=counts["found"] or None, completed=finished)
            if finished != last:
                last, moved = finished, time.monotonic()
            elif time.monotonic() - moved > DOCS_SECONDS:
                raise Problem(f"no page was finished for {DOCS_SECONDS:.0f} s; see the logs of the workers")

        def on_page(page: dict) -> None:
            what = f"{page['passages']} passages" if page["status"] in ("read", "unchanged") else page["reason"] or page["status"]
            output.line(f"  {page['title'] or page['url']}: {what}")

        def wait(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                supervisor.tick()
                time.sleep(0.1)

        try:
            source = add_source(api, docs, install.GUIDE, title="Retort documentation")
            source = follow_source(api, source["id"], on_page=on_page, on_progress=on_progress, wait=wait)
        except Problem as problem:
            output.line(f"The documentation could not be read ({problem}); it is tried again at the next start.")
            return
    if source["status"] == "failed":
        output.line(f"The documentation could not be read ({source['reason']}); it is tried again at the next start.")
        return
    install.note_docs_read(settings.data, docs, read_hash)
    output.line(f"  {source['counts']['passages']} passages in {time.monotonic() - began:.0f} s")


def _read_docs_beside(settings: Settings, key: str, docs: str, output: Output, interrupts: Interrupts) -> None:
    """The docs have changed since they were read: read them again while everything else works. Starts no process.

    A source that the owner has removed stays away.
    """
    read_hash, before = install.docs_hash(), install.docs_note(settings.data).get("url")

    def read() -> None:
        try:
            with Api(_local(settings), key) as api:
                # The address as it was read: another port gives this machine's pages another one.
                if not any(source["url"] == before for source in api.pages("/api/v1/sources")):
                    install.note_docs_read(settings.data, docs, read_hash, removed=True)
                    return
                source = follow_source(api, add_source(api, docs, install.GUIDE)["id"])
        except Problem as problem:
            if not interrupts.stopping:
                output.line(f"The changed documentation could not be read ({problem}); it is tried again at the next start.")
            return
        if source["status"] == "read":
            install.note_docs_read(settings.data, docs, read_hash)
            output.line("The guide has read the changed documentation.")

    threading.Thread(target=read, name="guide-docs", daemon=True).start()


def _print_addresses(settings: Settings, token: str, servers: Embedded, output: Output) -> None:
    output.line("")
    output.line("Retort is ready.")
    output.line(f"  demo page   {settings.visitor_url}/demo/{install.GUIDE}")
    output.line(f"  full page   {settings.visitor_url}/a/{install.GUIDE}")
    output.line(f"  dashboard   {settings.dashboard_url}/sign-in#token={token}")
    output.line(f"Data and logs are in {servers.data}. Ctrl-C stops everything.")

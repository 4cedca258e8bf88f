"""`retort bench answer`: how fast answers reach a reader, how many there are a minute, and what it costs in memory.

Everything is timed at the reader, over the visitors' API and its event stream. Measures the Retort that runs, or starts
one of its own; the load comes from this machine, goes to 127.0.0.1 or to RETORT_URL, and ends by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import psutil

from benchmarks import _report as report
from benchmarks._pages import LocalSite
from benchmarks._stack import Target, own_stack, resident_mb, running, whole_mb
from benchmarks._visitor import Answered, Thread, token

# Answered by docs/, which the guide has read. Worded as people ask.
QUESTIONS = (
    "Which ports does Retort use?",
    "How do I stop Retort?",
    "How do I put the assistant on my website?",
    "What does the evidence gate do?",
    "Where is the data stored?",
    "How do I make a backup?",
    "What is a passage?",
    "Does it read PDF files?",
    "Why was a page skipped?",
    "How large is the state of a conversation?",
    "What happens when a generator dies?",
    "How is robots.txt respected?",
    "What does the verifier check?",
    "Which header must my Content Security Policy allow?",
    "How do I add a website?",
    "What is gated decay?",
    "How do I remove Retort again?",
    "Can several generators run at once?",
    "What is the mode evidence?",
    "How long is a visitor token valid?",
)
VISITORS = 16  # tokens; each may post 20 messages at once
QUEUE_LIMIT = 32  # RETORT_QUEUE_LIMIT's default
PROBES = 8  # messages sent while the queue is full


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    asked: int  # questions of one visitor
    levels: tuple[int, ...]  # readers at once, while the capacity is looked for
    level_s: float
    sustained_s: float  # at 80 % of the capacity
    pages: int


FULL = Size(asked=40, levels=(1, 2, 4, 8, 16), level_s=20.0, sustained_s=60.0, pages=40)
QUICK = Size(asked=6, levels=(1, 4), level_s=3.0, sustained_s=4.0, pages=5)


class Readers:
    """Visitors who each ask in a fresh conversation, taking turns with the tokens."""

    def __init__(self, client: httpx.AsyncClient, tokens: list[str]) -> None:
        self.client = client
        self._tokens = itertools.cycle(tokens)
        self._questions = itertools.cycle(QUESTIONS)

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target, assistant: str) -> AsyncIterator[Readers]:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
        async with httpx.AsyncClient(base_url=target.visitor, timeout=30, limits=limits, trust_env=False) as client:
            yield cls(client, [await token(client, assistant) for _ in range(VISITORS)])

    async def thread(self) -> Thread:
        thread = Thread(self.client, next(self._tokens))
        await thread.begin()
        return thread

    async def ask(self) -> Answered:
        return await (await self.thread()).ask(next(self._questions))


async def one_visitor(readers: Readers, count: int) -> list[Answered]:
    return [await readers.ask() for _ in range(count)]


async def at_once(readers: Readers, readers_count: int, seconds: float) -> tuple[float, list[Answered]]:
    """Closed loop: so many readers, each asking again when its answer has ended. Gives answers a minute, and all answers."""
    began = time.perf_counter()
    results: list[Answered] = []

    async def read() -> None:
        while time.perf_counter() - began < seconds:
            results.append(await readers.ask())

    await asyncio.gather(*(read() for _ in range(readers_count)))
    return sum(r.answered for r in results) / (time.perf_counter() - began) * 60, results


async def at_rate(readers: Readers, per_minute: float, seconds: float) -> list[Answered]:
    """Open loop: a question every 60 / per_minute seconds, whether or not earlier ones are answered."""
    tasks = []
    for _ in range(max(1, int(per_minute * seconds / 60))):
        tasks.append(asyncio.create_task(readers.ask()))
        await asyncio.sleep(60 / per_minute)
    return list(await asyncio.gather(*tasks))


async def overfull(readers: Readers) -> tuple[list[float], int]:
    """Fill the queue, then ask a few times more: how long each refusal took, and how many of the probes were taken in."""
    threads = [await readers.thread() for _ in range(QUEUE_LIMIT + PROBES + 8)]
    filling, probing = threads[:-PROBES], threads[-PROBES:]
    taken = await asyncio.gather(*(t.ask(q, follow=False) for t, q in zip(filling, itertools.cycle(QUESTIONS), strict=False)))
    refusals: list[float] = []
    accepted = 0
    for thread in probing:
        probe = await thread.ask(QUESTIONS[0], follow=False)
        if probe.refused_after_s is not None and probe.status == 503:
            refusals.append(probe.refused_after_s)
        else:
            accepted += 1
            await thread.stop(probe.message_id)
    for thread, answer in zip(filling, taken, strict=True):
        if answer.message_id:
            await thread.stop(answer.message_id)
    return refusals, accepted


def seconds_of(results: list[Answered], name: str) -> list[float]:
    return [value for result in results if (value := getattr(result, name)) is not None]


class Mode:
    """Switches the measured assistant to evidence alone, and back."""

    def __init__(self, target: Target, assistant: str) -> None:
        self.client = httpx.Client(
            base_url=target.dashboard, headers={"Authorization": f"Bearer {target.key}"}, timeout=10, trust_env=False
        )
        self.path = f"/api/v1/assistants/{assistant}"

    def set(self, mode: str) -> None:
        self.client.patch(self.path, json={"mode": mode}).raise_for_status()


async def measure_answers(target: Target, size: Size, assistant: str, switch: bool, table: report.Report) -> None:
    async with Readers.open(target, assistant) as readers:
        await readers.ask()  # the first answer warms caches; it is what the start is measured by
        alone: list[Answered] = []
        if switch:
            mode = Mode(target, assistant)
            mode.set("evidence")
            try:
                alone = await one_visitor(readers, size.asked // 2)
            finally:
                mode.set("wording")
        one = await one_visitor(readers, size.asked)
        _rows_of_one(one, alone, table)
        await _measure_load(readers, size, table)


def _rows_of_one(one: list[Answered], alone: list[Answered], table: report.Report) -> None:
    evidence, sentence = seconds_of(one, "evidence_s"), seconds_of(one, "sentence_s")
    peer = {"peer": "evidence alone", "peer_value": report.median(seconds_of(alone, "evidence_s"))} if alone else {}
    table.add("evidence shown, one visitor, median", report.median(evidence), "s", goal=0.4, **peer)
    table.add("first verified sentence, one visitor, median", report.median(sentence), "s", goal=1.5)
    table.add("first verified sentence, one visitor, p95", report.quantile(sentence, 0.95), "s", goal=3.0)
    peer = {"peer": "evidence alone", "peer_value": report.median(seconds_of(alone, "done_s"))} if alone else {}
    table.add("answer complete, one visitor, median", report.median(seconds_of(one, "done_s")), "s", **peer)
    grounded = [r for r in one if r.answered and not r.message.get("refused")]
    share = sum(r.worded for r in grounded) / len(grounded) if grounded else None
    table.add("answers with wording among those with evidence", share, "")
    table.add("refused although the pages answer", sum(bool(r.message.get("refused")) for r in one) / len(one), "")
    table.add("answers that did not end well, one visitor", float(sum(not r.answered for r in one)), "", goal=0)


async def _measure_load(readers: Readers, size: Size, table: report.Report) -> None:
    capacity, best = 0.0, 1
    for level in size.levels:
        rate, results = await at_once(readers, level, size.level_s)
        table.notes.append(
            f"{level} readers at once: {rate:.0f} answers a minute, evidence p95 "
            f"{report.quantile(seconds_of(results, 'evidence_s'), 0.95) or 0:.2f} s, "
            f"{sum(r.ending == 'refused' for r in results)} refused"
        )
        if rate > capacity:
            capacity, best = rate, level
    table.add(f"capacity (at {best} readers at once)", capacity, "answers/min")
    held = await at_rate(readers, capacity * 0.8, size.sustained_s)
    table.add("first sentence at 80 % of capacity, p95", report.quantile(seconds_of(held, "sentence_s"), 0.95), "s", goal=5.0)
    table.add("evidence at 80 % of capacity, p95", report.quantile(seconds_of(held, "evidence_s"), 0.95), "s")
    table.add("lost or failed at 80 % of capacity", float(sum(r.ending in ("lost", "failed") for r in held)), "", goal=0)
    refusals, accepted = await overfull(readers)
    note = f"{len(refusals)} of {len(refusals) + accepted} refused"
    table.add("a message to a full queue is answered with 503 in, p95", report.quantile(refusals, 0.95), "s", goal=0.1, note=note)


def measure_crawl(target: Target, site: LocalSite, assistant: str, table: report.Report) -> None:
    """Add the site, wait until it is read, take it away again."""
    name = f"page crawled to searchable, average of {len(site.pages) - 1}"
    with httpx.Client(
        base_url=target.dashboard, headers={"Authorization": f"Bearer {target.key}"}, timeout=30, trust_env=False
    ) as api:
        began = time.perf_counter()
        added = api.post("/api/v1/sources", json={"kind": "website", "url": site.url, "assistant": assistant})
        if added.status_code == 422:
            note = f"not measured: start Retort with RETORT_ALLOW_PRIVATE=127.0.0.1:{site.port} and give --site-port {site.port}"
            table.add(name, None, "s", goal=0.5, note=note)
            return
        added.raise_for_status()
        path = f"/api/v1/sources/{added.json()['id']}"
        source = added.json()
        while source["status"] not in ("read", "failed") and time.perf_counter() - began < 180:
            time.sleep(0.05)
            source = api.get(path).json()
        took = time.perf_counter() - began
        counts = source["counts"]
        api.delete(path)
    if source["status"] != "read" or not counts["read"]:
        table.add(name, None, "s", goal=0.5, note=f"{source['status']}: {source['reason']}")
        return
    table.add(name, took / counts["read"], "s", goal=0.5, note=f"{counts['passages']} passages")


def measure_memory(target: Target, when: str, table: report.Report) -> None:
    try:
        table.add(f"memory of web, {when} (RSS)", resident_mb(target.child("web")), "MB", goal=200)
        table.add(f"memory of everything, {when} (PSS)", whole_mb(target.root), "MB", goal=2500)
    except psutil.NoSuchProcess:
        table.notes.append("A process ended while memory was measured.")


async def first_answer(target: Target, assistant: str, began: float) -> float:
    """Seconds from `began` to the first answer that rests on evidence."""
    async with httpx.AsyncClient(base_url=target.visitor, timeout=30, trust_env=False) as client:
        visitor_token = await token(client, assistant)
        while time.monotonic() - began < 240:
            thread = Thread(client, visitor_token)
            try:
                await thread.begin()
                answer = await thread.ask(QUESTIONS[0])
            except httpx.HTTPError:
                answer = Answered()
            if answer.answered and answer.message.get("evidence"):
                return time.monotonic() - began
            await asyncio.sleep(2.0)  # the documentation is still being read
    raise SystemExit("The guide gave no answer with evidence within 4 minutes; see the logs of the data folder.")


def main() -> None:
    parser = report.arguments("How fast answers reach a reader, how many there are a minute, and what it costs.")
    parser.add_argument("--assistant", default="guide", help="slug of the assistant that is asked (default: guide)")
    parser.add_argument("--visitor", metavar="ORIGIN", help="with RETORT_URL: where the widget is served")
    parser.add_argument("--own", action="store_true", help="start a Retort for the benchmark even though one runs")
    parser.add_argument("--switch-mode", action="store_true", help="may switch a running assistant to evidence alone and back")
    parser.add_argument(
        "--site-port", type=int, default=0, help="port of the website to crawl, if RETORT_ALLOW_PRIVATE names one"
    )
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    table = report.Report("retort bench answer" + (" --quick" if given.quick else ""))
    site = LocalSite(size.pages, given.site_port)
    try:
        target = None if given.own else running(given.visitor)
        if target is None:
            _measure_own(size, given.quick, site, table)
        else:
            measure(target, size, given.assistant, given.switch_mode, site, table)
    finally:
        site.stop()
    for line in _machine():
        table.notes.append(line)
    table.finish(given)


def measure(target: Target, size: Size, assistant: str, switch: bool, site: LocalSite, table: report.Report) -> None:
    asyncio.run(measure_answers(target, size, assistant, switch, table))
    measure_crawl(target, site, assistant, table)
    measure_memory(target, "after the load", table)


def _measure_own(size: Size, quick: bool, site: LocalSite, table: report.Report) -> None:
    with own_stack([f"127.0.0.1:{site.port}"]) as stack:
        began = time.monotonic()
        stack.start()
        fresh = asyncio.run(first_answer(stack.target, "guide", began))
        table.add("start on a new data folder to the first answer", fresh, "s", note="reads the documentation first")
        stack.wait_for_docs()
        if not quick:
            stack.stop()
            began = time.monotonic()
            stack.start()
            again = asyncio.run(first_answer(stack.target, "guide", began))
            table.add("start on a prepared machine to the first answer", again, "s", goal=20)
        measure(stack.target, size, "guide", True, site, table)


def _machine() -> Iterator[str]:
    name = ""
    try:
        with open("/proc/cpuinfo") as lines:
            name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        pass
    yield f"{psutil.cpu_count()} cores ({name or 'unknown processor'}), {psutil.virtual_memory().total / 1e9:.0f} GB of memory"


if __name__ == "__main__":
    main()

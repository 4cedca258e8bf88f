"""`python -m retnet_core.distill data`: passages for training, from packages and folders, package by package and resumable."""

from __future__ import annotations

import argparse
import json
import lzma
import multiprocessing
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from retnet_core.distill import DistillError
from retnet_core.distill.duplicates import Seen
from retnet_core.distill.manual import installed
from retnet_core.distill.passages import Passage
from retnet_core.distill.reading import Task, read_one, saved_head, saved_passages
from retnet_core.distill.source_list import DataConfig, Source

RUN = 60  # passages of a document that are taken one after the other where a package has more than its share
CONFIGURATION = Path(__file__).with_name("data.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGURATION, help="TOML; the shipped data.toml unless given")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for packages and what was read of them; a call goes on from it"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="NAME.jsonl or NAME.jsonl.xz; NAME.json beside it gets the counts"
    )
    parser.add_argument("--debs", type=Path, help="a folder of .deb files, instead of WORK/debs")
    parser.add_argument("--offline", action="store_true", help="take the .deb files that are there, and download none")
    parser.add_argument("--only", action="append", metavar="PACKAGE", help="this package alone; may be repeated")
    parser.add_argument("--processes", type=int, default=1)


def run(given: argparse.Namespace) -> None:
    config = DataConfig.read(given.config)
    chosen = [source for source in config.sources if not given.only or source.name in given.only]
    if missing := set(given.only or ()) - {source.name for source in chosen}:
        raise DistillError(f"{', '.join(sorted(missing))}: not in {given.config}")
    debs = given.debs or given.work / "debs"
    if given.offline and not any(debs.glob("*.deb")) and any(source.folder is None for source in chosen):
        raise DistillError(f"{debs} has no .deb files: leave --offline out, or name a folder that has some with --debs")
    read = given.work / "read"
    read.mkdir(parents=True, exist_ok=True)
    if not installed():
        print("groff is not installed: manual pages are left out", flush=True)
    failed = _read_all(chosen, Task(read, debs, given.offline, config.entities), given.processes)
    summary = assemble(config, chosen, read, given.out)
    summary["failed"] = failed
    given.out.with_name(given.out.name.partition(".")[0] + ".json").write_text(json.dumps(summary, indent=1) + "\n")
    print(
        f"{given.out}: {summary['train']:,} passages to train on, {summary['dev']:,} to measure with, "
        f"{summary['tokens'] / 1e6:.1f} million tokens, {len(failed)} sources failed"
    )
    if not summary["train"] + summary["dev"]:
        raise DistillError(
            "no passages were found: " + ("; ".join(failed.values()) or "the sources hold no documentation in English")
        )


def _read_all(chosen: list[Source], task: Task, processes: int) -> dict[str, str]:
    """Reads every source that was not read yet; returns why some could not be, by name."""
    failed: dict[str, str] = {}
    for number, (source, outcome) in enumerate(_outcomes(chosen, task, processes), start=1):
        try:
            said = outcome()
        except DistillError as error:
            said = failed[source.name] = str(error)
        print(f"[{number}/{len(chosen)}] {source.name}: {said}", flush=True)
    return dict(sorted(failed.items()))


def _outcomes(chosen: list[Source], task: Task, processes: int) -> Iterator[tuple[Source, Callable[[], str]]]:
    """Each source, as it is read, with what came of it."""
    if processes <= 1:
        for source in chosen:
            yield source, partial(read_one, source, task)
        return
    # Spawned: forking a process that has threads may hang.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting = {pool.submit(read_one, source, task): source for source in chosen}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result
        finally:  # where the caller gave up, nothing that has not begun is begun
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose command was killed ends too, rather than wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def assemble(config: DataConfig, chosen: list[Source], read: Path, out: Path) -> dict[str, Any]:
    """Writes the passages of all sources that were read, near-identical ones once, and returns the counts.

    What is measured on comes first, so that nothing like it is trained on; then the sources in the configuration's order.
    """
    seen = Seen()
    packages: dict[str, Any] = {}
    totals: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    part = out.with_name(out.name + ".part")
    out.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(part, "wt", encoding="utf-8", preset=3) if out.suffix == ".xz" else part.open("w", encoding="utf-8") as file:
        for source in sorted(chosen, key=lambda one: one.split != "dev"):
            found = read / f"{source.name}.jsonl.xz"
            saved = saved_head(found)
            if saved is None:
                continue
            every = saved_passages(found)
            unseen = [passage for passage in every if not seen.before(passage.text)]
            kept = _limited(unseen, source.limit, random.Random(f"{config.seed} {source.name}"))
            reasons = Counter(saved["dropped"])
            reasons["like another"] = len(every) - len(unseen)
            reasons["over the limit"] = len(unseen) - len(kept)
            for passage in kept:
                line = _line(passage, saved["licence"], source.split)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                forms[passage.format] += 1
            tokens = sum(passage.tokens for passage in kept)
            packages[source.name] = {
                "passages": len(kept),
                "tokens": tokens,
                "licence": saved["licence"],
                "version": saved["version"],
                "split": source.split,
                "unread_files": saved["unread"],
                "dropped": dict(reasons.most_common()),
            }
            totals[source.split] += len(kept)
            totals["tokens"] += tokens
            dropped += reasons
    part.replace(out)
    return {
        "train": totals["train"],
        "dev": totals["dev"],
        "tokens": totals["tokens"],
        "formats": dict(forms.most_common()),
        "dropped": dict(dropped.most_common()),
        "packages": packages,
    }


def _line(passage: Passage, licence: str, split: str) -> dict[str, Any]:
    line = {
        "id": passage.id,
        "package": passage.package,
        "licence": licence,
        "document": passage.document,
        "place": passage.place,
        "title": passage.title,
        "text": passage.text,
    }
    return line | {"split": "dev"} if split == "dev" else line


def _limited(passages: list[Passage], limit: int, order: random.Random) -> list[Passage]:
    """At most `limit` passages: whole documents in an order drawn by the seed, and of a long one the first RUN, so that neighbours stay."""
    if len(passages) <= limit:
        return passages
    by_document: dict[str, list[Passage]] = {}
    for passage in passages:
        by_document.setdefault(passage.document, []).append(passage)
    names = sorted(by_document)
    order.shuffle(names)
    kept: list[Passage] = []
    for turn in range(0, max(map(len, by_document.values())), RUN):
        for name in names:
            kept += by_document[name][turn : turn + RUN][: limit - len(kept)]
    places = {passage.id: place for place, passage in enumerate(passages)}
    return sorted(kept, key=lambda passage: places[passage.id])


def passages_in(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file that `data` wrote."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)

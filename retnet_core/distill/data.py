"""`python -m retnet_core.distill data`: passages for training, from packages and folders, package by package and resumable."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import lzma
import multiprocessing
import os
import random
import re
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from retnet_core.distill import DistillError, sources
from retnet_core.distill.blocks import Page
from retnet_core.distill.docbook import read_docbook, read_entities
from retnet_core.distill.duplicates import Seen
from retnet_core.distill.manual import installed, read_manual
from retnet_core.distill.markup import read_html, read_markdown
from retnet_core.distill.passages import Passage, passages_of
from retnet_core.distill.plain import read_dictionary, read_info, read_pod, read_text

# Raised when what is read from a file changes: packages are then read anew.
READING = 2
RUN = 60  # passages of a document that are taken one after the other where a package has more than its share
GENERIC = frozenset(
    ("readme", "readme.debian", "faq", "manual", "usage", "overview", "history")
)  # titles that need the package's name
SPARE = 2.5  # so many times its share is read of a package, for some of it others have too
CONFIGURATION = Path(__file__).with_name("data.toml")


@dataclass(frozen=True, slots=True)
class Source:
    """A package, or a folder of an owner's. `limit`: its passages at most; `split`: "train", or "dev" for what is only measured on."""

    name: str
    limit: int
    split: str
    folder: Path | None = None
    licence: str = ""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What data.toml says."""

    seed: int
    sources: list[Source]
    entities: str = ""

    @classmethod
    def read(cls, path: Path) -> DataConfig:
        """Raises `DistillError` for a file that can't be read, an unknown key, a package named twice or one that is held out."""
        try:
            given = tomllib.loads(path.read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise DistillError(f"{path} can't be read: {error}") from None
        if unknown := given.keys() - {"seed", "entities", "group", "folder"}:
            raise DistillError(
                f"{path}: unknown: {', '.join(sorted(unknown))}; it may have seed, entities, [[group]] and [[folder]]"
            )
        found: list[Source] = []
        try:
            for group in given.get("group", []):
                split, limit = group.get("split", "train"), int(group["limit"])
                found += [Source(name, limit, _split(name, split)) for name in group["packages"]]
            for one in given.get("folder", []):
                folder = path.parent / Path(one["path"]).expanduser()
                found.append(Source(one["name"], int(one["limit"]), one.get("split", "train"), folder, one["licence"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DistillError(
                f"{path}: a group needs limit and packages, a folder name, path, licence and limit: {error!r}"
            ) from None
        names = [source.name for source in found]
        sources.refuse_held_out(names)
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DistillError(f"{path} names {', '.join(twice)} twice")
        if not found:
            raise DistillError(f"{path} names no packages and no folders")
        return cls(int(given.get("seed", 0)), found, given.get("entities", ""))


def _split(name: str, split: str) -> str:
    if name in sources.MEASURED_PACKAGES:
        return "dev"
    if split not in ("train", "dev"):
        raise ValueError(f"split is train or dev, not {split}")
    return split


@dataclass(slots=True)
class Read:
    """What was read of one source, before passages that others have too are dropped."""

    name: str
    version: str
    licence: str
    passages: list[Passage] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    unread: int = 0


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
    failed = _read_all(chosen, _Task(read, debs, given.offline, config.entities), given.processes)
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


@dataclass(frozen=True, slots=True)
class _Task:
    """Where reading a source finds and leaves things."""

    read: Path
    debs: Path
    offline: bool
    entities: str


def _read_all(chosen: list[Source], task: _Task, processes: int) -> dict[str, str]:
    """Reads every source that was not read yet; returns why some could not be, by name."""
    failed: dict[str, str] = {}
    for number, (source, outcome) in enumerate(_outcomes(chosen, task, processes), start=1):
        try:
            said = outcome()
        except DistillError as error:
            said = failed[source.name] = str(error)
        print(f"[{number}/{len(chosen)}] {source.name}: {said}", flush=True)
    return dict(sorted(failed.items()))


def _outcomes(chosen: list[Source], task: _Task, processes: int) -> Iterator[tuple[Source, Callable[[], str]]]:
    """Each source, as it is read, with what came of it."""
    if processes <= 1:
        for source in chosen:
            yield source, partial(_read_one, source, task)
        return
    # Spawned: forking a process that has threads may hang.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting = {pool.submit(_read_one, source, task): source for source in chosen}
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


def _read_one(source: Source, task: _Task) -> str:
    """Reads a source into WORK/read/NAME.jsonl.xz, unless that is there for the same input."""
    begun = time.monotonic()
    target = task.read / f"{source.name}.jsonl.xz"
    deb = None if source.folder else _deb(source.name, task)
    print_of = fingerprint(source, deb)
    if (before := _saved(target)) and before["fingerprint"] == print_of:
        return "already read"
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=task.read) as folder:
        if deb is None:
            assert source.folder is not None
            if not source.folder.is_dir():
                raise DistillError(f"{source.folder} is no folder: mend path of {source.name} in the configuration")
            found = read_source(source.folder, source.name, source.limit, {})
            found.licence = source.licence
        else:
            root = Path(folder)
            version = sources.unpack(deb, root)
            found = read_source(root, source.name, source.limit, _entities(task, root))
            found.version, found.licence = version, _licence(root, source.name, task)
    if source.folder and not found.passages:
        raise DistillError(
            f"{source.folder} holds no documentation that makes passages: HTML, Markdown or text in English is read"
        )
    _save(target, print_of, found)
    every = sum(found.dropped.values()) + len(found.passages)
    return f"{len(found.passages):,} passages of {every:,} ({found.licence}) in {time.monotonic() - begun:.0f} s"


def fingerprint(source: Source, deb: Path | None) -> str:
    """Of what a source is read from, and how."""
    digest = hashlib.sha256(f"{READING} {installed()} {source.name} {source.limit} {source.licence}".encode())
    for path in [deb] if deb else sorted((source.folder or Path()).rglob("*")):
        if path is not None and path.is_file():
            digest.update(f"{path.name} {path.stat().st_size} {0 if deb else path.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _deb(name: str, task: _Task) -> Path:
    if not task.offline:
        return sources.download(name, task.debs)
    if found := sources.find_deb(name, task.debs):
        return found
    raise DistillError(f"{name}: no .deb of it in {task.debs}: leave --offline out, or put it there")


def _entities(task: _Task, root: Path) -> dict[str, str]:
    """The shared entities of KDE's handbooks, if the package has such handbooks."""
    if not task.entities or next(root.rglob("*.docbook"), None) is None:
        return {}
    return _shared_entities(_deb(task.entities, task))


@lru_cache(maxsize=1)
def _shared_entities(deb: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="unpacked-") as folder:
        sources.unpack(deb, Path(folder))
        return read_entities(Path(folder))


def _licence(root: Path, name: str, task: _Task) -> str:
    """The package's licences; where its copyright file is another package's, that one's."""
    if found := sources.licence(root, name):
        return found
    other = sources.copyright_of(root, name)
    if other and re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", other):
        try:
            deb = _deb(other, task)
        except DistillError:
            return f"see the package {other}"
        with tempfile.TemporaryDirectory(prefix="unpacked-", dir=task.read) as folder:
            sources.unpack(deb, Path(folder))
            return sources.licence(Path(folder), other) or f"see the package {other}"
    return "unknown"


def read_source(root: Path, name: str, limit: int, entities: dict[str, str]) -> Read:
    """Every passage of a tree of documentation, without those that the tree itself has twice."""
    read = Read(name, "", "")
    hashes: set[bytes] = set()
    found = list(sources.documents(root))
    # Of a package with thousands of pages some are read, of every format in its turn: those whose names' hashes are lowest.
    rank = {form: place for place, form in enumerate(sources.FORMATS)}
    found.sort(key=lambda one: (rank[one[2]], hashlib.sha256(one[0].encode()).digest()))
    for document, path, form in found:
        if len(read.passages) >= limit * SPARE:
            read.dropped["files beyond the limit"] += 1
            continue
        try:
            pages = _pages(document, path, form, entities)
        except ValueError:
            read.unread += 1
            continue
        for page in pages:
            if page.title.lower() in GENERIC:
                page.title = f"{name} {page.title}"
            for passage in passages_of(page, name, form, read.dropped):
                same = hashlib.blake2b(re.sub(r"\W+", "", passage.text.lower()).encode(), digest_size=8).digest()
                if same in hashes:
                    read.dropped["twice in the package"] += 1
                    continue
                hashes.add(same)
                read.passages.append(passage)
    read.passages.sort(key=lambda passage: passage.document.partition("#")[0])  # stable: a file's passages stay in order
    return read


def _pages(document: str, path: Path, form: str, entities: dict[str, str]) -> Iterable[Page]:
    data = sources.read_bytes(path)
    if form == "man":
        return read_manual(data, document) if installed() else []
    text = sources.decode(data)
    if form in ("docbook", "mallard"):
        return read_docbook(text, document, path, entities)
    readers = {
        "html": read_html,
        "markdown": read_markdown,
        "pod": read_pod,
        "info": read_info,
        "dictionary": read_dictionary,
        "text": read_text,
    }
    return readers[form](text, document)


def _save(target: Path, print_of: str, read: Read) -> None:
    """Whole or not at all: a call that is killed leaves no half of a package."""
    header = {
        "fingerprint": print_of,
        "version": read.version,
        "licence": read.licence,
        "unread": read.unread,
        "dropped": dict(read.dropped),
    }
    lines = [header, *(dataclasses.asdict(passage) for passage in read.passages)]
    part = target.with_suffix(f".{os.getpid()}.part")
    with lzma.open(part, "wt", encoding="utf-8", preset=1) as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    part.replace(target)


def _saved(target: Path) -> dict[str, Any] | None:
    """What is said at the head of a source that was read, or None where there is none or it is damaged."""
    try:
        with lzma.open(target, "rt", encoding="utf-8") as file:
            return json.loads(file.readline())
    except (OSError, lzma.LZMAError, ValueError, EOFError):
        return None


def _passages(target: Path) -> list[Passage]:
    with lzma.open(target, "rt", encoding="utf-8") as file:
        file.readline()
        return [Passage(**json.loads(line)) for line in file]


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
            saved = _saved(found)
            if saved is None:
                continue
            every = _passages(found)
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

"""Reading one source into a file of its own: its passages as they are found, and what was dropped for which reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import lzma
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from retnet_core.distill import DistillError, sources
from retnet_core.distill.blocks import Page
from retnet_core.distill.docbook import read_docbook, read_entities
from retnet_core.distill.manual import installed, read_manual
from retnet_core.distill.markup import read_html, read_markdown
from retnet_core.distill.passages import Passage, passages_of
from retnet_core.distill.plain import read_dictionary, read_info, read_pod, read_text
from retnet_core.distill.source_list import Source

# Raised when what is read from a file changes: packages are then read anew.
READING = 4
SPARE = 2.5  # so many times its share is read of a package, for some of it others have too
# Titles that need the package's name.
GENERIC = frozenset(("readme", "readme.debian", "faq", "manual", "usage", "overview", "history"))


@dataclass(slots=True)
class Read:
    """What was read of one source, before passages that others have too are dropped."""

    name: str
    version: str
    licence: str
    passages: list[Passage] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """Where reading a source finds and leaves things."""

    read: Path
    debs: Path
    offline: bool
    entities: str


def read_one(source: Source, task: Task) -> str:
    """Reads a source into WORK/read/NAME.jsonl.xz, unless that is there for the same input."""
    begun = time.monotonic()
    target = task.read / f"{source.name}.jsonl.xz"
    deb = None if source.folder else _deb(source.name, task)
    print_of = fingerprint(source, deb)
    if (before := saved_head(target)) and before["fingerprint"] == print_of:
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


def _deb(name: str, task: Task) -> Path:
    if not task.offline:
        return sources.download(name, task.debs)
    if found := sources.find_deb(name, task.debs):
        return found
    raise DistillError(f"{name}: no .deb of it in {task.debs}: leave --offline out, or put it there")


def _entities(task: Task, root: Path) -> dict[str, str]:
    """The shared entities of KDE's handbooks, if the package has such handbooks."""
    if not task.entities or next(root.rglob("*.docbook"), None) is None:
        return {}
    return _shared_entities(_deb(task.entities, task))


@lru_cache(maxsize=1)
def _shared_entities(deb: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="unpacked-") as folder:
        sources.unpack(deb, Path(folder))
        return read_entities(Path(folder))


def _licence(root: Path, name: str, task: Task) -> str:
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


def saved_head(target: Path) -> dict[str, Any] | None:
    """What is said at the head of a source that was read, or None where there is none or it is damaged."""
    try:
        with lzma.open(target, "rt", encoding="utf-8") as file:
            return json.loads(file.readline())
    except (OSError, lzma.LZMAError, ValueError, EOFError):
        return None


def saved_passages(target: Path) -> list[Passage]:
    with lzma.open(target, "rt", encoding="utf-8") as file:
        file.readline()
        return [Passage(**json.loads(line)) for line in file]

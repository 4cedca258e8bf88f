"""Where text comes from: documentation packages of Debian and folders that an owner gives, their licences, and what is never taken."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from retnet_core.distill import DistillError
from retnet_core.distill.blocks import names

# Held out for the final report: never read, neither for training nor for choosing.
NEVER_PACKAGES = frozenset(("debian-faq", "gnome-user-docs", "doc-debian", "debian-refcard", "release-notes"))
NEVER_PATHS = re.compile(
    r"perlfaq|(?:^|/)python[\d.]*(?:-doc)?/(?:html/)?(?:_sources/)?faq/|(?:^|/)debian-faq|(?:^|/)doc-debian|(?:^|/)debian-refcard|"
    r"(?:^|/)release-notes|/help/[^/]+/(?:gnome-help|system-admin-guide|getting-started)/|(?:^|/)gnome-user-docs",
    re.I,
)
# Measured on, so never trained on; passages elsewhere that repeat theirs are dropped as well.
MEASURED_PACKAGES = frozenset(("debian-handbook", "postgresql-doc-15", "kmail"))

LARGEST = 30_000_000  # bytes of a file, unpacked
APT_SECONDS = 600
_COMPRESSED = (".gz", ".bz2", ".xz", ".dz")
_UNWANTED = re.compile(
    r"(?:^|/)(?:changelogs?|news|copying|copyright|licen[cs]es?|authors|credits|thanks|todo|bugs|install|hacking|contributing|maintainers)"
    r"(?:[._-][^/]*)?$|change_?log|(?:^|/)(?:fdl|l?gpl|gfdl)[^/]*$|/_sources/|/_modules/|/_static/|genindex|py-modindex|modindex|/search\.html|"
    r"index-all|class-use|package-tree|allclasses|/tests?/|/licen[cs]es?/|whatsnew|release-?notes|relnotes|/node_modules/|/dist-packages/|"
    r"requirements[^/]*\.txt|cmakelists|robots\.txt|index\.cache|_8h(?:_source)?\.html|-members\.html|/examples?/[^/]*\.(?:txt|xml)|"
    r"/(?:test|fixtures|testsuite|licenses|locale|i18n|icons|templates?)/|readme\.(?:source|git|devel)|/vendor/|upgrading\.(?:md|txt)|"
    # References of programming interfaces, made from their source.
    r"/(?:api|apidocs?|api-docs|javadoc|gtk-doc|doxygen)/|\.3(?:pm|perl)(?:\.gz)?$",
    re.I,
)
_LANGUAGES = "|".join(
    sorted(
        names(
            """de fr es it ja ru zh pt sv cs pl nl ko da el hu id nb nn no ro tr uk vi ar hr lt lv fi ca sr sl sk gl te pa hi eu et he bg bn fa
            ga af ast be bs cy eo gu is ka kk km kn mk ml mr ms ne or si ta th tl ur uz wa xh zu oc br nds hsb csb fy"""
        )
    )
)
_FOREIGN = re.compile(
    rf"[/_-](?:{_LANGUAGES})/|\.(?:{_LANGUAGES})(?=\.|$)|[_-](?:de|fr|es|ja|ru|zh|pt|sv|cs|pl|nl|ko|ca)(?=[/.]|$)|"
    r"[/._-](?:[a-z]{2}[-_][A-Z]{2}|zh-cn|zh-tw|pt-br|[a-z]{2}@\w+)(?=[/.]|$)|"
    r"/(?:german|french|spanish|italian|japanese|russian|polish|dutch|czech)/"
)
_TEXT_FOLDERS = re.compile(r"(?:^|/)(?:docs?|help|manual|guide|documentation|handbook)(?:/|$|-)", re.I)
# Tried in this order, so that of a page in two formats the better marked one is kept.
FORMATS = ("docbook", "mallard", "html", "markdown", "pod", "info", "text", "man", "dictionary")


def refuse_held_out(names: list[str]) -> None:
    """Raises `DistillError` where a package is asked for that is held out."""
    for name in names:
        if name in NEVER_PACKAGES or name.startswith(("debian-faq", "gnome-user-docs", "release-notes")):
            raise DistillError(f"{name} is held out for the final report and never read: take it out of the configuration")


def find_deb(name: str, folder: Path) -> Path | None:
    """The newest file of a package in a folder, by its name's order."""
    return max(folder.glob(f"{name}_*.deb"), default=None)


def download(name: str, cache: Path) -> Path:
    """The package's file, fetched with apt if the cache lacks it. Raises `DistillError` saying what is missing."""
    if found := find_deb(name, cache):
        return found
    if shutil.which("apt-get") is None:
        raise DistillError(f"{name}: there is no apt-get here to download it; put its .deb into {cache} and pass --offline")
    cache.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "download", "-q", name]
    done = subprocess.run(command, cwd=cache, capture_output=True, text=True, timeout=APT_SECONDS)
    found = find_deb(name, cache)
    if done.returncode or found is None:
        said = next((line for line in done.stderr.splitlines() if line.startswith("E:")), "nothing came").removeprefix("E: ")
        raise DistillError(f"{name}: apt-get download failed: {said} (apt-get update, or take it out of the configuration)")
    return found


def unpack(deb: Path, into: Path) -> str:
    """Unpacks a .deb's files, and returns its version. Raises `DistillError` for a damaged one."""
    if shutil.which("dpkg-deb") is None:
        raise DistillError("there is no dpkg-deb here to unpack .deb files: install the package dpkg")
    version = subprocess.run(["dpkg-deb", "-f", deb, "Version"], capture_output=True, text=True)
    done = subprocess.run(["dpkg-deb", "-x", deb, into], capture_output=True, text=True)
    if version.returncode or done.returncode:
        raise DistillError(f"{deb.name} is damaged and can't be unpacked: delete it, and it is downloaded again")
    return version.stdout.strip()


def documents(root: Path) -> Iterator[tuple[str, Path, str]]:
    """(name, path, format) of each file under `root` that holds documentation in English, the best formats first."""
    found: list[tuple[int, str, Path]] = []
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        form = format_of(name)
        if form is not None and path.stat().st_size <= LARGEST:
            found.append((FORMATS.index(form), name, path))
    handbooks = {path.parent for _, _, path in found if path.name == "index.docbook"}
    pages = {path.stem.lower() for rank, _, path in found if FORMATS[rank] == "html"}
    for rank, name, path in sorted(found):
        form = FORMATS[rank]
        if form == "docbook" and path.parent in handbooks and path.name != "index.docbook":
            continue  # a chapter, which the handbook includes
        if form in ("text", "markdown") and path.name.lower().partition(".")[0] in pages:
            continue  # the page's source, or the page without its marks
        yield name, path, form


def format_of(name: str) -> str | None:
    """The format of a file by its path in the package, or None for what is not wanted or never taken."""
    if NEVER_PATHS.search(name) or _UNWANTED.search(name):
        return None
    plain = name
    for suffix in _COMPRESSED:
        plain = plain.removesuffix(suffix)
    low = plain.lower()
    if "/man/" in name:
        return "man" if re.search(r"/man/man[1-8]/[^/]+\.[1-8]\w*$", plain) else None
    if re.search(r"/share/(?:gnome/)?help/", name) and not re.search(r"/help/(?:[^/]+/)?(?:C|en)/", name):
        return None
    if re.search(r"/(?:kde/)?HTML/", name) and not re.search(r"/HTML/en/", name):
        return None
    if _FOREIGN.search("/" + re.sub(r"/en[-_](?:US|GB|us|gb)/", "/", plain)):
        return None
    return _by_suffix(low, plain)


def _by_suffix(low: str, plain: str) -> str | None:
    suffix = PurePosixPath(low).suffix
    if suffix in (".html", ".htm", ".xhtml"):
        return "html"
    if suffix == ".page":
        return "mallard"
    if suffix in (".docbook", ".dbk") or (suffix == ".xml" and _TEXT_FOLDERS.search(low)):
        return "docbook"
    if suffix in (".md", ".markdown"):
        return "markdown"
    if suffix == ".pod":
        return "pod"
    if re.search(r"\.info(?:-\d+)?$", low):
        return "info"
    if suffix == ".dict":
        return "dictionary"
    single = "/" not in plain  # an owner's folder
    if suffix in (".txt", ".rst", ".text") and (single or _TEXT_FOLDERS.search(low) or "/" not in low.strip("/")):
        return "text"
    if re.search(r"(?:^|/)(?:readme|faq|manual|guide|howto|tutorial|usage)(?:\.debian)?$", low):
        return "text"
    return None


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked. Raises `ValueError` for a damaged one, or one that is too large."""
    opened = {".gz": gzip.open, ".dz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opened(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if len(data) > LARGEST:
        raise ValueError(f"{path.name}: more than {LARGEST:,} bytes")
    return data


def decode(data: bytes) -> str:
    """UTF-8, or what Western European pages used before it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = re.search(rb"charset=[\"']?([\w-]+)", data[:2000])
        name = declared[1].decode() if declared else "windows-1252"
        try:
            return data.decode(
                "windows-1252" if name.lower() in ("utf-8", "us-ascii", "iso-8859-1", "ascii") else name, "replace"
            )
        except LookupError:
            return data.decode("windows-1252", "replace")


_NAMED = (
    ("GFDL-1.3", r"free documentation license,? version 1\.3|common-licenses/GFDL-1\.3"),
    ("GFDL-1.2", r"free documentation license,? version 1\.2|common-licenses/GFDL-1\.2"),
    ("GFDL-1.1", r"free documentation license,? version 1\.1"),
    ("GFDL", r"free documentation license|common-licenses/GFDL"),
    ("Apache-2.0", r"apache license,? version 2|common-licenses/Apache-2\.0"),
    ("MPL-2.0", r"mozilla public license,? v(?:ersion|\.)? ?2"),
    ("AGPL-3.0", r"affero general public license"),
    ("LGPL", r"lesser general public|library general public|common-licenses/LGPL"),
    ("GPL-3.0", r"general public license,? version 3|common-licenses/GPL-3|version 3 of the (?:license|gnu)"),
    ("GPL-2.0", r"general public license,? version 2|common-licenses/GPL-2|version 2 of the (?:license|gnu)|either version 2"),
    ("GPL", r"general public license|common-licenses/GPL|GNU GPL"),
    ("CC-BY-SA", r"attribution-?\s?share-?\s?alike"),
    ("CC0-1.0", r"CC0"),
    ("Artistic", r"artistic licen[cs]e|common-licenses/Artistic"),
    ("BSD", r"redistribution and use in source and binary|common-licenses/BSD"),
    ("MIT", r"permission is hereby granted, free of charge|MIT licen[cs]e"),
    ("HPND", r"permission to use, copy, modify,? and (?:/or )?distribute"),
    ("public-domain", r"public domain"),
)
_SPDX = {"expat": "MIT", "gplv2": "GPL-2.0", "gplv3": "GPL-3.0", "bsd-3-clause": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause"}
LICENCES = 3  # named of a package with many


def licence(root: Path, package: str) -> str:
    """The licences that a package's copyright file names, most used first, as SPDX-like short names; "" if it has no such file."""
    path = root / "usr/share/doc" / package / "copyright"
    if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        return ""
    text = path.read_text("utf-8", "replace")
    if re.search(r"^Format(?:-Specification)?:", text, re.M):
        named = Counter(_short(match) for match in re.findall(r"^License:[ \t]*(\S.*)$", text, re.M))
        if named:
            first = re.search(r"^Files:[ \t]*\*.*?^License:[ \t]*(\S.*?)$", text, re.M | re.S)
            leading = _short(first[1]) if first else ""
            ranked = [name for name, _ in named.most_common()]
            return ", ".join(dict.fromkeys([*([leading] if leading else []), *ranked][:LICENCES]))
    found = [name for name, pattern in _NAMED if re.search(pattern, re.sub(r"\s+", " ", text), re.I)]
    families = {name.partition("-")[0] for name in found if "-" in name}
    return ", ".join([name for name in found if name not in families][:LICENCES]) or "see its copyright file"


def copyright_of(root: Path, package: str) -> str:
    """The package whose copyright file this one's folder points to, or ""."""
    folder = root / "usr/share/doc" / package
    if folder.is_symlink():
        return PurePosixPath(folder.readlink()).name
    if (folder / "copyright").is_symlink():
        return PurePosixPath((folder / "copyright").readlink()).parent.name
    return ""


def _short(name: str) -> str:
    name = name.strip().rstrip(",.")
    return _SPDX.get(name.lower(), name)[:60]

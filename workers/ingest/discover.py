"""Which pages a site has: its sitemaps, or else its first page, from which links are followed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from urllib.parse import urljoin
from xml.parsers import expat

import structlog

from app.http.outbound import Fetched, OutboundError
from workers.ingest.addresses import Site, document_kind, is_page, normalise
from workers.ingest.robots import Rules, origin_of
from workers.process import Process

MAX_PAGES = 2000
MAX_DEPTH = 12  # links away from the first page
MAX_SITEMAPS = 50
SITEMAP_BYTES = 20 * 1024 * 1024  # inflated; the protocol allows 50 MB
SITEMAP_DEPTH = 3  # indexes within indexes
WELL_KNOWN = ("sitemap.xml", "sitemap_index.xml")

log = structlog.get_logger()


@dataclass(slots=True)
class Found:
    """The pages of a site as its sitemaps tell; just the first page when they tell nothing."""

    pages: list[str] = field(default_factory=list)
    more: bool = False  # there were more than MAX_PAGES


async def discover(process: Process, site: Site, rules: Rules) -> Found:
    """Read the sitemaps that robots.txt names, or else the well-known ones. Never raises for a sitemap's faults."""
    pages: dict[str, None] = {site.root: None}
    named = [address for address in rules.sitemaps if normalise(address)]
    folder = urljoin(site.root, site.prefix if site.prefix.endswith("/") else f"{site.prefix}/")
    known = [urljoin(base, name) for base in dict.fromkeys((folder, f"{origin_of(site.root)}/")) for name in WELL_KNOWN]
    for queue in ([named] if named else []) + [known]:
        await _read_sitemaps(process, site, rules, queue, pages)
        if len(pages) > 1:
            break
    listed = list(pages)
    return Found(listed[:MAX_PAGES], len(listed) > MAX_PAGES)


async def _read_sitemaps(process: Process, site: Site, rules: Rules, queue: list[str], pages: dict[str, None]) -> None:
    waiting = [(address, 1) for address in queue]
    seen: set[str] = set()
    while waiting and len(seen) < MAX_SITEMAPS and len(pages) <= MAX_PAGES:
        address, depth = waiting.pop(0)
        if address in seen or not rules.allows(address):
            continue
        seen.add(address)
        body = await _fetch(process, address)
        if body is None:
            continue
        entries, nested = parse_sitemap(body)
        if depth < SITEMAP_DEPTH:
            waiting.extend((urljoin(address, one), depth + 1) for one in nested)
        for entry in entries:
            page = normalise(urljoin(address, entry))
            if page and site.holds(page) and is_page(page) and not document_kind(page):
                pages.setdefault(page)


async def _fetch(process: Process, address: str) -> bytes | None:
    try:
        answer = await process.outbound.fetch(
            address, max_bytes=SITEMAP_BYTES, wanted=lambda response: response.status_code == 200
        )
    except OutboundError as error:
        log.info("sitemap_unread", url=address, code=error.code)
        return None
    return unpack(answer) if answer.status == 200 else None


def unpack(answer: Fetched) -> bytes | None:
    """A sitemap's text; a .gz file is inflated up to the limit, whatever its size says."""
    if not answer.body.startswith(b"\x1f\x8b"):
        return answer.body
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(answer.body, SITEMAP_BYTES)
    except zlib.error:
        return None


def parse_sitemap(body: bytes) -> tuple[list[str], list[str]]:
    """(pages, nested sitemaps) of a sitemap, an index or a plain list of addresses (sitemaps.org), as far as it is whole."""
    if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        lines = body.decode("utf-8", "replace").split()
        return [line for line in lines if line.startswith(("http://", "https://"))][: MAX_PAGES * 5], []
    reader = _SitemapReader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.EntityDeclHandler = reader.refuse
    try:
        parser.Parse(body.lstrip(), True)
    except (expat.ExpatError, ValueError):
        log.info("sitemap_broken", read=len(reader.pages) + len(reader.nested))
    return reader.pages, reader.nested


class _SitemapReader:
    def __init__(self) -> None:
        self.pages: list[str] = []
        self.nested: list[str] = []
        self._path: list[str] = []
        self._text: list[str] = []

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._path.append(name.rpartition(" ")[2].lower())
        self._text.clear()
        if len(self._path) > 8 or len(self.pages) > MAX_PAGES * 5:
            raise ValueError("no sitemap is so deep or so long")

    def end(self, _name: str) -> None:
        if self._path[-2:] == ["url", "loc"]:
            self.pages.append("".join(self._text).strip())
        elif self._path[-2:] == ["sitemap", "loc"]:
            self.nested.append("".join(self._text).strip())
        self._path.pop()

    def text(self, text: str) -> None:
        self._text.append(text)

    def refuse(self, *_: object) -> None:
        """Entities are how a small file becomes a large one; no sitemap needs them."""
        raise ValueError("entities are not read")

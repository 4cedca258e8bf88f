"""One page from the network to passages, or a reason why not, in words that the site's owner understands."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.http.outbound import Fetched, OutboundError, TargetError
from workers.ingest.addresses import Site, document_kind, is_page, normalise
from workers.ingest.decode import decode
from workers.ingest.discover import MAX_PAGES
from workers.ingest.extract import EXTRACTION, Page, extract
from workers.ingest.ledger import Claimed
from workers.ingest.robots import Busy, Rules, load_rules, pause, turn
from workers.ingest.split import MAX_PASSAGES, Draft, split
from workers.process import Process

PAGE_SECONDS = 20.0
PAGE_BYTES = 5 * 1024 * 1024
HTML = ("text/html", "application/xhtml+xml")
# A server that is overloaded is asked again after its own Retry-After, or after so long, twice as long each time.
RETRY_SECONDS = 3.0
RETRY_STATUSES = (429, 503)

_STATUS_REASONS = {
    401: "The page asks for a sign-in (401). Only public pages are read.",
    403: "The site refuses Retort this page (403). Allow the user agent “Retort” there, or leave the page out.",
    404: "There is no page at this address (404).",
    410: "The page was removed for good (410).",
    429: "The site asked Retort to slow down again and again (429). Read the source again later.",
    451: "The page is blocked for legal reasons (451).",
    500: "The site's server failed on this page (500). Read the source again once it works.",
    502: "The server behind the site did not answer (502). Read the source again later.",
    503: "The site was not available, also when asked again (503). Read the source again later.",
    504: "The server behind the site did not answer in time (504). Read the source again later.",
}


@dataclass(slots=True)
class Outcome:
    """What became of a page. `status` is the document's, or `waiting` when the page is to be asked for again."""

    status: str
    code: str | None = None
    reason: str | None = None
    http_status: int | None = None
    url: str | None = None  # where a redirect led, when it led to a page of the site
    wait: float = 0.0  # seconds, before it is asked for again
    title: str = ""
    content_hash: str | None = None
    drafts: list[Draft] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    words: int = 0
    bytes: int = 0
    etag: str | None = None
    last_modified: str | None = None


class Skip(Exception):
    def __init__(self, code: str, reason: str, status: str = "skipped") -> None:
        super().__init__(reason)
        self.outcome = Outcome(status, code, reason)


Known = Callable[[str], Awaitable[bool]]  # whether the source has a document of its own at an address


async def fetch_page(process: Process, claim: Claimed, known: Known, renew: Callable[[], Awaitable[None]]) -> Outcome:
    """Ask for a claimed page, politely, and read it. Raises nothing for what a site may do."""
    site = Site(claim.source_url)
    try:
        rules = await load_rules(process, claim.url)
        if not rules.allows(claim.url):
            raise Skip("robots", rules.refusal or "The site's robots.txt asks not to read this page.")
        async with turn(process, claim.url, rules.delay, renew):
            await renew()
            answer = await _ask(process, claim, site, rules, known)
        await renew()
        return await _judge(process, claim, site, answer)
    except Skip as skip:
        return skip.outcome
    except Busy as busy:
        return Outcome("waiting", wait=busy.seconds)
    except TargetError as error:
        return Outcome("failed", {"url-private": "private-address"}.get(error.code, error.code), error.detail)
    except OutboundError as error:
        return Outcome("failed", error.code, error.detail)


async def _ask(process: Process, claim: Claimed, site: Site, rules: Rules, known: Known) -> Fetched:
    headers = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1"}
    if claim.can_be_unchanged and (claim.content_hash or "").startswith(f"{EXTRACTION}:"):
        if claim.etag:
            headers["If-None-Match"] = claim.etag
        if claim.last_modified:
            headers["If-Modified-Since"] = claim.last_modified

    async def hop(target: str) -> bool:
        page = normalise(target)
        if page is None or not site.holds(page):
            raise Skip("redirected", f"The page leads to {target}, outside this site. Add that address as a source of its own.")
        if page != claim.url and await known(page):
            raise Skip("redirected", f"The page leads to {page}, which is read under its own address.")
        if not rules.allows(page):
            raise Skip("robots", f"The page leads to {page}, which the site's robots.txt asks not to read.")
        return True

    return await process.outbound.fetch(
        claim.url, headers=headers, total_seconds=PAGE_SECONDS, max_bytes=PAGE_BYTES, wanted=_is_html, hop=hop
    )


def _is_html(response: httpx.Response) -> bool:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return response.status_code == 200 and (kind in HTML or not kind)


async def _judge(process: Process, claim: Claimed, site: Site, answer: Fetched) -> Outcome:
    status = answer.status
    if status == 304:
        return Outcome("unchanged", http_status=304)
    if status in RETRY_STATUSES:
        wait = await pause(process, claim.url, _retry_after(answer.headers) or RETRY_SECONDS * 2 ** (claim.attempt - 1))
        if not claim.last_attempt:
            return Outcome("waiting", wait=wait, http_status=status)
    if status != 200:
        reason = _STATUS_REASONS.get(status) or f"The site answers {status} for this page."
        return Outcome("failed", f"http-{status}", reason, http_status=status)
    outcome = read_page(answer, claim.depth == 0 and claim.url == site.root)
    outcome.http_status = status
    if answer.url != claim.url and (final := normalise(answer.url)) and final != claim.url and site.holds(final):
        outcome.url = final
    outcome.links = [
        link for link in dict.fromkeys(map(normalise, outcome.links)) if link and link != claim.url and site.holds(link)
    ]
    return outcome


def read_page(answer: Fetched, is_first: bool = False) -> Outcome:
    """A fetched page as passages; skipped when it is no HTML, wants no index, or says nothing."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    size = len(answer.body)
    if (kind and kind not in HTML) or (not kind and b"<" not in answer.body[:1024]):
        name = document_kind(answer.url) or {"application/pdf": "PDF"}.get(kind) or kind or "no text"
        if is_first:
            return Outcome("failed", "not-html", f"This is a file ({name}), no web page. Only HTML pages are read.")
        return Outcome("skipped", "not-html", f"This is a file ({name}). Only HTML pages are read.")
    page = extract(decode(answer.body, answer.headers.get("content-type", "")), answer.url)
    header = {rule.strip().lower() for rule in answer.headers.get("x-robots-tag", "").split(",")}
    links = [] if not header.isdisjoint(("nofollow", "none")) else page.links
    if page.noindex or not header.isdisjoint(("noindex", "none")):
        return Outcome("skipped", "noindex", "The page asks not to be indexed (noindex).", links=links, bytes=size)
    if not page.has_text:
        reason = "No text was found in the page. Pages that are built by scripts in the browser cannot be read."
        if page.refresh:
            return Outcome("skipped", "redirected", f"The page sends its readers on to {page.refresh}.", links=links, bytes=size)
        return Outcome("skipped", "no-text", reason, title=page.title, links=links, bytes=size)
    return _indexable(page, answer, links)


def _indexable(page: Page, answer: Fetched, links: list[str]) -> Outcome:
    drafts = split(page.blocks)
    outcome = Outcome("fetched", title=page.title, content_hash=page.content_hash, drafts=drafts[:MAX_PASSAGES], links=links)
    if page.cut or len(drafts) > MAX_PASSAGES:
        outcome.code = "read-in-part"
        outcome.reason = f"The page is very long: its first {MAX_PASSAGES} passages were read. Split it into several pages."
    outcome.words, outcome.bytes = page.words, len(answer.body)
    outcome.etag = _stored(answer.headers.get("etag"))
    outcome.last_modified = _stored(answer.headers.get("last-modified"))
    return outcome


def _stored(header: str | None) -> str | None:
    return header if header and len(header) <= 200 and header.isprintable() else None


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds, from either form of the header (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 1.0)
    except (TypeError, ValueError):
        return None


def new_pages(links: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """(pages to ask for, files that are no pages with their kind) of a page's links."""
    pages = [link for link in links if is_page(link) and not document_kind(link)][:MAX_PAGES]
    files = [(link, kind) for link in links if (kind := document_kind(link))]
    return pages, files


def drafts_json(drafts: list[Draft]) -> list[dict[str, Any]]:
    """As they wait in `documents.blocks` for their vectors."""
    return [
        {
            "heading_path": list(d.heading_path),
            "fragment": d.fragment,
            "text": d.text,
            "sentences": d.sentences,
            "tokens": d.tokens,
        }
        for d in drafts
    ]

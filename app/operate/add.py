"""`retort add`: point an assistant at a website, and watch it being read page by page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from app.operate.client import Api, ApiProblem

FINAL = ("read", "unchanged", "skipped", "failed")
ENDED = ("read", "failed")
POLL_SECONDS = 0.5
# A list of a thousand pages costs the server some 50 ms: a site of that size is looked at less often.
POLL_SECONDS_PER_PAGE = 1 / 500


def add_source(api: Api, url: str, assistant: str, title: str | None = None) -> dict[str, Any]:
    """Add the site, or have it read again if it is known. Returns the Source of docs/api.md."""
    body: dict[str, object] = {"kind": "website", "url": url, "assistant": assistant}
    return api.post("/api/v1/sources", body | ({"title": title} if title else {}))


def add_source_making_assistant(
    api: Api, url: str, assistant: str, title: str | None = None, *, on_made: Callable[[str], None]
) -> dict[str, Any]:
    """`add_source`, for an assistant that is made if there is none of that slug; its name is then given to `on_made`.

    The API looks at the address first, so that a wrong one leaves no assistant behind.
    """
    try:
        return add_source(api, url, assistant, title)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
    made = api.post("/api/v1/assistants", {"name": assistant.replace("-", " ").capitalize(), "slug": assistant})
    on_made(made["name"])
    return add_source(api, url, assistant, title)


def follow_source(
    api: Api,
    source_id: str,
    *,
    on_page: Callable[[dict[str, Any]], None] = lambda page: None,
    on_progress: Callable[[dict[str, Any]], None] = lambda source: None,
    wait: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait until the source has been read or has failed; each Document that is finished is handed to `on_page` once.

    A Document keeps the status of an earlier reading until its turn comes: it counts once it was fetched in this one.
    """
    told: set[str] = set()
    while True:
        source = api.get(f"/api/v1/sources/{source_id}")
        on_progress(source)
        pages = list(api.pages(f"/api/v1/sources/{source_id}/documents"))
        for page in pages:
            current = source["status"] in ENDED or _is_of_this_reading(page, source)
            if page["status"] in FINAL and current and page["id"] not in told:
                told.add(page["id"])
                on_page(page)
        if source["status"] in ENDED:
            return source
        wait(max(POLL_SECONDS, len(pages) * POLL_SECONDS_PER_PAGE))


def _is_of_this_reading(page: dict[str, Any], source: dict[str, Any]) -> bool:
    """Both times are RFC 3339 in UTC to the millisecond, so they compare as text."""
    return bool(source["started_at"] and page["fetched_at"] and page["fetched_at"] >= source["started_at"])


def page_row(page: dict[str, Any]) -> dict[str, Any]:
    """A page as `retort add --json` prints it."""
    return {name: page.get(name) for name in ("url", "title", "status", "code", "reason", "words", "passages")}

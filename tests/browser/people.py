"""Who uses the product in these tests: an owner with a workspace, and people with a browser window."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import httpx
import pytest
from playwright.async_api import BrowserContext, ConsoleMessage, Page

from tests.browser.product import Product
from tests.browser.sites import SITE

OUTPUT = Path(__file__).parents[1] / "output"
# What an answer may take beside other work on a busy machine; the benchmarks measure how fast it really is.
PATIENCE_MS = 60_000


def lacking(advice: str) -> NoReturn:
    """Something is not installed: a developer's test is skipped and says how to get it; under CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(advice)
    pytest.skip(advice)


@dataclass(frozen=True, slots=True)
class Owner:
    """A workspace with its owner and one assistant, made as `retort up` makes them."""

    slug: str
    api_key: str
    link: str  # signs in once
    workspace_id: UUID
    member_id: UUID

    def call(self, product: Product, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        answer = httpx.request(method, f"{product.dashboard}/api/v1{path}", json=body, headers=headers, timeout=20)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:400]}"
        return answer.json() if answer.content else None


@dataclass
class Window:
    """A browser context of one person, with everything that its pages complained of."""

    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    async def page(self) -> Page:
        page = await self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" or "[Retort]" in message.text:
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")


def embedding_page(product: Product, owner: Owner, attributes: str = "") -> str:
    """A page of the bicycle site that carries the assistant by its one line."""
    line = f'<script src="{product.visitor}/widget.js" data-assistant="{owner.slug}"{attributes} async></script>'
    return (SITE / "brakes.html").read_text().replace("</body>", f"{line}\n</body>")


async def photograph(page: Page, name: str) -> None:
    """Leave a picture in tests/output for a person to look at."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=OUTPUT / f"{name}.png")

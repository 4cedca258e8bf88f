"""Fixtures of the crawler's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.config import Settings
from tests.ingest.crawled_site import Crawler, Website
from workers.process import Process


@pytest.fixture
def site() -> Iterator[Website]:
    website = Website()
    yield website
    website.close()


@pytest.fixture
def settings_for(stack: Any) -> Callable[..., Settings]:
    """Settings that admit exactly these private targets."""
    return lambda *targets: replace(stack.settings, allow_private=targets)


@pytest.fixture
async def crawler(stack: Any, db: Any, tenant: Any, site: Website) -> AsyncIterator[Crawler]:
    process = Process(replace(stack.settings, allow_private=(site.host,)))
    yield Crawler(process, db, tenant)
    await process.aclose()

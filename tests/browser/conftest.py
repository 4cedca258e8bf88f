"""A real Chromium, the whole product behind it, and websites for it to read."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright, expect

from app.accounts import service as accounts
from app.accounts.models import Member
from app.assistants import service as assistants
from app.db.session import Database
from tests.browser.people import OUTPUT, PATIENCE_MS, Owner, Window, embedding_page, lacking
from tests.browser.product import Product
from tests.browser.sites import SITE, Website, handbook
from tests.conftest import Stack

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's path; without one the browser tests are skipped, and under CI they fail."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    lacking("No Chromium on this machine: install it (apt-get install chromium) and run the tests again.")


@pytest.fixture(scope="session")
def site() -> Iterator[Website]:
    """The bicycle pages, each a little slow, so that the reading can be watched."""
    website = Website(SITE, delay=0.15)
    yield website
    website.stop()


@pytest.fixture(scope="session")
def handbook_site() -> Iterator[Website | None]:
    """A real documentation site of about 130 pages; None where the package cannot be had."""
    folder = handbook()
    website = Website(folder) if folder else None
    yield website
    if website:
        website.stop()


@pytest.fixture(scope="session")
def product(chromium: Path, stack: Stack, site: Website, handbook_site: Website | None) -> Iterator[Product]:
    """Everything runs, and may read the tests' own websites although their address is private."""
    targets = [f"127.0.0.1:{website.port}" for website in (site, handbook_site) if website]
    environment = {**stack.environment, "RETORT_ALLOW_PRIVATE": ",".join(targets), "OMP_NUM_THREADS": "1"}
    running = Product(stack.settings.visitor_url, stack.settings.dashboard_url, environment, OUTPUT / "logs")
    try:
        running.start()
        yield running
    finally:
        running.stop()


OwnerFactory = Callable[..., Awaitable[Owner]]
LinkFactory = Callable[[Owner], Awaitable[str]]


@pytest.fixture(scope="session")
async def database(stack: Stack) -> AsyncIterator[Database]:
    opened = Database(stack.settings.database_url, application="retort-browser-tests")
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def new_owner(database: Database, product: Product) -> OwnerFactory:
    async def make(**described: Any) -> Owner:
        name = secrets.token_hex(4)
        slug, email = f"bicycles-{name}", f"owner-{name}@example.org"
        described = {"name": "Bicycle guide", "greeting": "What shall we repair today?", **described}
        async with database.transaction(None) as session:
            workspace = await accounts.create_workspace(session, "Bicycle care", f"workspace-{name}")
            member = await accounts.create_member(session, workspace.id, email, "Robin Owner", "owner")
            token = await accounts.create_sign_in_link(session, member)
            key = await accounts.create_api_key(session, member, "browser tests", ["read", "write", "ask"])
            await assistants.create_assistant(session, workspace.id, slug=slug, **described)
        return Owner(slug, key, f"{product.dashboard}/sign-in#token={token}", workspace.id, member.id)

    return make


@pytest.fixture(scope="session")
def sign_in_link(database: Database, product: Product) -> LinkFactory:
    """Another one-time link for an owner."""

    async def make(owner: Owner) -> str:
        async with database.transaction(owner.workspace_id) as session:
            member = await session.get(Member, owner.member_id)
            assert member is not None
            return f"{product.dashboard}/sign-in#token={await accounts.create_sign_in_link(session, member)}"

    return make


@pytest.fixture(scope="session")
def shop() -> Iterator[Website]:
    """The owner's own website, on another port than Retort; its first page carries the script tag."""
    website = Website(SITE, made={})
    yield website
    website.stop()


@pytest.fixture(scope="session")
async def ready(product: Product, new_owner: OwnerFactory, site: Website, shop: Website) -> Owner:
    """An owner whose assistant has read the bicycle pages and may answer on the shop's page."""
    owner = await new_owner(
        allowed_origins=[shop.origin],
        intro="Ask about punctures, brakes, chains and everything else on these pages.",
        suggested_questions=["How often should I oil the chain?", "When do I replace a tyre?"],
        contact_email="workshop@example.org",
    )
    source = owner.call(product, "POST", "/sources", {"kind": "website", "url": f"{site.origin}/", "assistant": owner.slug})
    async with asyncio.timeout(150):
        while source["status"] not in ("read", "failed"):
            await asyncio.sleep(0.5)
            source = owner.call(product, "GET", f"/sources/{source['id']}")
    assert source["status"] == "read", source["reason"]
    shop.pages["/"] = embedding_page(product, owner)
    return owner


@pytest.fixture(scope="session")
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=str(chromium), args=list(ARGUMENTS))
        yield launched
        await launched.close()


WindowFactory = Callable[..., Awaitable[Window]]


@pytest.fixture
async def window(browser: Browser) -> AsyncIterator[WindowFactory]:
    """`await window(width=360)` opens a context; at the end of the test none of its pages may have complained."""
    opened: list[Window] = []

    async def make(width: int = 1440, height: int = 900, **options: Any) -> Window:
        context = await browser.new_context(viewport={"width": width, "height": height}, locale="en-GB", **options)
        opened.append(Window(context))
        return opened[-1]

    yield make
    for one in opened:
        await one.context.close()
    complaints = [complaint for one in opened for complaint in one.complaints]
    assert complaints == [], "the browser's console: " + "; ".join(complaints)

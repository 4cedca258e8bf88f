"""The full page and the dashboard, at the widths and in the colours in which people use them."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import LinkFactory, OwnerFactory, WindowFactory
from tests.browser.conversing import sources
from tests.browser.people import PATIENCE_MS, Owner, photograph
from tests.browser.product import Product


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_full_page_shows_the_cited_passage_beside_the_answer(
    window: WindowFactory, ready: Owner, product: Product, scheme: str
) -> None:
    page = await (await window(color_scheme=scheme)).page()
    await page.goto(f"{product.visitor}/a/{ready.slug}")
    await expect(page.get_by_role("heading", name="What shall we repair today?")).to_be_visible()
    await photograph(page, f"full-page-empty-{scheme}")
    await page.get_by_role("button", name="How often should I oil the chain?").click()
    answer = page.locator(".answered").first
    await expect(answer).to_be_visible(timeout=PATIENCE_MS)
    assert any("200 kilometres" in quotation for quotation in await sources(answer))
    await expect(page.locator("mark", has_text="200 kilometres").last).to_be_visible()
    await photograph(page, f"full-page-{scheme}")


async def test_the_conversation_is_there_again_after_coming_back(window: WindowFactory, ready: Owner, product: Product) -> None:
    page = await (await window()).page()
    await page.goto(f"{product.visitor}/a/{ready.slug}")
    await page.get_by_role("button", name="When do I replace a tyre?").click()
    await expect(page.locator(".answered")).to_have_count(1, timeout=PATIENCE_MS)
    text = await page.locator(".answered").inner_text()
    await page.reload()
    await expect(page.locator(".answered")).to_have_count(1)
    assert (await page.locator(".answered").inner_text()).split() == text.split()


async def test_the_one_time_link_signs_in_only_once(window: WindowFactory, new_owner: OwnerFactory, product: Product) -> None:
    owner = await new_owner()
    first = await (await window()).page()
    await first.goto(owner.link)
    await expect(first.get_by_label("Address of your website")).to_be_visible()
    other = await window()
    second = await other.page()
    await second.goto(owner.link)
    await expect(second.get_by_role("alert")).to_be_visible()
    other.complaints.clear()  # the refused sign-in is a 401, which the browser reports as an error


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (768, "light"), (360, "light")])
async def test_the_dashboard_fits_the_screen(
    window: WindowFactory,
    ready: Owner,
    sign_in_link: LinkFactory,
    product: Product,
    width: int,
    scheme: str,
) -> None:
    page = await (await window(width, 900, color_scheme=scheme)).page()
    await page.goto(await sign_in_link(ready))
    await expect(page.locator("main#main")).to_be_visible()
    for room in ("content", "assistant", "assistant/settings", "assistant/embed", "account"):
        await page.goto(f"{product.dashboard}/{room}")
        await expect(page.locator("main#main")).to_be_visible()
        await page.wait_for_load_state("networkidle")
        await photograph(page, f"dashboard-{room.replace('/', '-')}-{width}-{scheme}")
        wide = await page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
                [...document.querySelectorAll('body *')].filter(n => n.getBoundingClientRect().right > innerWidth + 1)
                    .map(n => `${n.tagName.toLowerCase()}.${n.className}`).slice(0, 5)"""
        )
        assert wide == [], f"/{room} scrolls sideways at {width} px"

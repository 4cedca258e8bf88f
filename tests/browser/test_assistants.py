"""Several assistants in one dashboard: a new one for a website, which one is chosen, and what a page's reader sees of a long list."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect
from sqlalchemy import delete

from app.assistants.models import Assistant
from app.db.session import Database
from tests.browser.conftest import LinkFactory, OwnerFactory, WindowFactory
from tests.browser.people import Owner, photograph
from tests.browser.product import Product
from tests.browser.sites import Website

PHONE = {"width": 360, "height": 740, "has_touch": True, "is_mobile": True}
TOUCH = 40  # px: the least that a finger needs
DOCS = "<html><head><title>How Retort works</title></head><body><main><p>Retort answers from the pages it has read.</p></main></body></html>"


def sources_by_name(owner: Owner, product: Product) -> dict[str, list[str]]:
    """The addresses that each assistant answers from."""
    address = {source["id"]: source["url"] for source in owner.call(product, "GET", "/sources")["items"]}
    return {a["name"]: [address[i] for i in a["source_ids"]] for a in owner.call(product, "GET", "/assistants")["items"]}


async def in_window(page: Page, selector: str) -> bool:
    return await page.locator(selector).evaluate(
        "n => { const box = n.getBoundingClientRect(); return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight; }"
    )


async def test_a_website_is_kept_apart_from_the_guides_own_documentation(
    window: WindowFactory, product: Product, new_owner: OwnerFactory, site: Website
) -> None:
    site.pages["/guide-docs/"] = DOCS
    owner = await new_owner(name="Retort guide")
    docs = f"{site.origin}/guide-docs/"
    owner.call(product, "POST", "/sources", {"kind": "website", "url": docs, "assistant": owner.slug})
    page = await (await window(1280, 800)).page()
    await page.goto(owner.link)
    await page.get_by_role("link", name="Content", exact=True).first.click()
    await page.get_by_role("button", name="Add website").click()

    # Three keys and two lines of text are enough, and none of it reaches the guide.
    await expect(page.get_by_label("Address")).to_be_focused()
    await page.keyboard.type(f"{site.origin}/tyres.html")
    await expect(page.get_by_role("combobox", name="Assistant", exact=True).locator("option:checked")).to_have_text(
        "New assistant"
    )
    await expect(page.get_by_label("Name of the new assistant")).to_have_value(site.origin.removeprefix("http://"))
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.type("Bicycles")
    await photograph(page, "dashboard-add-website")
    await page.keyboard.press("Enter")
    row = page.locator(".table tbody tr", has_text="tyres.html")
    await expect(row.get_by_text("Bicycles", exact=True)).to_be_visible()
    await expect(page.locator(".table tbody tr", has_text="guide-docs").get_by_text("Retort guide", exact=True)).to_be_visible()
    assert sources_by_name(owner, product) == {"Retort guide": [docs], "Bicycles": [f"{site.origin}/tyres.html"]}

    # The new one is chosen from now on, also after a reload, and the next website is offered to it.
    await page.get_by_role("button", name="Add website").click()
    await expect(page.get_by_role("combobox", name="Assistant", exact=True).locator("option:checked")).to_have_text("Bicycles")
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Assistant", exact=True).first.click()
    await page.reload()
    await expect(page.get_by_role("combobox", name="Assistant", exact=True).locator("option:checked")).to_have_text("Bicycles")
    await page.get_by_role("combobox", name="Assistant", exact=True).select_option(label="Retort guide")
    await page.reload()
    await expect(page.get_by_role("combobox", name="Assistant", exact=True).locator("option:checked")).to_have_text(
        "Retort guide"
    )


async def test_a_new_assistant_is_made_on_a_phone_and_led_to_its_website(
    window: WindowFactory, product: Product, ready: Owner, sign_in_link: LinkFactory, site: Website
) -> None:
    phone = await window(**PHONE, color_scheme="dark")
    page = await phone.page()
    await page.goto(await sign_in_link(ready))
    await page.get_by_role("button", name="New assistant").click()
    await expect(page.get_by_label("Name")).to_be_focused()
    await page.keyboard.type("Workshop")

    # A public address that another has, and a network that is away: said at the place, and nothing is lost.
    await page.get_by_label("Public address").fill(ready.slug)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text(f"{ready.slug} is another assistant's address already")
    await expect(page.get_by_label("Public address")).to_be_focused()
    await photograph(page, "dashboard-new-assistant-360-dark")
    await page.get_by_label("Public address").fill("")
    await phone.context.set_offline(True)
    await page.get_by_role("button", name="Make assistant").click()
    await expect(page.get_by_role("alert")).to_contain_text("Not made. The server could not be reached.")
    await phone.context.set_offline(False)
    await page.get_by_role("button", name="Make assistant").click()
    await expect(page.get_by_role("heading", name="Which website should answer?")).to_be_visible()
    await expect(page.get_by_text("“Workshop” reads it")).to_be_visible()
    phone.complaints.clear()  # the browser reports the refused and the failed request

    # It can be left, and comes back where nothing can be answered yet.
    await page.reload()
    await page.get_by_role("link", name="Not now").click()
    await expect(page.get_by_role("heading", name="Nothing to answer from yet")).to_be_visible()
    await photograph(page, "dashboard-assistant-bare-360-dark")
    small = await page.evaluate(
        """least => [...document.querySelectorAll('button, a, select, textarea')].map(n => [n, n.getBoundingClientRect()])
            .filter(([n, box]) => box.height > 0 && !n.matches('.skip') && (box.height < least || box.width < least))
            .map(([n, box]) => `${n.ariaLabel ?? n.textContent} ${box.width} × ${box.height}`)""",
        TOUCH,
    )
    assert small == [], "too small for a finger"
    await page.get_by_role("link", name="Add website").click()
    await page.get_by_label("Address of your website").fill(f"{site.origin}/tools.html")
    await page.get_by_role("button", name="Read website").click()
    await expect(page.get_by_role("heading", name=re.compile("Reading your website|Your assistant answers"))).to_be_visible()
    assert sources_by_name(ready, product)["Workshop"] == [f"{site.origin}/tools.html"]
    assert sources_by_name(ready, product)["Bicycle guide"] == [f"{site.origin}/"]


async def test_a_workspace_without_an_assistant_offers_one(
    window: WindowFactory, new_owner: OwnerFactory, database: Database
) -> None:
    owner = await new_owner()
    async with database.transaction(owner.workspace_id) as session:
        await session.execute(delete(Assistant).where(Assistant.slug == owner.slug))
    page = await (await window(1280, 800)).page()
    await page.goto(owner.link)
    await expect(page.get_by_role("heading", name="No assistant yet")).to_be_visible()
    await photograph(page, "dashboard-no-assistant")
    await page.get_by_role("button", name="New assistant").click()
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()
    await page.keyboard.type("Bicycles")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Which website should answer?")).to_be_visible()
    await expect(page.get_by_label("Address of your website")).to_be_focused()


async def test_a_page_chosen_far_down_the_list_is_shown_in_view(
    window: WindowFactory, product: Product, ready: Owner, sign_in_link: LinkFactory
) -> None:
    page = await (await window(1280, 480)).page()
    await page.goto(await sign_in_link(ready))
    await expect(page.get_by_role("button", name="New assistant")).to_be_visible()  # signed in, and led where that leads
    await page.get_by_role("link", name="Content", exact=True).first.click()
    source = ready.call(product, "GET", f"/assistants/{ready.slug}")["source_ids"][0]
    await page.locator(f'a[href="/content/{source}"]').click()
    row = page.locator(f'.pageitem[href^="/content/{source}/"]').last
    await expect(row).to_be_visible()
    await row.scroll_into_view_if_needed()
    await row.focus()
    address = await row.get_attribute("href")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="Passages")).to_be_visible()
    await photograph(page, "dashboard-page-far-down")
    assert await in_window(page, ".doc-head h2")

    # The keyboard is in the pane, and comes back to the row.
    await expect(page.get_by_role("article", name="Document")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="All pages")).to_be_focused()
    assert await in_window(page, ".back")
    await page.keyboard.press("Escape")
    await expect(page.locator(f'a[href="{address}"]')).to_be_focused()

    await page.set_viewport_size({"width": 360, "height": 740})
    await page.locator(f'a[href="{address}"]').click()
    await expect(page.get_by_role("region", name="Passages")).to_be_visible()
    assert await in_window(page, ".doc-head h2")
    await page.get_by_role("link", name="All pages").click()
    await expect(page.locator(f'a[href="{address}"]')).to_be_focused()
    assert await in_window(page, f'a[href="{address}"]')

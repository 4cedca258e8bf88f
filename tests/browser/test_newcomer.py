"""What a newcomer does, from a website's address to a cited answer on a page of their own."""

from __future__ import annotations

import re

from playwright.async_api import expect

from tests.browser.conftest import OwnerFactory, WindowFactory
from tests.browser.conversing import ask, in_view, open_widget, sources
from tests.browser.people import embedding_page, lacking, photograph
from tests.browser.product import Product
from tests.browser.sites import Website


async def test_from_a_websites_address_to_a_cited_answer_on_ones_own_page(
    window: WindowFactory, product: Product, new_owner: OwnerFactory, site: Website, shop: Website
) -> None:
    owner = await new_owner()
    dashboard = await (await window()).page()

    # The printed link signs in once and asks for the one thing that is missing: an address.
    await dashboard.goto(owner.link)
    await expect(dashboard.get_by_role("heading", name="Which website should answer?")).to_be_visible()
    await photograph(dashboard, "first-run-address")
    await dashboard.get_by_label("Address of your website").fill(f"{site.origin}/")
    await dashboard.get_by_role("button", name="Read website").click()
    await expect(dashboard.get_by_role("heading", name="Reading your website")).to_be_visible()

    # The reading is watched page by page.
    await dashboard.get_by_role("link", name="Go to the dashboard").click()
    bar = dashboard.get_by_role("progressbar", name="Pages").first
    await expect(dashboard.locator(".pageitem .badge", has_text="Read").first).to_be_visible()
    await photograph(dashboard, "dashboard-reading")
    assert 0 < int(await bar.get_attribute("aria-valuenow") or 0) <= int(await bar.get_attribute("aria-valuemax") or 0)
    await expect(dashboard.get_by_role("button", name="Read again")).to_be_enabled(timeout=120_000)

    # What was left out says why.
    await dashboard.get_by_role("button", name=re.compile("^Skipped")).click()
    for page in ("torque-table.pdf", "draft.html", "prices.html"):
        await expect(dashboard.locator(".pageitem", has_text=page).locator(".reason")).not_to_be_empty()
    await dashboard.get_by_role("button", name=re.compile("^Failed")).click()
    await expect(dashboard.locator(".pageitem", has_text="gone.html").locator(".reason")).to_contain_text("404")
    await dashboard.get_by_role("button", name=re.compile("^All")).click()
    await dashboard.locator(".pageitem", has_text="chain.html").first.click()
    await expect(dashboard.get_by_role("region", name="Passages")).to_contain_text("Oil it every 200 kilometres")
    await photograph(dashboard, "dashboard-content")

    # A question is tried beside the passages that were found for it.
    await dashboard.get_by_role("link", name="Assistant").first.click()
    trial = dashboard.get_by_role("region", name="Conversation").first
    answer = await ask(trial, "How often should I oil the chain?")
    assert any("200 kilometres" in quotation for quotation in await sources(answer))
    await expect(dashboard.get_by_role("complementary", name="Why this answer")).to_contain_text("The chain")
    await photograph(dashboard, "dashboard-assistant")

    # Their own website is allowed, and carries the assistant by one line.
    await dashboard.get_by_role("link", name="Settings").click()
    await dashboard.get_by_label("Allowed origins").fill(shop.origin)
    await dashboard.get_by_role("button", name="Save").click()
    await expect(dashboard.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    await photograph(dashboard, "dashboard-settings")
    shop.pages["/newcomer"] = embedding_page(product, owner)
    people = await window()
    page = await people.page()
    await page.goto(f"{shop.origin}/newcomer")
    frame = await open_widget(page)
    answer = await ask(frame, "How do I remove a squeal of the brakes?")
    assert any("half a millimetre" in quotation for quotation in await sources(answer))
    await photograph(page, "widget")

    # The citation opens the owner's page at the quoted sentence.
    await frame.get_by_role("button", name="New conversation").click()
    answer = await ask(frame, "Which valves are there?")
    link = answer.locator("a.source", has_text="three kinds of valve").first
    address = await link.get_attribute("href") or ""
    assert address.startswith(f"{site.origin}/tyres.html#valves:~:text="), address
    async with people.context.expect_page() as opened:
        await link.click()
    cited = await opened.value
    await cited.wait_for_load_state()
    await cited.wait_for_function("scrollY > 0", timeout=10_000)
    assert await in_view(cited, "There are three kinds of valve")
    await photograph(cited, "cited-page")


async def test_a_real_documentation_site_is_read_and_answers(
    window: WindowFactory, product: Product, new_owner: OwnerFactory, handbook_site: Website | None
) -> None:
    if handbook_site is None:
        lacking("The Debian handbook is not here and cannot be fetched: apt-get install debian-handbook")
    owner = await new_owner(name="Handbook guide", greeting="What would you like to look up?")
    dashboard = await (await window()).page()
    await dashboard.goto(owner.link)
    await dashboard.get_by_label("Address of your website").fill(f"{handbook_site.origin}/sect.apt-get.html")
    await dashboard.get_by_role("button", name="Read website").click()
    await expect(dashboard.get_by_role("heading", name="Reading your website")).to_be_visible()
    await dashboard.get_by_role("link", name="Go to the dashboard").click()
    # Answers begin with the first pages; the rest of the website is read meanwhile.
    await expect(dashboard.locator(".pageitem", has_text="sect.apt-get.html").locator(".badge")).to_have_text("Read")
    full = await (await window()).page()
    await full.goto(f"{product.visitor}/a/{owner.slug}")
    answer = await ask(full, "What does apt update do?")
    await photograph(full, "handbook-full-page")
    quotations = await sources(answer)
    assert any("to download" in quotation for quotation in quotations), quotations
    await expect(dashboard.get_by_text(re.compile(r"pages?/s"))).to_be_visible()
    await expect(dashboard.get_by_role("button", name=re.compile(r"^Read \d\d"))).to_be_visible()
    await dashboard.locator(".pageitem", has_text="sect.apt-get.html").click()
    await expect(dashboard.get_by_role("region", name="Passages")).to_contain_text("apt update")
    await photograph(dashboard, "dashboard")
    # Whoever takes a website away in the middle of its reading is rid of it, and its pages are read no further.
    source = owner.call(product, "GET", "/sources")["items"][0]
    owner.call(product, "DELETE", f"/sources/{source['id']}")
    assert owner.call(product, "GET", "/sources")["items"] == []

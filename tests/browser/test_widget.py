"""The widget on an owner's page: answers, memory, refusals, and everything that a visitor may do in the middle of it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from sqlalchemy import select

from app.conversations.models import Message
from app.conversations.views import render_text
from app.db.session import Database
from tests.browser.conftest import WindowFactory
from tests.browser.conversing import answers, ask, open_widget, send, sources
from tests.browser.people import PATIENCE_MS, Owner, Window, lacking, photograph
from tests.browser.product import Product
from tests.browser.sites import Website

AXE = Path(__file__).parents[2] / "app/frontend/node_modules/axe-core/axe.min.js"


async def visit(person: Window, shop: Website) -> Page:
    page = await person.page()
    await page.goto(f"{shop.origin}/")
    return page


async def test_a_follow_up_finds_its_passages_again(window: WindowFactory, ready: Owner, shop: Website) -> None:
    page = await visit(await window(), shop)
    frame = await open_widget(page)
    first = await ask(frame, "What is the right tyre pressure?")
    assert any("bar" in quotation for quotation in await sources(first))
    second = await ask(frame, "And how often should I check it?")
    assert any("every two weeks" in quotation for quotation in await sources(second))
    await photograph(page, "widget-follow-up")


async def test_what_a_visitor_says_of_themselves_is_remembered_without_sources(
    window: WindowFactory, ready: Owner, shop: Website
) -> None:
    frame = await open_widget(await visit(await window(), shop))
    await ask(frame, "Hello, my order number is 48213.")
    answer = await ask(frame, "What was my order number?")
    await expect(answer).to_contain_text("48213")
    await expect(answer.locator(".source")).to_have_count(0)


async def test_a_question_without_an_answer_is_refused_with_the_nearest_pages_and_a_person(
    window: WindowFactory, ready: Owner, shop: Website
) -> None:
    page = await visit(await window(), shop)
    frame = await open_widget(page)
    answer = await ask(frame, "Can I take my bicycle on the train to Vienna?")
    await photograph(page, "widget-refusal")
    await expect(answer.locator(".source q")).to_have_count(0)
    await expect(answer.locator(".source-near").first).to_be_visible()
    await expect(answer.get_by_role("link", name="workshop@example.org")).to_have_attribute("href", "mailto:workshop@example.org")


async def test_a_reload_in_mid_answer_shows_the_whole_answer_once(
    window: WindowFactory, ready: Owner, shop: Website, product: Product
) -> None:
    page = await visit(await window(), shop)
    frame = await open_widget(page)
    await send(frame, "When do I replace a tyre?")
    await expect(frame.locator(".source").first).to_be_visible()
    await page.reload()
    frame = await open_widget(page)
    await expect(answers(frame)).to_have_count(1)
    assert len(await frame.locator(".msg-visitor").all()) == 1
    quotations = await sources(answers(frame).first)
    assert any("side wall is cracked" in quotation for quotation in quotations)
    assert len(quotations) == len(set(quotations))


async def test_an_answer_can_be_stopped_and_asked_for_again(
    window: WindowFactory, ready: Owner, shop: Website, product: Product
) -> None:
    page = await visit(await window(), shop)
    frame = await open_widget(page)
    generator = product.children["generator"]
    generator.signal(signal.SIGSTOP)  # so that the answer is certainly still expected
    try:
        await send(frame, "How do I remove a squeal of the brakes?")
        await frame.get_by_role("button", name="Stop answering").click()
        await expect(frame.get_by_text("Stopped.")).to_be_visible()
    finally:
        generator.signal(signal.SIGCONT)
    await frame.get_by_role("button", name="Ask again").click()
    await expect(answers(frame).locator(".source", has_text="toe-in").first).to_be_visible(timeout=PATIENCE_MS)


async def test_everything_works_by_keyboard(window: WindowFactory, ready: Owner, shop: Website) -> None:
    page = await visit(await window(), shop)
    launcher = page.get_by_role("button", name="Bicycle guide", exact=True)
    await expect(launcher).to_be_visible()
    for _ in range(40):  # past the page's own links
        await page.keyboard.press("Tab")
        if await launcher.evaluate("node => node.getRootNode().activeElement === node"):
            break
    await expect(launcher).to_be_focused()
    await page.keyboard.press("Enter")
    frame = page.frame_locator("retort-widget iframe")
    await expect(frame.get_by_label("Your question")).to_be_focused()
    await page.keyboard.type("Which valves are there?")
    await page.keyboard.press("Enter")
    await expect(answers(frame).first).to_be_visible(timeout=PATIENCE_MS)
    await expect(frame.get_by_label("Your question")).to_be_focused()
    await expect(frame.get_by_role("status").filter(has_text=re.compile("source"))).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(launcher).to_be_focused()
    await expect(launcher).to_have_attribute("aria-expanded", "false")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_the_panel_covers_the_screen_and_nothing_sticks_out(
    window: WindowFactory, ready: Owner, shop: Website, scheme: str
) -> None:
    page = await visit(await window(360, 740, color_scheme=scheme, has_touch=True, device_scale_factor=2), shop)
    await photograph(page, f"phone-closed-{scheme}")
    frame = await open_widget(page)
    await photograph(page, f"phone-welcome-{scheme}")
    await ask(frame, "When do I replace a tyre?")
    await photograph(page, f"phone-{scheme}")
    box = await page.locator("retort-widget iframe").bounding_box()
    assert box is not None
    assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 360, 740)
    widths = await frame.locator("html").evaluate("node => [node.scrollWidth, node.clientWidth]")
    assert widths[0] <= widths[1], "the conversation scrolls sideways"


FOCUSED = "() => document.activeElement.id || document.activeElement.localName"


async def test_on_a_phone_the_keyboard_stays_in_the_panel_until_it_is_closed(
    window: WindowFactory, ready: Owner, shop: Website
) -> None:
    page = await visit(await window(360, 740), shop)
    frame = await open_widget(page)
    host = await page.locator("retort-widget").get_attribute("id")
    composer = frame.get_by_label("Your question")
    await expect(composer).to_be_focused()
    focused, returned = set(), False
    for key in ("Tab", "Shift+Tab"):
        for _ in range(12):  # more than the panel has, so that it goes round
            await page.keyboard.press(key)
            focused.add(await page.evaluate(FOCUSED))
            returned = returned or await composer.evaluate("node => node === document.activeElement && document.hasFocus()")
    assert focused <= {host, "body"}, "the keyboard reached the covered page"  # body: the browser's own window, in between
    assert returned, "the keyboard does not come back into the panel"
    link = page.locator("a").first
    await link.evaluate("node => node.focus()")
    assert await page.evaluate(FOCUSED) != "a", "a covered link takes the focus"
    await page.set_viewport_size({"width": 1280, "height": 800})  # now the panel stands beside the page
    # As soon as the page has been told of its new size, which is not at once.
    await page.wait_for_function(
        "() => { const link = document.querySelector('a'); link.focus(); return document.activeElement === link; }"
    )
    await page.set_viewport_size({"width": 360, "height": 740})
    await expect(composer).to_be_visible()
    await frame.get_by_role("button", name="Close").click()
    await expect(page.get_by_role("button", name="Bicycle guide", exact=True)).to_be_focused()
    await link.evaluate("node => node.focus()")
    assert await page.evaluate(FOCUSED) == "a"


async def test_what_a_page_says_is_drawn_as_its_own_characters(
    window: WindowFactory, ready: Owner, shop: Website, database: Database
) -> None:
    """The answer's words are put in the place of a real one: no page of bicycles speaks of HTML."""
    person = await window(1280, 800)
    frame = await open_widget(await visit(person, shop))
    await ask(frame, "When do I replace a tyre?")
    page_says = 'The server calls __init_plugin__ for each of *.so & *.dll, and never <img src=x onerror="alert(1)"> [click](javascript:alert(1)).'
    wording = f"Call `pluginctl`: {page_says} See https://evil.example/."
    async with database.transaction(ready.workspace_id) as session:
        newest = select(Message).where(Message.role == "assistant").order_by(Message.id.desc()).limit(1)
        message = (await session.execute(newest)).scalar_one()
        evidence, citation = (message.evidence or [])[0], message.citations[0]
        message.sentences, message.evidence = [wording], [{**evidence, "text": page_says}]
        message.citations = [{**citation, "number": evidence["number"], "passage": page_says}]
        message.text = render_text([wording], message.evidence)
    state = await person.context.storage_state()
    for width, height, scheme in ((1280, 800, "light"), (1280, 800, "dark"), (360, 740, "light"), (360, 740, "dark")):
        page = await visit(await window(width, height, color_scheme=scheme, storage_state=state), shop)
        frame = await open_widget(page)
        prose = answers(frame).last.locator(".prose")
        await expect(prose).to_contain_text(page_says)
        await expect(prose.locator("strong, em, img, a:not(.cite)")).to_have_count(0)
        await expect(prose.locator("code")).to_have_text("pluginctl")
        assert any(page_says in quotation for quotation in await sources(answers(frame).last))
        await photograph(page, f"widget-verbatim-{width}-{scheme}")


async def test_a_page_that_is_not_allowed_is_told_so(
    window: WindowFactory, product: Product, ready: Owner, site: Website
) -> None:
    """The reading site's own port is no allowed origin."""
    site.pages["/stranger"] = shop_page = (
        f'<!doctype html><title>Elsewhere</title><body><script src="{product.visitor}/widget.js" '
        f'data-assistant="{ready.slug}" async></script></body>'
    )
    assert shop_page
    person = await window()
    page = await person.page()
    await page.goto(f"{site.origin}/stranger")
    await page.get_by_role("button", name="Ask a question").click()
    await expect(page.get_by_role("alert")).to_contain_text("No assistant here right now")
    assert any("Retort" in complaint for complaint in person.complaints), "the owner finds nothing in the console"
    person.complaints.clear()


async def test_axe_finds_nothing_to_complain_of(window: WindowFactory, ready: Owner, shop: Website, product: Product) -> None:
    if not AXE.exists():
        lacking("axe-core is not installed: it belongs to the front end's development dependencies (npm ci in app/frontend)")
    person = await window(bypass_csp=True)
    page = await person.page()
    await page.goto(f"{product.visitor}/a/{ready.slug}")
    await ask(page, "How often should I oil the chain?")
    found = await axe(page)
    await page.goto(f"{shop.origin}/")
    frame = await open_widget(page)
    await ask(frame, "When do I replace a tyre?")
    found += await axe(page)
    assert found == []


async def axe(page: Page) -> list[str]:
    """The violations in the page and its frames, one line each."""
    found = []
    for frame in page.frames:
        await frame.add_script_tag(path=AXE)
        result = await frame.evaluate(
            "() => axe.run({iframes: false, runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
        )
        for violation in result["violations"]:
            targets = ", ".join(str(node["target"]) for node in violation["nodes"][:4])
            found.append(f"{violation['id']}: {violation['help']} ({targets})")
    return found

"""What one does and sees in a conversation: the same markup in the widget's frame, on the full page and in the dashboard."""

from __future__ import annotations

from playwright.async_api import FrameLocator, Locator, Page, expect

from tests.browser.people import PATIENCE_MS

View = Page | FrameLocator | Locator


async def open_widget(page: Page, name: str = "Bicycle guide") -> FrameLocator:
    """Press the launcher and give the conversation's frame once it can be typed into."""
    await page.get_by_role("button", name=name, exact=True).click()
    frame = page.frame_locator("retort-widget iframe")
    await expect(frame.get_by_label("Your question")).to_be_visible(timeout=PATIENCE_MS)
    return frame


def answers(view: View) -> Locator:
    """The assistant's finished answers, oldest first."""
    return view.locator(".answered")


async def send(view: View, text: str) -> None:
    await view.get_by_label("Your question").fill(text)
    await view.get_by_role("button", name="Send").click()


async def ask(view: View, text: str) -> Locator:
    """Ask, and give the answer once it is finished."""
    before = await answers(view).count()
    await send(view, text)
    answer = answers(view).nth(before)
    await expect(answer).to_be_visible(timeout=PATIENCE_MS)
    return answer


async def sources(answer: Locator) -> list[str]:
    """The quotations below an answer, as they are read."""
    return await answer.locator(".source q").all_inner_texts()


async def in_view(page: Page, text: str) -> bool:
    """Whether the element that holds `text` lies within the window's height."""
    return await page.evaluate(
        """text => {
            const holders = [...document.querySelectorAll('p, li, td')].filter(node => node.textContent.includes(text));
            const box = holders.at(-1)?.getBoundingClientRect();
            return Boolean(box) && box.bottom > 0 && box.top < innerHeight;
        }""",
        text,
    )

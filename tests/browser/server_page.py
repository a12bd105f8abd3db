"""Steps and observations of tests on the page of `matir serve` in a browser."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

PHOTOS = 40

QUERY = "yellow tree"

MODELS = "tiny"

Open = Callable[..., Page]
"""The fixture `open_page`."""


def status(page: Page, text: str) -> None:
    """Wait for a text in the line that says how far the search is."""
    expect(page.locator("#status")).to_have_text(re.compile(text), timeout=60_000)


def search(page: Page, text: str, done: str = "judged") -> None:
    page.locator("#text").fill(text)
    page.keyboard.press("Enter")
    status(page, done)


def shown(page: Page) -> list[int]:
    """Ids of the photos in the document, by their places."""
    script = "all => all.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map(one => Number(one.dataset.id))"
    return list(page.locator(".tile").evaluate_all(script))


def address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))

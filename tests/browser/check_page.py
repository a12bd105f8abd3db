"""Tests of the HTML page that `matir find --html` writes, in a real browser: `make browser-test`.

They are run by name only, since they need `pip install -e '.[browser-test]'` and Chromium: the system's
(its path in MATIR_CHROMIUM, or `chromium` or `google-chrome` in PATH), else the one that
`playwright install chromium` fetches.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.process import Indexed, matir

RESULTS = 8


@pytest.fixture(scope="module")
def html(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    words = ["find", "--no-rerank", "red house", "-n", RESULTS, "--db", indexed.gallery]
    assert matir(*words, "--html", path).returncode == 0
    return path


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, html: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in light and in dark; an error, a console message or a web request fails the test."""
    opened = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme=request.param)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
    opened.goto(html.as_uri())
    yield opened
    opened.close()
    assert complaints == []


def ground(page: Page) -> int:
    """Brightness of the page's background, 0 to 255."""
    text = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return int(text.split("(")[1].split(",")[0])


def opacities(page: Page, kind: str) -> list[float]:
    """Opacities of all elements of the page that `kind` selects."""
    script = "all => all.map(one => Number(getComputedStyle(one).opacity))"
    return list(page.locator(f"main {kind}").evaluate_all(script))


def test_it_renders(page: Page) -> None:
    assert page.locator("main figure").count() == RESULTS
    assert page.locator("main img").evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 0)")
    for figure in page.locator("main figure").all():
        box = figure.bounding_box()
        assert box is not None
        assert box["width"] > 100
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert set(opacities(page, ".mask")) == {1}
    assert set(opacities(page, ".box")) == {0}


def test_the_theme_follows_the_system_and_the_button(page: Page) -> None:
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (ground(page) < 60) == dark
    page.locator("#theme").click()
    assert (ground(page) < 60) != dark
    page.keyboard.press("t")
    assert (ground(page) < 60) == dark


def test_masks_and_boxes_are_switched_by_mouse(page: Page) -> None:
    page.locator("#masks").click()
    assert set(opacities(page, ".mask")) == {0}
    page.locator("main .switch").nth(2).click()
    assert opacities(page, ".mask") == [0, 0, 1, 0, 0, 0, 0, 0]
    assert page.locator("#masks").get_attribute("aria-pressed") == "mixed"
    page.locator("#masks").click()
    assert set(opacities(page, ".mask")) == {1}
    page.locator("#boxes").click()
    assert set(opacities(page, ".box")) == {1}


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    def focused() -> str:
        return str(page.evaluate("document.activeElement.getAttribute('aria-label')"))

    for _ in range(4):  # three buttons, then the first photo
        page.keyboard.press("Tab")
    assert focused().startswith("1. ")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("ArrowRight")
    assert focused().startswith("2. ")
    page.keyboard.press("Space")
    assert opacities(page, ".mask") == [1, 0, *[1] * (RESULTS - 2)]
    page.keyboard.press("ArrowDown")
    below = int(focused().split(".")[0])
    assert below > 2
    page.keyboard.press("ArrowUp")
    assert focused().startswith("2. ")
    page.keyboard.press("End")
    assert focused().startswith(f"{RESULTS}. ")
    page.keyboard.press("Enter")
    assert page.locator("dialog").evaluate("dialog => dialog.open")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    assert page.locator("dialog figure.bare").count() == 1
    page.keyboard.press("Escape")
    assert not page.locator("dialog").evaluate("dialog => dialog.open")
    # `wait_for_function` evaluates a text where it has to wait, which the page forbids.
    expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile(rf"^{RESULTS - 1}\. "))
    assert page.locator("main figure").nth(RESULTS - 2).evaluate("one => one.matches('.bare')")
    page.keyboard.press("m")
    page.keyboard.press("m")
    assert set(opacities(page, ".mask")) in ({0}, {1})
    page.keyboard.press("b")
    assert set(opacities(page, ".box")) == {1}


def test_it_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")

"""Fixtures: a gallery of drawn pictures, its server, and pages of it in a real browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from matir_cli.cli.commands.demo import draw
from matir_cli.gallery.database import GalleryFile
from tests.browser.server_page import MODELS, PHOTOS, Open
from tests.support.process import matir
from tests.support.server import Server, run_server

pytest_plugins = ["tests.browser.chromium"]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of drawn pictures, in two folders, with dates and cameras."""
    folder = tmp_path_factory.mktemp("demo")
    draw(folder / "photos", PHOTOS)
    (folder / "photos" / "more").mkdir()
    for number in range(0, PHOTOS, 4):
        (folder / "photos" / f"{number:04}.png").rename(folder / "photos" / "more" / f"{number:04}.png")
    gallery = folder / "gallery.db"
    assert matir("add", folder / "photos", "--db", gallery, "--models", MODELS).returncode == 0
    with GalleryFile.open(gallery) as opened:
        opened.connection.execute(
            "update photos set taken_at = printf('2024-%02d-%02dT12:00:00', 1 + id % 8, 1 + id % 28), "
            "camera = iif(id % 3, 'First <b>Camera', 'Second') where id > 4"
        )
        opened.connection.execute("update photos set latitude = 52.5, longitude = 13.4 + id where id <= 10")
        opened.connection.execute("update file_metadata set rating = 4 where path like '%/more/%'")
        opened.connection.execute(
            "insert into file_keywords select path, 'Places|<i>Here' from file_metadata where rating = 4"
        )
    return gallery


@pytest.fixture
def gallery(demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(demo, tmp_path / "gallery.db"))


@pytest.fixture(scope="module")
def server(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    copy = Path(shutil.copy(demo, tmp_path_factory.mktemp("served") / "gallery.db"))
    with run_server(copy, MODELS) as running:
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens pages; a console message, an error or a request to another host fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(
        server: Server,
        address: str = "",
        *,
        width: int = 1280,
        scheme: Literal["light", "dark"] = "light",
        motion: Literal["no-preference", "reduce"] = "no-preference",
        expected: str = "$^",
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 860},
            color_scheme=scheme,
            reduced_motion=motion,
        )
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()

        def on_console(message: ConsoleMessage) -> None:
            if not re.search(expected, message.text):
                complaints.append(message.text)

        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda r: None if r.url.startswith((server.url, "blob:", "data:")) else complaints.append(r.url),
        )
        page.goto(server.url + address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []

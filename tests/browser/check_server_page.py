"""Tests of the page of `matir serve` in a real browser, with the real server: `make browser-test`."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from matir_cli.cli.commands.demo import draw
from matir_cli.gallery.database import GalleryFile
from tests.support.grown_gallery import grow
from tests.support.process import MATIR, matir
from tests.support.server import Server, run_server

pytest_plugins = ["tests.browser.chromium"]

PHOTOS = 40

QUERY = "yellow tree"

MODELS = "tiny"

SETS = Path(__file__).parents[2] / "models"

Open = Callable[..., Page]


@pytest.fixture(scope="module")
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


# Searching


def test_results_come_at_once_and_move_to_their_places(open_page: Open, server: Server) -> None:
    page = open_page(server)
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("#start")).to_contain_text(f"{PHOTOS} photos")
    page.evaluate("""() => {
        window.orders = [];
        new MutationObserver(() => {
            const tiles = [...document.querySelectorAll('.tile')];
            tiles.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet);
            const order = tiles.slice(0, 4).map((tile) => tile.dataset.id).join();
            const searched = document.querySelector('#status').textContent.includes('likeness');
            if (searched && order !== orders.at(-1)) orders.push(order);
        }).observe(document.querySelector('#results'), { childList: true, subtree: true, attributes: true });
    }""")
    search(page, QUERY)
    first = shown(page)[:4]
    assert len(page.evaluate("orders")) > 1
    found = matir("find", QUERY, "-n", 50, "--jsonl", *server.options)
    paths = [json.loads(line)["path"] for line in found.stdout.splitlines()]
    assert [server.get(f"/api/photos/{each}")["paths"][0] for each in first] == paths[:4]
    expect(page.locator(".group h2").first).to_have_text(re.compile(r"\d+ photos? with the object"))
    assert page.locator(".tile .edged").count() > 3
    assert page.locator(".tile img").evaluate_all("all => all.every(i => i.naturalWidth > 0)")
    page.locator(".tile .open").first.hover()
    expect(page.locator(".tile .line").first).to_contain_text("%")
    assert address(page)["q"] == [QUERY]


def test_judging_stops_and_goes_on(open_page: Open, server: Server) -> None:
    page = open_page(server)
    search(page, "purple ring", "Judged [1-9]")
    page.get_by_role("button", name="Stop").click()
    status(page, "Stopped")
    page.get_by_role("button", name="Judge more").click()
    status(page, r"^\d+ of 40 judged")
    more = page.get_by_role("button", name="Judge more")
    while more.is_visible():
        more.click()
        expect(page.locator("#bar")).to_be_hidden(timeout=60_000)
    status(page, "40 of 40 judged")


def test_the_slider_and_the_command_line(open_page: Open, server: Server) -> None:
    page = open_page(server, "?q=yellow+tree&not=dog")
    status(page, "judged")
    slider = page.get_by_label("Least probability")
    slider.fill("50")
    likely = page.locator(".tile")
    count = int(page.locator("#tools output").inner_text().split(": ")[1])
    assert count == likely.count() > 0
    assert count < PHOTOS
    page.get_by_role("button", name="As a command").click()
    expect(page.locator("#command textarea")).to_have_value(re.compile("--min-p 0.5"))
    page.get_by_role("button", name="Copy").click()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:4] == ["matir", "find", "--not", "dog"]
    done = subprocess.run([*MATIR, *words[1:], "--jsonl"], capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == count


def test_filters(open_page: Open, server: Server) -> None:
    page = open_page(server, "?q=red+house&judge=off")
    status(page, f"{PHOTOS} photos by likeness")

    def chip(name: str) -> None:
        page.locator(f"[data-filter={name}]").click()
        expect(page.locator("#panel")).to_be_visible()

    chip("places")
    page.locator("#panel .choice", has_text="more").click()
    status(page, "^10 photos")
    page.keyboard.press("Escape")
    assert address(page)["in"][0].endswith("/photos/more")
    page.get_by_label("Remove more").click()
    status(page, f"^{PHOTOS} photos")
    chip("dates")
    bars = page.locator(".bars button")
    assert bars.count() == 8
    bars.nth(2).click()
    expect(page.locator(".chip.set")).to_have_text("2024-03")
    bars.nth(2).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".chip.set")).to_have_text("2024-03 to 2024-04")
    page.get_by_label("Until").fill("2024")
    page.keyboard.press("Enter")
    expect(page.locator(".chip.set")).to_have_text("2024-03 to 2024")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.filter") == "dates"
    page.get_by_label("Remove 2024-03 to 2024").click()
    chip("camera")
    page.locator("#panel .choice", has_text="First <b>Camera").click()
    status(page, "^24 photos")
    page.keyboard.press("Escape")
    chip("size")
    page.get_by_role("button", name="Small").click()
    page.get_by_role("spinbutton", name="To").fill("5")
    page.keyboard.press("Enter")
    expect(page.locator(".chip.set").last).to_have_text("up to 5% of the photo")
    page.keyboard.press("Escape")
    chip("without")
    page.get_by_label("What not to find").fill("rope")
    page.keyboard.press("Enter")
    expect(page.locator(".chip.set").last).to_have_text("not rope")
    page.keyboard.press("Escape")
    chip("shape")
    page.get_by_role("button", name="Square").click()
    sent = address(page)
    assert {name: sent[name] for name in ("camera", "max", "not", "shape", "judge")} == {
        "camera": ["First <b>Camera"],
        "max": ["0.05"],
        "not": ["rope"],
        "shape": ["square"],
        "judge": ["off"],
    }
    page.go_back()
    expect(page.locator(".chip.set").last).to_have_text("not rope")


def test_filters_by_metadata_and_the_order(open_page: Open, server: Server) -> None:
    page = open_page(server, "?q=yellow+tree&judge=off")
    status(page, f"{PHOTOS} photos by likeness")
    sets = page.locator(".chip.set")

    def chip(name: str) -> None:
        page.locator(f"[data-filter={name}]").click()
        expect(page.locator("#panel")).to_be_visible()

    chip("place")
    near = page.get_by_label("Near (latitude, longitude)")
    near.fill("52.5, 999")
    page.keyboard.press("Enter")
    assert near.evaluate("field => field.validationMessage").startswith("Latitude")
    near.fill("52.5, 14.4")
    page.keyboard.press("Enter")
    status(page, "^1 photo by likeness")
    page.get_by_role("spinbutton", name="Within").fill("70")
    page.keyboard.press("Enter")
    status(page, "^2 photos by likeness")
    expect(sets).to_have_text("within 70 km of 52.5, 14.4")
    page.get_by_role("button", name="Without one").click()
    status(page, "^30 photos by likeness")
    page.get_by_label("Remove without a position").click()
    chip("rating")
    page.get_by_role("button", name="★ 3 or more").click()
    status(page, "^10 photos by likeness")
    page.keyboard.press("Escape")
    chip("keywords")
    page.get_by_role("button", name="Places|<i>Here").click()
    page.get_by_label("Keyword; * stands for anything").fill("indoors")
    page.get_by_role("button", name="Without", exact=True).click()
    expect(sets.last).to_have_text("without “indoors”")
    page.keyboard.press("Escape")
    chip("unique")
    page.get_by_role("button", name="Show once").click()
    page.keyboard.press("Escape")
    chip("sort")
    page.get_by_role("button", name="By path").click()
    page.keyboard.press("Escape")
    expect(sets).to_have_text(
        ["★ 3 or more", "Places|<i>Here", "without “indoors”", "near-copies once", "by path"]
    )
    status(page, "^10 photos by likeness")
    paths = [server.get(f"/api/photos/{each}")["paths"][0] for each in shown(page)]
    assert len(paths) == 10
    assert paths == sorted(paths)
    # The command does the same search, and the address holds it.
    page.get_by_role("button", name="As a command").click()
    line = page.locator("#command textarea")
    expect(line).to_have_value(re.compile("--sort path"))
    done = subprocess.run(
        [*MATIR, *shlex.split(line.input_value())[1:], "--jsonl"], capture_output=True, check=True
    )
    assert [json.loads(each)["path"] for each in done.stdout.splitlines()] == paths
    page.reload()
    expect(sets).to_have_count(5)
    page.keyboard.press("Escape")
    for _ in range(5):
        sets.first.locator(".remove").click()
    expect(sets).to_have_count(0)
    status(page, f"{PHOTOS} photos by likeness")


def test_recent_queries_and_the_back_button(open_page: Open, server: Server) -> None:
    page = open_page(server)
    search(page, "red house")
    search(page, "blue car")
    page.go_back()
    expect(page.locator("#text")).to_have_value("red house")
    status(page, "judged")
    page.get_by_label("MaTIR, to the start").click()
    recent = page.locator("#start .chip")
    assert recent.all_inner_texts() == ["red house", "blue car"]
    recent.nth(1).click()
    status(page, "judged")
    page.reload()
    expect(page.locator("#text")).to_have_value("blue car")
    page.get_by_label("MaTIR, to the start").click()
    page.get_by_role("button", name="Forget these").click()
    expect(recent).to_have_count(0)


# A photo large


def test_a_photo_says_why_it_is_there(open_page: Open, server: Server) -> None:
    text = "house left of a tree"
    page = open_page(server, f"?q={text.replace(' ', '+')}")
    status(page, "judged")
    page.locator(".tile .open").first.click()
    why = page.locator(".why")
    expect(why.locator("h3")).to_have_text(
        ["Likeness, part by part", "The judge", "Regions that fit the judge's box"]
    )
    photo = int(urlsplit(page.url).fragment.removeprefix("photo-"))
    made = server.post("/api/explanations", {"search": {"text": text}, "photo": photo})["explanation"]
    terms, relations = made["stage1"]["terms"], made["stage1"]["relations"]
    parts = why.locator(".parts > li")
    assert parts.count() == len(terms) + len(relations) + bool(made["stage1"]["whole_photo"])
    expect(parts.first).to_contain_text(f"“{text}”")
    expect(parts.first).to_contain_text(f"+{terms[0]['contribution']:.3f}")
    expect(why).to_contain_text(f"the sum is {made['stage1']['score']:.3f}")
    expect(why).to_contain_text(f"True {made['verdict']['z_true']:.2f}")
    matches = made["boxes"][0]["matches"]
    assert why.locator(".matches li").all_inner_texts() == [
        f"{'✓ ' if each['chosen'] else ''}region {each['region']['ordinal']}, "
        f"{each['region']['share']:.0%} of the photo: IoU {each['iou']:.2f}"
        for each in matches
    ]
    why.locator("summary").first.click()
    assert why.locator("details li").count() == len(terms[0]["prompts"]) > 0
    page.keyboard.press("ArrowRight")  # the next photo has an explanation of its own, as open as this one
    expect(why.locator("details[open]")).to_have_count(1)
    page.keyboard.press("Escape")


def test_photos_near_a_photo_are_found(open_page: Open, server: Server) -> None:
    page = open_page(server, "?q=yellow+tree&judge=off&place=")
    status(page, "by likeness")
    page.goto(f"{page.url}#photo-3")
    expect(page.locator("#photo dl")).to_contain_text("52.5000, 16.4000")
    page.get_by_role("button", name="Find photos from here").click()
    status(page, "^1 photo by likeness")
    assert shown(page) == [3]
    assert address(page)["near"] == ["52.5~16.4"]


def test_a_region_is_found_in_all_photos(open_page: Open, server: Server) -> None:
    page = open_page(server, "?q=yellow+tree")
    status(page, "judged")
    page.locator(".tile .open").first.click()
    expect(page.locator("#photo dl")).to_contain_text("The judge drew the box; region")
    expect(page.locator("#photo dl")).to_contain_text("p 0.9")
    title = page.locator("#photo-title").inner_text()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#photo-title")).not_to_have_text(title)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#photo-title")).to_have_text(title)
    region = page.locator(".region").last
    region.hover(force=True)
    expect(page.locator(".region-name")).to_have_text(re.compile(r"Object \d+, .*% of the photo"))
    box = page.locator(".figure svg").bounding_box()
    assert box is not None
    regions = server.get(f"/api/photos/{urlsplit(page.url).fragment.removeprefix('photo-')}/regions")[
        "regions"
    ]
    chosen = min(regions[1:], key=lambda each: each["share"])
    region.press("Enter")
    status(page, f"{PHOTOS} photos by likeness")
    assert address(page)["like"][0].endswith(f".{chosen['id']}")
    expect(page.locator(".like image")).to_have_count(1)
    # As an example beside the text.
    page.go_back()
    expect(page.locator("#text")).to_have_value(QUERY)
    status(page, "judged")
    page.locator(".tile .open").first.click()
    page.get_by_label("Like this too").check()
    page.locator(".region").last.press("Enter")
    status(page, "judged")
    assert set(address(page)) == {"q", "like"}
    page.get_by_label("Share of the example").fill("80")
    status(page, "judged")
    assert address(page)["weight"] == ["0.8"]
    # Another object is not wanted.
    page.locator(".tile .open").last.click()
    page.get_by_label("Not this").check()
    page.locator(".region").first.press("Enter")
    status(page, "judged")
    assert set(address(page)) == {"q", "like", "unlike", "weight"}
    expect(page.locator(".unlike image")).to_have_count(1)
    page.get_by_label("Remove what is not wanted").click()
    expect(page.locator(".unlike")).to_have_count(0)
    page.get_by_label("Remove the example").click()
    expect(page.locator(".like")).to_have_count(0)


def test_a_box_is_found_in_all_photos(open_page: Open, server: Server) -> None:
    page = open_page(server)
    page.locator(".tile .open").first.click()
    drawing = page.locator(".figure svg")
    box = drawing.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    expect(page.locator(".band.drawn")).to_be_visible()
    page.mouse.up()
    status(page, "photos by likeness|^$")
    photo, *edges = address(page)["like"][0].split("~")
    facts = server.get(f"/api/photos/{photo}")
    shares = [0.2 * facts["width"], 0.2 * facts["height"], 0.5 * facts["width"], 0.6 * facts["height"]]
    assert [float(edge) for edge in edges] == pytest.approx(shares, abs=1.5)
    # The same by keys.
    page.goto(f"{server.url}#photo-{photo}")
    expect(page.locator(".region").first).to_be_attached()
    page.keyboard.press("b")
    expect(page.locator(".band.drawn")).to_be_visible()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator("#photo")).to_be_hidden()
    moved = [float(edge) for edge in address(page)["like"][0].split("~")[1:]]
    shares = [0.35, 0.33, 0.67, 0.63]
    size = [facts["width"], facts["height"]] * 2
    assert moved == pytest.approx([a * b for a, b in zip(shares, size, strict=True)], abs=0.1)


# Selecting


def test_selections_are_downloaded(open_page: Open, server: Server) -> None:
    page = open_page(server, "?q=yellow+tree")
    status(page, "judged")
    ids = shown(page)
    page.locator(".tick").nth(0).click()
    page.locator(".tile .open").nth(3).click(modifiers=["Shift"])
    bar = page.locator("#selection")
    expect(bar).to_contain_text("4 photos selected")
    contents: dict[str, bytes] = {}
    for form in ("Cut-outs", "Masks", "COCO", "Paths"):
        with page.expect_download() as download:
            bar.get_by_role("button", name=form).click()
        contents[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    for name in ("cutouts.zip", "masks.zip"):
        with zipfile.ZipFile(io.BytesIO(contents[name])) as archive:
            assert len(archive.namelist()) == 4
    assert {image["id"] for image in json.loads(contents["coco.json"])["images"]} == set(ids[:4])
    assert contents["paths.txt"].decode().splitlines() == [
        server.get(f"/api/photos/{each}")["paths"][0] for each in ids[:4]
    ]
    bar.get_by_role("button", name="Clear").click()
    expect(bar).to_be_hidden()


def test_all_of_it_works_by_keyboard(open_page: Open, server: Server) -> None:
    page = open_page(server)
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    status(page, "judged")
    for _ in range(30):
        page.keyboard.press("Tab")
        if focused(page).startswith("1. "):
            break
    assert focused(page).startswith("1. ")
    assert page.evaluate("getComputedStyle(document.activeElement.closest('.tile')).outlineStyle") == "solid"
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#selection")).to_contain_text("3 photos selected")
    page.keyboard.press("a")
    expect(page.locator("#selection")).to_contain_text(f"{PHOTOS} photos selected")
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()
    page.keyboard.press("End")
    assert focused(page).startswith(f"{PHOTOS}. ")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    assert focused(page).startswith("1. ")
    page.keyboard.press("Enter")
    expect(page.locator("#photo")).to_be_visible()
    for _ in range(12):  # the focus stays in the dialog
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
    page.keyboard.press("Escape")
    expect(page.locator("#photo")).to_be_hidden()
    expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile(r"^1\. "))
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()


# What is missing


def test_an_empty_gallery(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    matir("add", tmp_path / "photos", "--db", tmp_path / "empty.db", "--models", MODELS)
    with run_server(tmp_path / "empty.db", MODELS) as server:
        page = open_page(server)
        expect(page.locator(".notice")).to_contain_text("no photo in this gallery yet")
        expect(page.locator(".notice code")).to_have_text(f"matir add FOLDER --db {tmp_path}/empty.db")


def test_a_judge_that_is_missing_or_without_weights(open_page: Open, gallery: Path, tmp_path: Path) -> None:
    shutil.copytree(SETS / "tiny", tmp_path / "tiny")
    text = (SETS / "tiny.toml").read_text()
    for judge, reason in (("weights", "qwen_vl.gguf"), ("none", "judge")):
        (tmp_path / "tiny" / "qwen_vl.gguf").unlink(missing_ok=True)
        toml = tmp_path / f"{judge}.toml"
        toml.write_text(text if judge == "weights" else text[: text.index("[judge]")])
        with run_server(gallery, toml) as server:
            page = open_page(server, "?q=red+house")
            status(page, f"^{PHOTOS} photos by likeness")
            expect(page.locator(".notice")).to_contain_text("ranked by likeness alone")
            expect(page.locator(".notice")).to_contain_text(reason)
            expect(page.locator("#judge")).to_be_disabled()
            page.get_by_role("button", name="All right").click()
            expect(page.locator(".notice")).to_have_count(0)
            page.close()  # it may still load photos


def test_a_server_that_is_gone_and_comes_back(open_page: Open, gallery: Path) -> None:
    with run_server(gallery, MODELS) as server:
        port = urlsplit(server.url).port
        page = open_page(server, "?q=red+house&judge=off", expected="ERR_|Failed to load")
        status(page, "by likeness")
    page.locator("#text").fill("blue car")
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text("The server does not answer")
    with run_server(gallery, MODELS, "--port", port):
        status(page, "by likeness")
        expect(page.locator(".notice")).to_have_count(0)
        assert address(page)["q"] == ["blue car"]


def test_a_busy_server(open_page: Open, gallery: Path) -> None:
    with run_server(gallery, MODELS) as server:
        page = open_page(server, expected="429")
        expect(page.locator(".tile").first).to_be_visible()
        started = []
        for number in range(40):
            body = json.dumps({"text": f"red house {number}", "certainty": 1}).encode()
            code, _, content = server.request("POST", "/api/searches", json.loads(body))
            if code == 202:
                started.append(json.loads(content)["stop"])
        page.locator("#text").fill("blue car")
        page.keyboard.press("Enter")
        expect(page.locator(".notice")).to_contain_text("The server is busy")
        for stop in started:
            server.request("POST", stop)
        status(page, "judged")
        page.close()


def test_a_token_is_asked_for(open_page: Open, gallery: Path) -> None:
    with run_server(gallery, MODELS, "--token", "s3cret") as server:
        page = open_page(server, expected="401")
        page.get_by_label("Token").fill("s3cret")
        page.keyboard.press("Enter")
        expect(page.locator("#start")).to_contain_text(f"{PHOTOS} photos")
        assert page.locator(".tile img").first.evaluate("image => image.decode().then(() => true)")
        page.close()  # it may still load photos


# Looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hinders_people(open_page: Open, server: Server, scheme: str) -> None:
    page = open_page(server, scheme=scheme, motion="reduce")

    def check() -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()

    expect(page.locator(".tile").first).to_be_visible()
    check()
    page.goto(f"{server.url}?q=yellow+tree&not=dog")
    status(page, "judged")
    page.locator(".tick").first.click()
    check()
    for name in ("places", "dates", "place", "rating", "keywords", "size", "without", "unique", "sort"):
        page.locator(f"[data-filter={name}]").click()
        check()
        page.keyboard.press("Escape")
    page.get_by_role("button", name="As a command").click()
    check()
    page.keyboard.press("Escape")
    page.locator(".tile .open").first.click()
    expect(page.locator(".region").first).to_be_attached()
    check()
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 60) == (scheme == "dark")
    durations = page.evaluate(
        "[...document.querySelectorAll('*')].map(e => getComputedStyle(e).transitionDuration)"
    )
    assert set(durations) == {"0s"}


@pytest.mark.parametrize("width", [360, 390, 900, 1600])
def test_it_fits_all_widths(open_page: Open, server: Server, width: int) -> None:
    page = open_page(server, "?q=yellow+tree", width=width)
    status(page, "judged")
    page.locator(".tick").first.click(force=True)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    rows = page.locator(".tile").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(r => [r.left, r.right])"
    )
    assert min(left for left, _ in rows) >= 0
    assert max(right for _, right in rows) <= width
    page.locator(".tile .open").first.click(force=True)
    expect(page.locator("#photo .close")).to_be_in_viewport()
    figure = page.locator(".figure").bounding_box()
    assert figure is not None
    assert figure["width"] <= width


def test_a_large_gallery_scrolls(open_page: Open, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with GalleryFile.open(gallery) as opened:
        grow(opened, 20_000)
    with run_server(gallery, MODELS) as server:
        page = open_page(server, "?q=red+house&judge=off")
        expect(page.locator("#start, #progress").last).to_be_visible()
        status(page, "200 photos by likeness")
        page.get_by_role("button", name="Show more").click()
        status(page, "1,000 photos by likeness")
        inspector = page.context.new_cdp_session(page)
        inspector.send(
            "Performance.enable", {"timeDomain": "threadTicks"}
        )  # what other processes do is left out

        def spent() -> dict[str, float]:
            """Seconds of the processor that the main thread has spent so far, by kind of work."""
            metrics = inspector.send("Performance.getMetrics")["metrics"]
            return {each["name"]: each["value"] for each in metrics if each["name"].endswith("Duration")}

        before = spent()
        figures: dict[str, Any] = page.evaluate("""async () => {
            const times = [];
            let nodes = 0;
            let last = performance.now();
            const end = document.documentElement.scrollHeight - innerHeight;
            for (let y = 0; y < end; y += 90) {
                scrollTo(0, y);
                await new Promise(requestAnimationFrame);
                const now = performance.now();
                times.push(now - last);
                last = now;
                nodes = Math.max(nodes, document.querySelectorAll('*').length);
            }
            times.sort((a, b) => a - b);
            const at = (share) => times[Math.floor(share * (times.length - 1))];
            return { frames: times.length, median: at(0.5), p95: at(0.95), most: at(1), nodes };
        }""")
        parts = ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration")
        after = spent()
        work = {part: round(1000 * (after[part] - before[part]) / figures["frames"], 2) for part in parts}
        with capsys.disabled():
            sys.stdout.write(
                f"\n1,000 results of 20,000 photos, frames while scrolling, ms: {figures}\n"
                f"of these the page's own work, mean per frame, ms: {work}\n"
            )
        assert figures["frames"] > 100
        assert sum(work.values()) < 8  # half of a frame at 60 per second
        assert figures["nodes"] < 1500
        expect(page.locator(".tile").last).to_be_attached()
        assert page.locator(".tile").count() < 120
        page.keyboard.press("a")
        expect(page.locator("#selection")).to_contain_text("1,000 photos selected")
        page.close()  # it may still be loading pictures, and the server ends before it would be closed

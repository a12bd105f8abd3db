"""Tests of a photo shown large and of selections on the page of `matir serve`: `make browser-test`."""

import io
import json
import re
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.server_page import PHOTOS, QUERY, Open, address, focused, shown, status
from tests.support.server import Server

pytest_plugins = ["tests.browser.served_demo"]


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
    page.locator(".tile[aria-posinset='1'] .tick").click()
    page.locator(".tile[aria-posinset='4'] .open").click(modifiers=["Shift"])
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

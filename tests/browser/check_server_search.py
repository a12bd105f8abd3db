"""Tests of searching on the page of `matir serve`, in a real browser: `make browser-test`."""

import json
import re
import shlex
import subprocess

from playwright.sync_api import expect

from tests.browser.server_page import PHOTOS, QUERY, Open, address, search, shown, status
from tests.support.process import MATIR, matir
from tests.support.server import Server

pytest_plugins = ["tests.browser.served_demo"]


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
    expect(page.locator("[data-filter=dates]")).to_be_focused()
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

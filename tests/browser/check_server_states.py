"""Tests of what is missing, and of the looks, on the page of `matir serve`: `make browser-test`."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from matir_cli.gallery.database import GalleryFile
from tests.browser.server_page import MODELS, PHOTOS, Open, address, status
from tests.support.grown_gallery import grow
from tests.support.process import matir
from tests.support.server import Server, run_server

pytest_plugins = ["tests.browser.served_demo"]

SETS = Path(__file__).parents[2] / "models"


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

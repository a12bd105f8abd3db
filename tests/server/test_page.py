"""The page at `/` and what the HTTP API has for it, without a browser."""

import json
import re
import shlex
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.output.outlines import svg_path
from matir_cli.output.printable import printable
from matir_cli.server.command_lines import _FLAGS, _LISTS, _VALUES, shell_word
from matir_cli.server.facts import gallery_facts
from matir_cli.server.photos import newest_photos
from matir_cli.server.searches import SearchBody
from matir_cli.server.static_files import FOLDER, MEDIA_TYPES
from tests.server.test_api import QUERY, check, events_of, results_of
from tests.support.process import MATIR, PHOTOS, records
from tests.support.server import Server, run_server

PAGE = files("matir_cli.server").joinpath("page")


@pytest.mark.parametrize("name", sorted(each.name for each in PAGE.iterdir()))
def test_each_file_is_served_with_its_type_and_policy(server: Server, name: str) -> None:
    path = "/" if name == "index.html" else FOLDER + name
    status, headers, content = server.request("GET", path)
    assert (status, content) == (200, PAGE.joinpath(name).read_bytes())
    assert headers["Content-Type"] == MEDIA_TYPES[Path(name).suffix]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/..",
        "/page/../api.py",
        "/page/%2e%2e/api.py",
        "/page/..%2fapi.py",
        "/page//etc/passwd",
    ],
)
def test_no_other_file_is_served(server: Server, path: str) -> None:
    assert server.request("GET", path)[0] == 404


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_markup() -> None:
    names = {each.name for each in PAGE.iterdir()}
    for name in names:
        text = PAGE.joinpath(name).read_text(encoding="utf-8")
        hosts = set(re.findall(r"https?://[^\s\"'`/]+", text))
        assert hosts <= {"http://www.w3.org"}  # the namespace of SVG
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        if name.endswith(".html"):
            assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", text)
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in names


def test_the_page_is_there_without_the_token_and_nothing_else_is(gallery: Path, model_set: Path) -> None:
    with run_server(gallery, model_set, "--token", "s3cret") as server:
        assert server.request("GET", "/")[0] == 200
        assert server.request("GET", "/", headers={"Host": "evil.example"})[0] == 403
        for path in ("/api/gallery", "/api/photos", "/api/photos/1/image", "/api/openapi.json"):
            assert server.request("GET", path)[0] == 401
        assert server.request("POST", "/")[0] == 401


# Command lines

LINES: list[dict[str, Any]] = [
    {"text": QUERY, "rerank": False, "limit": 3},
    {"text": QUERY, "rerank": False, "limit": 4, "without": ["tree", "-dash"], "max_size": 0.5},
    {"text": QUERY, "limit": 2, "candidates": 5, "certainty": 1, "min_p": 0.01, "min_iou": 0.2},
    {"text": "-q house", "rerank": False, "limit": 2, "camera": ""},
    {"examples": [{"region": 2}], "limit": 5},
    {"text": QUERY, "rerank": False, "limit": 5, "examples": [{"region": 3}], "weight": 0.25},
    {"examples": [{"region": 3}, {"photo": 2}], "rule": "mean", "unlike": [{"region": 5}], "limit": 4},
    {"examples": [{"photo": 3}], "limit": 2, "until": "2999-01"},
    {"text": QUERY, "rerank": False, "limit": 4, "rating": [0, 3], "no_keywords": ["a*", "b"]},
    {"text": QUERY, "rerank": False, "limit": 4, "rating": [-1, -1], "keywords": ["-x"]},
    {"text": QUERY, "rerank": False, "limit": 4, "near": [-30.5, 0], "within": 2500.5, "unique": True},
    {"text": QUERY, "limit": 2, "candidates": 3, "explain": True, "match": "iou"},
    {"text": QUERY, "rerank": False, "limit": 4, "has_gps": False, "orientation": "portrait", "sort": "path"},
]


@pytest.mark.parametrize("body", LINES, ids=str)
def test_the_command_line_of_a_search_does_the_same_search(server: Server, body: dict[str, Any]) -> None:
    line = server.post("/api/commands", body)["command"]
    program, *words = shlex.split(line)
    assert program == "matir"
    printed = subprocess.run(
        [*MATIR, words[0], "--jsonl", "--no-server", *words[1:]], capture_output=True, check=False
    )
    assert printed.returncode in (0, 1), printed.stderr
    assert [each["result"] for each in results_of(server, body)] == records(printed)


def test_the_command_line_knows_all_settings() -> None:
    settings = {name for name, _ in _FLAGS} | set(_VALUES) | set(_LISTS)
    others = {"text", "examples", "unlike", "rule", "weight", "limit", "outlines"}
    assert settings | others == set(SearchBody.__struct_fields__)


@given(st.text(st.one_of(st.characters(), st.sampled_from("'\\\"$`!\n\x1b\x03\u202e\udc80\udcff"))))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_word_is_one_word_for_a_shell(text: str) -> None:
    text = text.replace("\0", "").encode("utf-8", "replace").decode()
    for word in (text, text + "\udcff1"):
        quoted = shell_word(word)
        assert printable(quoted) == quoted
        done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True)
        assert done.stdout == word.encode("utf-8", "surrogateescape")


def test_the_command_line_of_a_photo_that_is_gone(server: Server) -> None:
    status, _, content = server.request("POST", "/api/commands", {"examples": [{"region": 10**9}]})
    assert status == 404
    check(server, "Error", json.loads(content))


# What the page asks for


def test_the_newest_photos(server: Server, gallery: Path) -> None:
    photos = server.get("/api/photos?limit=5")["photos"]
    for each in photos:
        check(server, "Photo", each)
    assert [each["id"] for each in photos] == [PHOTOS - n for n in range(5)]  # none has a date
    assert len(server.get("/api/photos")["photos"]) == PHOTOS
    with GalleryFile.open(gallery) as opened:
        opened.connection.execute("update photos set taken_at = '2024-05-01T10:00:00' where id = 3")
        opened.connection.execute("update photos set taken_at = '2024-06-01T10:00:00' where id = 5")
        assert [each.id for each in newest_photos(opened, 3)] == [5, 3, PHOTOS]


def test_outlines_come_with_the_first_results_and_on_request(server: Server) -> None:
    body = {"text": QUERY, "rerank": False, "outlines": 2}
    results = results_of(server, body)
    assert ["outline" in each for each in results] == [True, True, *[False] * (PHOTOS - 2)]
    full = {each["region_id"]: each["outline"] for each in results_of(server, {**body, "outlines": 1000})}
    ids = [each["region_id"] for each in results]
    answer = server.get(f"/api/regions/outlines?ids={','.join(map(str, ids))},999999")
    assert {int(key): value for key, value in answer["outlines"].items()} == full
    for wrong in ("", "x", "1,", "-1", ",".join(["1"] * 201), "9" * 30):
        assert server.request("GET", f"/api/regions/outlines?ids={wrong}")[0] == 400
    with GalleryFile.open(server.gallery) as opened:
        region = opened.region(ids[0])
    assert full[ids[0]] == svg_path(region.region.rle)


def test_a_page_is_told_what_it_can_filter_by(gallery: Path) -> None:
    with GalleryFile.open(gallery) as opened:
        db = opened.connection
        facts = gallery_facts(opened, "tiny")
        assert (facts.keywords, facts.located, facts.rated) == ((), 0, 0)
        paths = [path for (path,) in db.execute("select path from file_metadata order by path")]
        assert len(paths) == PHOTOS
        words = [("b", 2), ("a", 2), ("c<b>", 3)]
        for word, count in words:
            db.executemany(
                "insert into file_keywords values (?, ?)", [(path, word) for path in paths[:count]]
            )
        db.execute("update file_metadata set rating = 3 where path <= ?", (paths[4],))
        db.execute("update photos set latitude = 1, longitude = 2 where id = 3")
        facts = gallery_facts(opened, "tiny")
        assert [(each.keyword, each.files) for each in facts.keywords] == [("c<b>", 3), ("a", 2), ("b", 2)]
        assert (facts.located, facts.rated) == (1, 5)
        db.execute("update file_keywords set keyword = x'ff' where keyword = 'a'")
        with pytest.raises(GalleryDamaged):
            gallery_facts(opened, "tiny")


def test_folders_are_counted_with_those_below(gallery: Path) -> None:
    with GalleryFile.open(gallery) as opened:
        db = opened.connection
        paths = [f"/p/{name}" for name in ("a/1", "a/2", "a/b/3", "a/b/4", "a/bc/5", "d é/6", "d é/e/f/7")]
        rows = db.execute("select path from files order by path").fetchall()
        for path, (old,) in zip(paths, rows, strict=False):
            db.execute("update files set path = ? where path = ?", (path, old))
        for (old,) in rows[len(paths) :]:
            db.execute("update files set path = ? where path = ?", (b"/q\xff/" + str(old).encode(), old))

        def counted() -> dict[str, int]:
            return {each.folder: each.files for each in gallery_facts(opened, "tiny").folders}

        below = {"/p/a": 5, "/p/a/b": 2, "/p/a/bc": 1, "/p/d é": 2, "/p/d é/e": 1, "/p/d é/e/f": 1}
        assert counted() == {"/p": 7, **below}
        db.execute("update files set path = '/8' where path = '/p/a/1'")
        assert counted() == {"/": 7, "/p": 6, **below, "/p/a": 4}
        db.execute("delete from files")
        assert counted() == {}


def test_selected_photos_of_several_searches_are_exported(server: Server) -> None:
    first = server.post("/api/searches", {"text": QUERY, "limit": 3, "certainty": 1})
    events = [*events_of(server, first)]
    other = server.post("/api/searches", {"text": QUERY, "rerank": False, "limit": PHOTOS})
    results = [*events_of(server, other)][-1][1]["results"]
    inside = [each["photo"] for each in events[-1][1]["results"]]
    known = {*inside, *(each["photo"] for each in events[0][1]["results"])}
    outside = [each["photo"] for each in results if each["photo"] not in known][:2]
    body = {"search": first["id"], "form": "paths", "photos": [*outside, *inside[:2]]}
    path_of = {each["photo"]: each["result"]["path"] for each in results}
    for further, photos in (([], inside[:2]), ([other["id"]], [*inside[:2], *outside])):
        status, _, content = server.request("POST", "/api/exports", {**body, "further": further})
        assert status == 200
        assert content.decode().splitlines() == [path_of[photo] for photo in photos]


def test_the_command_line_shows_a_point_and_a_box(server: Server) -> None:
    path = server.get("/api/photos/1")["paths"][0]
    for shown, option in (
        ({"point": [40, 50.5]}, "--point 40,50.5"),
        ({"box": [-1, 0, 9, 1e3]}, "--box=-1,0,9,1000"),
    ):
        line = server.post("/api/commands", {"examples": [{"photo": 1, **shown}]})["command"]
        assert line == f"matir find --image {shell_word(path)} {option} -n 50 {shell_words(server)}"


def shell_words(server: Server) -> str:
    """The options that name gallery and models."""
    return shlex.join(server.options)

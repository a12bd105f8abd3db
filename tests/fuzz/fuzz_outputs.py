"""Campaign: any file name and any query, in every form of output of a search."""

from __future__ import annotations

import io
import json
import os
import random
import string
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import yaml
from PIL import Image
from pycocotools.coco import COCO

from matir_cli import masks
from matir_cli.cli.options.output import PrintedForm
from matir_cli.cli.results import open_output
from matir_cli.errors import QueryEmpty, QueryNotText
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Rle
from matir_cli.search.query import Query
from matir_cli.search.results import SearchResult
from tests.fuzz.campaign import main_of
from tests.output.blocks import make_result, picture, put
from tests.output.odd_names import NAMES
from tests.output.test_files import all_forms, outcome

FORMS: list[PrintedForm | None] = ["json", "jsonl", "paths", "null", "answer", None]

PIECES = [
    *string.printable,
    *("\x00", "\x1b[31m", "\x85", "\u2028", "\u202e", "\ufeff", "\ufffe", "\U0001f600", "e\u0301", "שלום"),
    *(
        "</script>",
        "<!--",
        "]]>",
        "&amp;",
        '"><img src=x onerror=alert(1)>',
        "{x}",
        "%s",
        "../",
        "..",
        "null",
    ),
    *("- ", ": ", " #", "!!python/object:os.system", "~", "yes", "'", "$(id)", "\udcff", "\ud83d"),
]
"""Pieces of names and queries that one of the forms, or its readers, may take for something else."""


def draw_text(rng: random.Random, most: int) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, most)))


def draw_name(rng: random.Random) -> bytes:
    """A file name: bytes without a slash."""
    if rng.random() < 0.3:
        return rng.choice(NAMES)
    if rng.random() < 0.3:
        return rng.randbytes(rng.randint(1, 40)).replace(b"/", b"_")
    return draw_text(rng, 12).encode("utf-8", "surrogatepass").replace(b"/", b"_")


def draw_query(rng: random.Random) -> str:
    """A query that is searched for."""
    while True:
        query = Query(draw_text(rng, 10))
        try:
            query.check()
        except (QueryEmpty, QueryNotText):
            continue
        assert query.text is not None
        return query.text


def draw_result(rng: random.Random, gallery: GalleryFile, photos: Path, number: int) -> SearchResult:
    """A result whose photo has a drawn name: a file of that name if the system permits, else a stored one."""
    path = photos / f"{number}.png"
    picture(rng.randint(20, 60), 20 + number).save(path)
    photo_id = put(gallery, path, preview=rng.random() < 0.8)
    new = photos / os.fsdecode(draw_name(rng))
    try:
        if not os.path.lexists(new):
            path.rename(new)
    except (OSError, ValueError):
        pass
    result = make_result(gallery, photo_id, rank=number, others=rng.randint(0, 2), masked=rng.random() < 0.9)
    return replace(result, photo=replace(result.photo, paths=(new,)))


def trial(rng: random.Random, folder: Path) -> str | None:
    """Write results of drawn queries in all forms; say which of them cannot be read back."""
    photos, out = folder / "photos", folder / "out"
    photos.mkdir()
    shown = io.BytesIO()
    stdout, stderr = io.TextIOWrapper(shown, "utf-8", write_through=True), io.StringIO()
    with GalleryFile.open(folder / "gallery.db", create=True) as gallery:
        results = [draw_result(rng, gallery, photos, n) for n in range(1, rng.randint(2, 4))]
        queries = [draw_query(rng) for _ in range(rng.randint(1, 3))]
        printed = rng.choice(FORMS)
        options = all_forms(out, "json", all_instances=rng.random() < 0.5)
        options = replace(options, printed=printed)
        if len(queries) > 1:
            options = replace(options, html=None)
        before = {path: path.lstat().st_mtime_ns for path in photos.iterdir()}
        with redirect_stdout(stdout), redirect_stderr(stderr), open_output(gallery, options) as write:
            for query in queries:
                write(query, outcome(results))
    if {path: path.lstat().st_mtime_ns for path in photos.iterdir()} != before:
        return "a photo was changed, or something written beside it"
    if {path.name for path in folder.iterdir()} - {"photos", "out", "gallery.db"}:
        return "something was written outside the folder"
    check_printed(shown.getvalue(), printed, queries, results)
    check_coco(out / "coco.json", queries, results)
    check_yolo(out / "y", queries)
    if options.html is not None:
        check_html(options.html, len(results))
    for path in [*(out / "m").glob("*"), *(out / "c").glob("*"), *(out / "o").glob("*")]:
        with Image.open(path) as image:
            image.load()
    return None


def check_printed(
    text: bytes, printed: PrintedForm | None, queries: list[str], results: list[SearchResult]
) -> None:
    """Check that what is printed gives back queries and paths."""
    paths = [str(result.path) for result in results]
    names = [os.fsencode(path) for path in paths]
    match printed:
        case "null":
            assert text.split(b"\0")[:-1] == names * len(queries) or any(b"\0" in name for name in names)
        case "paths":
            assert text == b"".join(name + b"\n" for name in names) * len(queries)
        case "jsonl":
            assert [json.loads(line)["path"] for line in text.splitlines()] == paths * len(queries)
        case "json" | "answer":
            answers = [json.loads(line) for line in text.splitlines()]
            found = [answer["results"] if printed == "answer" else answer for answer in answers]
            assert [[record["path"] for record in records] for records in found] == [paths] * len(queries)
            if printed == "answer":
                assert [answer["query"] for answer in answers] == queries
        case None:
            table = text.decode()
            # Other spaces than " " cannot control a terminal; Python does not count them as printable.
            assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in table if c != "\n")
    if printed not in ("null", "paths", None):
        assert text.isascii()


def check_coco(path: Path, queries: list[str], results: list[SearchResult]) -> None:
    """Check names, and masks by decoding them."""
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert [each["name"] for each in coco.dataset["categories"]] == list(dict.fromkeys(queries))
    known = {result.photo.id: str(result.path) for result in results if result.objects[0].mask}
    assert {each["id"]: each["file_name"] for each in coco.dataset["images"]} == known
    assert len(coco.dataset["annotations"]) == len(known) * len(set(queries))
    for annotation in coco.dataset["annotations"]:
        height, width = annotation["segmentation"]["size"]
        masks.check(Rle(height, width, annotation["segmentation"]["counts"].encode()))


def check_yolo(folder: Path, queries: list[str]) -> None:
    """Check the class names, and that each label belongs to a listed image in the folder."""
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    assert names == dict(enumerate(dict.fromkeys(queries)))
    images = (folder / "train.txt").read_text("utf-8").splitlines()
    assert len(images) == len((folder / "sources.jsonl").read_text().splitlines())
    for image in images:
        path = (folder / image).resolve()
        assert path.is_relative_to(folder.resolve() / "images")
        for line in (folder / "labels" / f"{path.stem}.txt").read_text().splitlines():
            number, *corners = line.split()
            assert int(number) in names
            assert all(0 <= float(corner) <= 1 for corner in corners)
            assert len(corners) >= 6


class Elements(HTMLParser):
    """Counts elements, and notes those that could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.figures = self.scripts = 0
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.figures += tag == "figure"
        self.scripts += tag == "script"
        for name, value in attrs:
            foreign = name == "src" and not (value or "").startswith("data:image/jpeg;base64,")
            if (
                foreign
                or name.startswith("on")
                or (name == "href" and not (value or "").startswith("file:///"))
            ):
                self.active.append(f"{tag} {name}={value}")


def check_html(path: Path, count: int) -> None:
    """Check that names and query add no element and no attribute to the page."""
    page = Elements()
    page.feed(path.read_text("utf-8"))
    page.close()
    assert (page.figures, page.scripts, page.active) == (count, 1, [])


if __name__ == "__main__":
    main_of("outputs", trial, count=2_000)

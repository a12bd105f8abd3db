"""Every output of `matir find` in the real process, for files with unusual names.

What was written is read back by others: json, html.parser, pycocotools, Pillow, PyYAML.
"""

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from matir_cli.output.thumbnails import COLUMNS
from tests.support.process import MATIR, Indexed, matir, on_full_terminal, records

NAMES = [
    b"plain.png",
    b"new\nline\r.png",
    b"\xff\xfe\xfa not utf-8.png",
    "שלום\u202egpj.exe.png".encode(),
    b"'single' \"double\" `back` & <script>alert(1)<script>.png",
    b"\x1b]0;title\x07\x01\x7f.png",
    b"x" * 251 + b".png",
    b"percent%20#hash?query;.png",
]

QUERY = "</title><script>alert(\"red\")</script> & 'house' \u202e😀"


@dataclass(frozen=True)
class Outputs:
    """The output of one search."""

    photos: Path
    gallery: Path
    folder: Path
    done: subprocess.CompletedProcess[bytes]

    @property
    def records(self) -> list[dict[str, Any]]:
        return records(self.done)


@pytest.fixture(scope="module")
def outputs(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    folder = tmp_path_factory.mktemp("outputs")
    photos, gallery, out = folder / "photos \n", folder / "gallery.db", folder / "out"
    photos.mkdir()
    for number, name in enumerate(NAMES):
        shutil.copy(indexed.photos / f"{number:04}.png", photos / os.fsdecode(name))
    # The same photos under these names are recognised: no model runs.
    shutil.copy(indexed.gallery, gallery)
    added = matir("add", photos, "--db", gallery)
    assert f"{len(NAMES)} recognised" in added.stderr.decode()
    assert matir("rm", "--in", indexed.photos, "--db", gallery).returncode == 0
    done = find(gallery, "--jsonl", "--rle", *wanted(out))
    assert done.returncode == 0, done.stderr
    return Outputs(photos, gallery, out, done)


def find(gallery: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    return matir("find", "--no-rerank", QUERY, "--db", gallery, *words)


def wanted(out: Path) -> list[object]:
    folders = [
        word for name in ("masks", "cutouts", "overlays", "yolo") for word in (f"--{name}", out / name)
    ]
    return [*folders, "--coco", out / "coco.json", "--html", out / "page.html"]


# Readers: each gives the paths that an output names, as bytes.


def from_json_lines(outputs: Outputs) -> list[bytes]:
    return [os.fsencode(str(record["path"])) for record in outputs.records]


def from_json(outputs: Outputs) -> list[bytes]:
    return [os.fsencode(item["path"]) for item in json.loads(find(outputs.gallery, "--json").stdout)]


def from_null(outputs: Outputs) -> list[bytes]:
    return find(outputs.gallery, "-0").stdout.split(b"\0")[:-1]


def from_coco(outputs: Outputs) -> list[bytes]:
    read = COCO(outputs.folder / "coco.json")
    return [os.fsencode(read.imgs[item["image_id"]]["file_name"]) for item in read.dataset["annotations"]]


def from_yolo(outputs: Outputs) -> list[bytes]:
    lines = (outputs.folder / "yolo/sources.jsonl").read_text().splitlines()
    images = [f"./{json.loads(line)['image']}" for line in lines]
    assert images == (outputs.folder / "yolo/train.txt").read_text().splitlines()
    assert len(set(images)) == len(images)
    return [os.fsencode(json.loads(line)["path"]) for line in lines]


def from_html(outputs: Outputs) -> list[bytes]:
    return [unquote_to_bytes(link).removeprefix(b"file://") for link in read_page(outputs).links]


def from_table(outputs: Outputs) -> list[bytes]:
    """The links of the table on a terminal."""
    shown = on_full_terminal(["find", "--no-rerank", QUERY, "--db", outputs.gallery])
    links = re.findall(rb"\x1b]8;;file://[^/]*(/.*?)\x1b\\", shown)
    return [unquote_to_bytes(link) for link in links if link]


@pytest.mark.parametrize(
    "read", [from_json_lines, from_json, from_null, from_coco, from_yolo, from_html, from_table]
)
def test_every_name_survives(outputs: Outputs, read: Callable[[Outputs], list[bytes]]) -> None:
    names = read(outputs)
    assert sorted(names) == sorted(bytes(outputs.photos) + b"/" + name for name in NAMES)
    assert names == from_json_lines(outputs)


# Pictures


def test_pictures_are_of_the_photos_that_the_records_say(outputs: Outputs) -> None:
    for kind in ("masks", "cutouts", "overlays"):
        assert len([*(outputs.folder / kind).iterdir()]) == len(NAMES)
    for record in outputs.records:
        mask = coco_masks.decode(record["mask"]).astype(bool)
        with Image.open(str(record["mask_file"])) as image:
            assert (np.asarray(image) == mask * 255).all()
        with Image.open(str(record["path"])) as photo, Image.open(str(record["cutout_file"])) as cutout:
            rows, columns = np.nonzero(mask)
            box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            made, original = np.asarray(cutout), np.asarray(photo.convert("RGB"))
            assert ((made[..., 3] == 255) == mask[box]).all()
            assert (made[..., :3][mask[box]] == original[box][mask[box]]).all()
        with Image.open(str(record["overlay_file"])) as overlay:
            assert (overlay.format, max(overlay.size)) == ("JPEG", 1024)


# COCO


def test_coco_loads_and_scores(outputs: Outputs) -> None:
    truth = COCO(outputs.folder / "coco.json")
    annotations = truth.dataset["annotations"]
    assert [category["name"] for category in truth.loadCats(truth.getCatIds())] == [QUERY]
    for annotation, record in zip(annotations, outputs.records, strict=True):
        mask = truth.annToMask(annotation)
        assert (mask == coco_masks.decode(record["mask"])).all()
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == coco_masks.toBbox(record["mask"]).tolist()
        assert annotation["score"] == record["score"]
    for kind in ("segm", "bbox"):
        found = truth.loadRes([{k: a[k] for k in RESULT_KEYS} for a in annotations])
        scored = COCOeval(truth, found, kind)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
        assert scored.stats[0] == pytest.approx(1.0)


RESULT_KEYS = ("image_id", "category_id", "segmentation", "bbox", "score")


# YOLO, by the rules that Ultralytics documents for segmentation data sets


def test_yolo_labels_are_read_by_the_rules_of_the_format(outputs: Outputs) -> None:
    folder = outputs.folder / "yolo"
    config = yaml.safe_load((folder / "data.yaml").read_text())
    assert config["names"] == {0: QUERY}
    images = [folder / line for line in (folder / config["train"]).read_text().splitlines()]
    for image, record in zip(images, outputs.records, strict=True):
        with Image.open(image) as picture:
            picture.verify()
            size = picture.size
        # The label lies where /images/ is replaced by /labels/ and the suffix by .txt.
        label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        lines = label.read_text().splitlines()
        assert len(lines) == len(set(lines)) == 1
        kind, *numbers = lines[0].split()
        assert int(kind) in config["names"]
        corners = np.array(numbers, dtype=float).reshape(-1, 2)
        assert len(corners) >= 3
        assert (corners >= 0).all()
        assert (corners <= 1).all()
        filled = Image.new("1", size)
        # Pillow counts from the middle of a pixel.
        ImageDraw.Draw(filled).polygon([tuple(c) for c in (corners * size - 0.5).tolist()], fill=1)
        mask = coco_masks.decode(record["mask"]).astype(bool)
        assert (np.asarray(filled) & mask).sum() / mask.sum() > 0.95  # holes are filled


# The page


@dataclass
class PageReader(HTMLParser):
    """Collects what a page holds; knows nothing of how it was made."""

    links: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: dict[str, str] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs)
        self.tags.append((tag, attributes))
        if tag == "a":
            self.links.append(str(attributes["href"]))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in {*self._open}:
            self.text[tag] = self.text.get(tag, "") + data

    def close(self) -> None:
        super().close()
        assert self._open == []


def read_page(outputs: Outputs) -> PageReader:
    reader = PageReader()
    reader.feed((outputs.folder / "page.html").read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_the_page_needs_and_runs_nothing_but_its_own(outputs: Outputs) -> None:
    page = read_page(outputs)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    for part in ("default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.text[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    names = [tag for tag, _ in page.tags]
    assert (names.count("script"), names.count("style"), names.count("link")) == (1, 1, 0)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset")]
        assert str(attributes.get("src", "data:image/jpeg;base64,")).startswith("data:image/jpeg;base64,"), (
            tag
        )
        assert str(attributes.get("href", "file:///")).startswith("file:///")
    assert not re.search(r"url\(|@import|https?:", page.text["style"] + page.text["script"])


def test_the_page_shows_each_result(outputs: Outputs) -> None:
    page = read_page(outputs)
    shown = QUERY.replace("\u202e", "\\u202e")
    assert page.text["title"] == f"{shown} – matir"
    assert page.text["h1"] == shown
    visible = page.text["main"]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", visible)
    assert "שלום\\u202egpj.exe.png" in visible
    for record in outputs.records:
        assert f"{record['score']:.3f}" in visible
    for tag in ("figure", "img", "svg", "path"):
        assert sum(name == tag for name, _ in page.tags) == len(NAMES)
    for _, attributes in (found for found in page.tags if found[0] == "img"):
        data = base64.b64decode(str(attributes["src"]).partition(",")[2])
        assert data[:2] == b"\xff\xd8"
        assert max(int(str(attributes["width"])), int(str(attributes["height"]))) <= 800


# Files that exist


def test_a_file_is_kept_unless_forced(outputs: Outputs, tmp_path: Path) -> None:
    out = Path(shutil.copytree(outputs.folder, tmp_path / "out"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for option in (["--coco", out / "coco.json"], ["--html", out / "page.html"], ["--yolo", out / "yolo"]):
        done = find(outputs.gallery, *option)
        assert done.returncode == 2
        assert b"already exists; it was kept" in done.stderr
        assert b"--force" in done.stderr
        assert done.stdout == b""
    twice = find(outputs.gallery, "--force", "--coco", out / "one", "--html", out / "x" / ".." / "one")
    assert twice.returncode == 2
    assert b"would be written twice" in twice.stderr
    done = find(outputs.gallery, "--paths", "--masks", out / "masks")
    assert done.returncode == 0
    assert f"0 masks written to {out / 'masks'}, {len(NAMES)} existed and were kept" in done.stderr.decode()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    forced = find(outputs.gallery, "--paths", "--force", *wanted(out), "-n", 3)
    assert forced.returncode == 0, forced.stderr
    assert len(COCO(out / "coco.json").imgs) == 3
    assert len((out / "yolo/train.txt").read_text().splitlines()) == 3


# Pipes and terminals


def test_a_file_called_dash_is_standard_output(indexed: Indexed) -> None:
    words = ("find", "red house", "--no-rerank", "-n", 2, "--db", indexed.gallery)
    coco = matir(*words, "--coco", "-")
    assert (coco.returncode, len(json.loads(coco.stdout)["images"])) == (0, 2)
    page = matir(*words, "--html", "-").stdout.decode()
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")


@pytest.mark.parametrize("form", [[], ["--json", "--rle"], ["--jsonl"], ["--paths"], ["-0"]])
def test_a_reader_that_stops_reading_is_no_error(indexed: Indexed, form: list[str]) -> None:
    command = shlex.join([*MATIR, "find", "--no-rerank", "dog", *form, "--db", str(indexed.gallery)])
    # The reader has ended before the first line is written.
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, check=False
    )
    assert done.returncode == 0
    notes = ("matir: model set tiny", "are the whole photo")
    assert all(any(note in line for note in notes) for line in done.stderr.decode().splitlines())


def test_a_table_for_one_who_reads_on(indexed: Indexed) -> None:
    command = shlex.join([*MATIR, "find", "--no-rerank", "dog", "--db", str(indexed.gallery)])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -2"], capture_output=True, check=True
    )
    assert len(done.stdout.splitlines()) == 2
    assert b"\x1b" not in done.stdout


COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def test_colours_and_links_on_a_terminal_alone(indexed: Indexed) -> None:
    words = ["find", "--no-rerank", "dog", "-n", 2, "--db", indexed.gallery]
    shown = on_full_terminal(words)
    assert COLOUR.search(shown)
    assert shown.count(b"\x1b]8;;file://") == 2
    plain = on_full_terminal(words, NO_COLOR="1")
    assert not COLOUR.search(plain)
    assert plain.count(b"\x1b]8;;file://") == 2
    assert b"\x1b" not in matir(*words).stdout


@pytest.mark.parametrize("size", [(0, 0), (24, 0), (0, 100), (1, 1), (2, 3), (65535, 65535)])
def test_a_terminal_of_any_size_gets_its_answer(
    indexed: Indexed, tmp_path: Path, size: tuple[int, int]
) -> None:
    words = ["find", "--no-rerank", "dog", "-n", 1, "--db", indexed.gallery, "--preview"]
    shown = on_full_terminal([*words, "--masks", tmp_path], size=size)
    assert b".png" in shown
    assert (b"knows its size" in shown) == (0 in size)
    if 0 not in size:
        lines = shown.replace(b"\r", b"").split(b"\n")
        assert max(line.count("\u2580".encode()) for line in lines) in range(1, min(size[1], COLUMNS) + 1)


def test_a_dumb_terminal_gets_plain_text(indexed: Indexed) -> None:
    words = ["find", "--no-rerank", "dog", "-n", 1, "--db", indexed.gallery]
    shown = on_full_terminal([*words, "--preview"], TERM="dumb")
    assert b".png" in shown
    assert b"no pictures" in shown
    assert b"\x1b" not in shown


def test_thumbnails_on_a_terminal(indexed: Indexed, tmp_path: Path) -> None:
    words = ["find", "--no-rerank", "dog", "-n", 2, "--db", indexed.gallery, "--preview"]
    shown = on_full_terminal(words)
    assert shown.count("▀".encode()) > 200  # half blocks, as this terminal reports nothing better
    piped = matir(*words)
    assert piped.returncode == 0
    assert "▀".encode() not in piped.stdout
    assert b"--preview needs a terminal" in piped.stderr
    (tmp_path / "textual_image.py").write_text("raise ImportError")
    missing = on_full_terminal(words, code=2, PYTHONPATH=str(tmp_path))
    assert b"pip install 'matir-cli[preview]'" in missing
    refused = matir(*words, "--json")
    assert (refused.returncode, refused.stdout) == (2, b"")

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matir_cli import masks
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.output.json_encoding import to_json
from matir_cli.output.json_records import WrittenFiles, result_record
from matir_cli.output.printable import printable
from matir_cli.output.terminal import table_rows
from matir_cli.records import Box, Candidate, PhotoRecord, Region, Verdict
from matir_cli.search.results import GroundedObject, SearchResult

NAMES = [
    b"plain.jpg",
    b"new\nline.jpg",
    b"\xff\xfe\xfa.jpg",
    "שלום\u202egpj.exe".encode(),
    b"'quote\" & <tag>.jpg",
    b"\x1b]0;title\x07.jpg",
    b"..",
    b"...jpg",
    b"x" * 251 + b".jpg",
    "日本語".encode() * 27 + b".jpg",
]


def found(name: bytes = b"a.jpg", sha: int = 1, *, verdict: Verdict | None = None) -> SearchResult:
    mask = np.zeros((50, 100), dtype=np.bool_)
    mask[10:30, 20:60] = True
    rle = masks.encode(mask)
    region = StoredRegion(7, 1, 3, Box(200, 100, 600, 300), Region(rle, masks.box(rle), 800, 0.9, 0.95))
    path = Path("/photos") / os.fsdecode(name)
    photo = StoredPhoto(1, (path,), PhotoRecord(bytes([sha]) * 32, 1000, 500, 100, 50, 1))
    answer = GroundedObject(region.box, region, None, rle)
    other = GroundedObject(Box(0, 0, 5, 5), region, 0.25, None)
    return SearchResult(1, photo, Candidate(1, 7, 0.25), (answer, other), verdict)


@pytest.mark.parametrize("name", NAMES)
def test_json_survives_any_name(name: bytes) -> None:
    item = found(name)
    line = to_json(result_record(item, WrittenFiles(), with_rle=True, all_instances=False))
    assert line.isascii()
    assert "\n" not in line
    assert os.fsencode(json.loads(line)["path"]) == b"/photos/" + name


@pytest.mark.parametrize("name", NAMES)
def test_the_table_shows_any_name_harmlessly(name: bytes) -> None:
    (line,) = table_rows(found(name), all_instances=False, link_host=None)
    shown = click.unstyle(line)
    shown.encode()  # no surrogates left either
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert shown.split()[:3] == ["1", "0.250", "200,100,600,300"]


@pytest.mark.parametrize("name", NAMES)
def test_a_link_leads_to_the_file_whatever_it_is_called(name: bytes) -> None:
    (line,) = table_rows(found(name), all_instances=False, link_host="my host")
    before, url, shown, end, after = re.split(r"\x1b]8;;(.*?)\x1b\\", line)
    assert url.isascii()
    assert unquote_to_bytes(url) == b"file://my host/photos/" + name
    assert shown == table_rows(found(name), all_instances=False, link_host=None)[0][len(before) :]
    assert (end, after) == ("", "")


def test_further_objects_have_a_row_each() -> None:
    rows = table_rows(found(), all_instances=True, link_host=None)
    assert [row.split() for row in rows[1:]] == [["0,0,5,5"]]


@given(st.text())
def test_printable_text_has_nothing_to_steer_with_and_keeps_the_rest(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() or all(c.isprintable() or c in "\xa0\u3000 " or c.isspace() for c in shown)
    assert "\x1b" not in shown
    shown.encode()
    if text.isascii() and text.isprintable():
        assert shown == text


def test_the_record_of_a_judged_photo() -> None:
    files = WrittenFiles((Path("m.png"), None), (Path("c.png"), None), Path("o.jpg"))
    record = result_record(found(verdict=Verdict(3.0, 1.0)), files, with_rle=False, all_instances=True)
    read = json.loads(to_json(record))
    assert read["judged"] is True
    assert read["logit_margin"] == 2.0
    assert read["p_true"] == read["score"] == pytest.approx(0.880797)
    assert read["stage1_score"] == 0.25
    assert read["box"] == [200, 100, 600, 300]
    assert read["region"] == 3
    assert [instance["box"] for instance in read["instances"]] == [[200, 100, 600, 300], [0, 0, 5, 5]]
    assert read["instances"][1]["iou"] == 0.25
    assert "mask" not in read
    assert (read["mask_file"], read["cutout_file"], read["overlay_file"]) == ("m.png", "c.png", "o.jpg")
    assert [i.get("mask_file") for i in read["instances"]] == ["m.png", None]

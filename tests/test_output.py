import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from matir_cli import masks
from matir_cli.answers import Answer, Found
from matir_cli.errors import OutputError
from matir_cli.gallery import PhotoRecord, StoredPhoto, StoredRegion
from matir_cli.output import photo_masks, result_json, terminal
from matir_cli.protocols import Verdict
from matir_cli.records import Box, Candidate, Region

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


def found(name: bytes = b"a.jpg", sha: int = 1, *, verdict: Verdict | None = None) -> Found:
    mask = np.zeros((50, 100), dtype=np.bool_)
    mask[10:30, 20:60] = True
    rle = masks.encode(mask)
    region = StoredRegion(7, 1, 3, Box(200, 100, 600, 300), Region(rle, masks.box(rle), 800, 0.9, 0.95))
    path = Path("/photos") / os.fsdecode(name)
    photo = StoredPhoto(1, (path,), PhotoRecord(bytes([sha]) * 32, 1000, 500, 100, 50, 1))
    answer = Answer(region.box, region, None, rle)
    other = Answer(Box(0, 0, 5, 5), region, 0.25, None)
    return Found(1, photo, Candidate(1, 7, 0.25), (answer, other), verdict)


@pytest.mark.parametrize("name", NAMES)
def test_json_survives_any_name(name: bytes) -> None:
    item = found(name)
    line = result_json.to_json(result_json.record(item, (), with_rle=True, all_instances=False))
    assert line.isascii()
    assert "\n" not in line
    assert os.fsencode(json.loads(line)["path"]) == b"/photos/" + name


@pytest.mark.parametrize("name", NAMES)
def test_the_table_shows_any_name_harmlessly(name: bytes) -> None:
    lines = terminal.table([found(name)])
    assert len(lines) == 2
    shown = lines[1].encode()  # no surrogates left either
    assert b"\x1b" not in shown
    assert b"\n" not in shown
    assert "\u202e" not in lines[1]


@given(st.text())
def test_printable_text_has_nothing_to_steer_with_and_keeps_the_rest(text: str) -> None:
    shown = terminal.printable(text)
    assert shown.isprintable() or all(c.isprintable() or c in "\xa0\u3000 " or c.isspace() for c in shown)
    assert "\x1b" not in shown
    shown.encode()
    if text.isascii() and text.isprintable():
        assert shown == text


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_stays_in_its_folder(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "out"
    (path, missing) = photo_masks.write_masks(folder, found(name), all_instances=True)
    assert missing is None
    assert path is not None
    assert [*folder.iterdir()] == [path]
    assert [*tmp_path.iterdir()] == [folder]
    with Image.open(path) as written:
        mask = np.asarray(written)
    assert mask.shape == (500, 1000)
    assert (mask[110:290, 210:590] == 255).all()
    assert mask[:90].max() == 0


def test_photos_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for sha in (1, 2):
        photo_masks.write_masks(tmp_path, found(sha=sha), all_instances=False)
    photo_masks.write_masks(tmp_path, found(sha=2), all_instances=False)
    assert len([*tmp_path.iterdir()]) == 2


def test_a_mask_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        photo_masks.write_masks(tmp_path / "file", found(), all_instances=False)


def test_the_record_of_a_judged_photo() -> None:
    record = result_json.record(found(verdict=Verdict(3.0, 1.0)), (), with_rle=False, all_instances=True)
    read = json.loads(result_json.to_json(record))
    assert read["judged"] is True
    assert read["logit_margin"] == 2.0
    assert read["p_true"] == read["score"] == pytest.approx(0.880797)
    assert read["stage1_score"] == 0.25
    assert read["box"] == [200, 100, 600, 300]
    assert read["region"] == 3
    assert [instance["box"] for instance in read["instances"]] == [[200, 100, 600, 300], [0, 0, 5, 5]]
    assert read["instances"][1]["iou"] == 0.25
    assert "mask" not in read

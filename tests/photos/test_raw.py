"""Cameras' raw files: previews, developments, orientation, EXIF, and files that are damaged."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.decode import decode_full_size
from matir_cli.photos.discover import FolderRules, find_photo_files
from tests.photos.decoding import read, reason
from tests.photos.dng import dng
from tests.support.pictures import scene

SIZE = (256, 192)
TURNS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""Orientation to the transposition of the upright picture that a camera stores."""


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS[orientation]
    return upright if turn is None else upright.transpose(turn)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("with_preview", [True, False])
def test_a_raw_file_is_read_upright_with_its_exif(
    tmp_path: Path, orientation: int, with_preview: bool
) -> None:
    upright = scene("red", "blue", size=SIZE)
    picture = stored(upright, orientation)
    path = tmp_path / "photo.dng"
    path.write_bytes(dng(picture, orientation=orientation, preview=picture if with_preview else None))
    photo = read(path)
    record = photo.record
    assert (record.width, record.height, record.orientation) == (*SIZE, orientation)
    assert (record.taken_at, record.camera) == ("2024-05-06T07:08:09", "ACME Raw 1")
    assert photo.notes == ()
    difference = np.abs(photo.image.astype(int) - np.asarray(upright.convert("RGB")))
    assert difference.mean() < (4 if with_preview else 24)  # developed, it is as bright as LibRaw makes it
    assert decode_full_size(path).size == SIZE  # cut-outs have the pixels of the developed photo


def test_a_preview_of_another_shape_or_too_small_is_not_used(tmp_path: Path) -> None:
    picture = scene("green", size=SIZE)
    path = tmp_path / "photo.dng"
    for preview in (Image.new("RGB", (256, 256), "black"), Image.new("RGB", (128, 96), "black")):
        path.write_bytes(dng(picture, preview=preview))
        photo = read(path)
        assert (photo.record.width, photo.record.height) == SIZE
        assert photo.image.mean() > 50  # not the black preview


def test_a_damaged_preview_is_not_used(tmp_path: Path) -> None:
    picture = scene("green", size=SIZE)
    content = dng(picture, preview=Image.new("RGB", SIZE, "black"))
    place = content.index(b"\xff\xda")
    (tmp_path / "photo.dng").write_bytes(content[:place] + b"\xff\xd9" + content[place + 2 :])
    photo = read(tmp_path / "photo.dng")
    assert (photo.record.width, photo.record.height) == SIZE
    assert photo.image.mean() > 50


def test_a_large_photo_is_developed_at_half_its_size(tmp_path: Path) -> None:
    path = tmp_path / "photo.dng"
    picture = scene("red", size=(240, 160)).resize((2400, 1600))
    path.write_bytes(dng(picture))
    photo = read(path)
    assert (photo.record.width, photo.record.height) == (2400, 1600)
    assert photo.image.shape == (683, 1024, 3)
    difference = np.abs(photo.image.astype(int) - np.asarray(picture.convert("RGB").resize((1024, 683))))
    assert difference.mean() < 24


def test_a_file_that_is_no_raw_is_named(tmp_path: Path) -> None:
    path = tmp_path / "photo.nef"
    path.write_bytes(b"hello" * 100)
    assert reason(path) == "not supported: not a raw file that LibRaw reads"


def test_a_raw_beside_its_jpeg_is_the_same_photo(tmp_path: Path) -> None:
    for name in ("a.CR2", "a.JPG", "b.nef", "c.dng", "c.heic", "d.arw", "d.png"):
        (tmp_path / name).write_bytes(b"x")
    passed_over = Counter[str]()
    found = [path.name for path in find_photo_files([tmp_path], passed_over)]
    assert found == ["a.JPG", "b.nef", "c.heic", "d.arw", "d.png", "a.CR2", "c.dng"]
    assert not passed_over
    assert [*find_photo_files([tmp_path / "a.CR2"])] == [tmp_path / "a.CR2"]
    without = [*find_photo_files([tmp_path], passed_over, rules=FolderRules(raw=False))]
    assert [path.suffix for path in without] == [".JPG", ".heic", ".png"]
    assert passed_over == {".cr2": 1, ".nef": 1, ".dng": 1, ".arw": 1}


@settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    place=st.integers(0, 900),
    content=st.binary(min_size=1, max_size=8),
    end=st.integers(0, 3000),
    with_preview=st.booleans(),
)
def test_a_damaged_raw_file_is_read_or_gets_a_reason(
    tmp_path: Path, place: int, content: bytes, end: int, with_preview: bool
) -> None:
    picture = scene("red", size=(64, 48))
    sound = dng(picture, preview=picture if with_preview else None)
    path = tmp_path / "photo.dng"
    path.write_bytes((sound[:place] + content + sound[place + len(content) :])[: len(sound) - end])
    try:
        photo = read(path)
    except PhotoUnreadable as error:
        found = error.reason
    else:
        found = "an image" if photo.image.ndim == 3 else ""
    assert found
    assert "\n" not in found

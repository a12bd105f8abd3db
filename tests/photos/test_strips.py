"""TIFFs of very many strips are refused before Pillow lists them, by the number that Pillow reads as well."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from matir_cli.photos.image_file import MAX_STRIPS
from matir_cli.photos.side_data import tiff_strips
from tests.photos.crafted import BLACK_IS_ZERO, striped_tiff, tiff
from tests.photos.decoding import read, reason


def test_too_many_strips_are_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "strips.tif"
    path.write_bytes(striped_tiff(MAX_STRIPS + 1))
    assert reason(path) == f"TIFF of {MAX_STRIPS + 1:,} strips, more than {MAX_STRIPS:,}"
    path.write_bytes(striped_tiff(3000))
    assert (read(path).record.width, read(path).record.height) == (8, 3000)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
@pytest.mark.parametrize("big", [False, True])
def test_strips_are_counted_as_pillow_counts_them(rows: int, big: bool) -> None:
    stream = io.BytesIO()
    Image.new("L", (8, 100)).save(stream, "TIFF", tiffinfo={278: rows}, big_tiff=big)
    with Image.open(stream) as picture:
        assert isinstance(picture, TiffImageFile)
        assert tiff_strips(stream) == len(picture.tag_v2[273]) == -(-100 // min(rows, 100))


def test_the_other_order_of_bytes() -> None:
    entries = b"".join(struct.pack(">HHII", tag, 4, length, 0) for tag, length in ((256, 1), (324, 70_000)))
    assert tiff_strips(io.BytesIO(b"MM\0*" + struct.pack(">IH", 8, 2) + entries)) == 70_000


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.binary(max_size=60), st.integers(0, 200), st.binary(max_size=8))
def test_any_file_has_some_number_of_strips(start: bytes, at: int, change: bytes) -> None:
    content = bytearray(tiff(np.zeros((9, 9), np.uint8), BLACK_IS_ZERO))
    content[at : at + len(change)] = change
    for each in (start, b"II*\0" + start, b"MM\0+" + start, bytes(content)):
        assert tiff_strips(io.BytesIO(each)) >= 0

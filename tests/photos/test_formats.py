"""Formats that are read or refused, and limits on the size of an image."""

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from matir_cli.photos.formats import FORBIDDEN_FORMATS, decode_reason, readable_formats, register_heif
from tests.photos.decoding import reason
from tests.support.pictures import scene


def test_eps_is_not_passed_to_another_program(tmp_path: Path) -> None:
    path = tmp_path / "photo.eps"
    scene("red").save(path)
    assert reason(path) == "not an image"


def test_a_bomb_within_an_icon_is_refused_too(tmp_path: Path) -> None:
    inner = io.BytesIO()
    Image.new("1", (60_000, 7_000)).save(inner, "PNG")
    entry = struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(inner.getvalue()), 22)
    (tmp_path / "bomb.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inner.getvalue())
    assert "more than 400 million" in reason(tmp_path / "bomb.ico")


def test_dangerous_formats_are_not_readable() -> None:
    register_heif()
    readable = set(readable_formats())
    assert {"JPEG", "PNG", "TIFF", "WEBP", "HEIF"} <= readable
    assert not readable & FORBIDDEN_FORMATS


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("image file\n is truncated"), "damaged: image file is truncated"),
        (KeyError(), "damaged: KeyError"),
        (ValueError("x" * 500), f"damaged: {'x' * 120}"),
        (Image.DecompressionBombError("too large"), "more than 400 million pixels"),
    ],
)
def test_a_reason_is_one_short_line(error: Exception, expected: str) -> None:
    assert decode_reason(error) == expected

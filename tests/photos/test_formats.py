"""Formats that are read or refused, and limits on the size of an image."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli.photos.formats import FORBIDDEN_FORMATS, decode_reason, readable_formats, register_heif
from tests.photos.crafted import WHITE_IS_ZERO, encoded, many_scans, tiff
from tests.photos.decoding import read, reason
from tests.support.pictures import scene


def test_eps_is_not_passed_to_another_program(tmp_path: Path) -> None:
    path = tmp_path / "photo.eps"
    scene("red").save(path)
    assert reason(path) == "EPS: a format that is not read"


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
        (MemoryError(), "takes more memory to decode than is allowed"),
        (PermissionError(13, "Permission denied", "a.jpg"), "permission denied"),
        (NotImplementedError("Unimplemented pixel format 7"), "not supported: Unimplemented pixel format 7"),
    ],
)
def test_a_reason_is_one_short_line(error: Exception, expected: str) -> None:
    assert decode_reason(error) == expected


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"SIMPLE  =                    T", "FITS: a format that is not read"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL: a format that is not read"),
        (b"%PDF-1.7", "PDF: a format that is not read"),
        (b"\0\0\0\x18ftypmp42", "video: a format that is not read"),
        (b"8BPS\0\2", "PSB: a format that is not read"),
        (
            b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">',
            "SVG: a format that is not read",
        ),
        (b"BLP2" + bytes(200), "BLP: a format that is not read"),
        (
            b"BM" + struct.pack("<IHHII", 54, 0, 0, 26, 13) + bytes(40),
            "not supported: Unsupported BMP header",
        ),
        (b"II*\0\x08\0\0\0\0\0", "damaged: TIFF: "),
        (b"hello world", "not an image"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, start: bytes, expected: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(start.ljust(200, b"\0"))
    assert reason(path).startswith(expected)


def test_unsupported_forms_are_not_called_damaged(tmp_path: Path) -> None:
    values = np.zeros((16, 16), np.uint32)
    (tmp_path / "photo.tif").write_bytes(tiff(values, WHITE_IS_ZERO))
    assert reason(tmp_path / "photo.tif") == "not supported: TIFF: unknown pixel mode"


def test_a_heic_is_recognised_by_its_content(tmp_path: Path) -> None:
    import pillow_heif

    pillow_heif.from_pillow(scene("green")).save(tmp_path / "photo.heic")
    (tmp_path / "photo.heic").rename(tmp_path / "photo.jpg")
    assert read(tmp_path / "photo.jpg").image[32, 22].argmax() == 1


def test_the_words_of_libtiff_are_part_of_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(encoded(scene("red"), "TIFF", compression="tiff_lzw"))
    content[8:200] = bytes(192)
    (tmp_path / "photo.tif").write_bytes(content)
    text = reason(tmp_path / "photo.tif")
    assert text.startswith("damaged: ")
    assert "tempfile" not in text  # Pillow's name for every file
    assert "decoder error" not in text
    assert capfd.readouterr().err == ""


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(many_scans(scene("red"), 3000))
    assert reason(path) == "progressive JPEG of 3,010 scans, more than 500"

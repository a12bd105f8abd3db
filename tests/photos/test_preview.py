"""Previews, and whatever else a gallery may hold in their place."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.preview import decode_preview, encode_preview
from matir_cli.records import WORKING_SIDE
from tests.photos.decoding import read
from tests.support.pictures import scene


def test_the_preview_is_the_working_image(tmp_path: Path) -> None:
    scene("red").save(tmp_path / "photo.png")
    photo = read(tmp_path / "photo.png")
    preview = np.asarray(Image.open(io.BytesIO(encode_preview(photo.image))))
    assert preview.shape == photo.image.shape
    assert np.abs(preview.astype(int) - photo.image).mean() < 6


def test_a_preview_is_decoded_to_what_was_encoded() -> None:
    image = np.asarray(scene("red", "blue"))
    decoded = decode_preview(encode_preview(image))
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - image).mean() < 6


def test_other_content_is_refused() -> None:
    png, large = io.BytesIO(), io.BytesIO()
    scene("red").save(png, "PNG")
    Image.new("L", (WORKING_SIDE + 1, 8)).save(large, "JPEG")
    for content, reason in (
        (b"", "damaged"),
        (png.getvalue(), "damaged"),
        (encode_preview(np.zeros((64, 64, 3), np.uint8))[:200], "damaged"),
        (large.getvalue(), "1025 x 8 pixels"),
    ):
        with pytest.raises(PhotoUnreadable, match=reason):
            decode_preview(content)

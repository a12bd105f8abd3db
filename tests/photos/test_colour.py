"""Images of every colour mode become 8-bit RGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli.photos.colour import WORKING_SIDE, to_rgb, to_working_rgb
from matir_cli.photos.decode import decode_full_size
from tests.photos.decoding import read
from tests.support.pictures import scene


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "YCbCr", "LAB", "I", "F", "HSV"])
def test_reads_every_mode(tmp_path: Path, mode: str) -> None:
    picture = scene("red", size=(64, 48)).convert(mode)
    path = tmp_path / "photo.tiff"
    if mode == "HSV":
        picture = picture.convert("RGB")  # TIFF does not store HSV
    picture.save(path)
    image = read(path).image
    assert image.shape == (48, 64, 3)
    assert image.std() > 5


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "photo.png")
    image = read(tmp_path / "photo.png").image
    assert np.abs(image[:, :, 0].astype(float) - values / 257).max() <= 1


def test_large_greys_have_one_range(tmp_path: Path) -> None:
    values = np.linspace(-3.0, 5.0, 1100 * 2000, dtype=np.float32).reshape(1100, 2000)  # several strips
    Image.fromarray(values).save(tmp_path / "photo.tiff")
    image = np.asarray(decode_full_size(tmp_path / "photo.tiff"))[:, :, 0].astype(float)
    assert np.abs(image - (values + 3) * 255 / 8).max() <= 1


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "photo.png")
    assert (read(tmp_path / "photo.png").image == 255).all()


def test_working_size_keeps_the_shape_of_the_photo() -> None:
    reduced = Image.new("RGB", (750, 375))  # a reduced decoding of a photo of 3000 x 1500 pixels
    assert to_working_rgb(reduced, 3000, 1500).size == (WORKING_SIDE, WORKING_SIDE // 2)
    assert to_working_rgb(Image.new("L", (5000, 1)), 5000, 1).size == (WORKING_SIDE, 1)
    assert to_working_rgb(Image.new("RGB", (40, 30)), 40, 30).size == (40, 30)


def test_rgb_is_not_copied() -> None:
    picture = Image.new("RGB", (4, 4))
    assert to_rgb(picture) is picture

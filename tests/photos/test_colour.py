"""Images of every colour mode become 8-bit RGB."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli.photos.colour import to_rgb, to_working_rgb
from matir_cli.photos.decode import decode_full_size
from matir_cli.records import WORKING_SIDE
from tests.photos.crafted import BLACK_IS_ZERO, COLOURS, WHITE_IS_ZERO, tiff
from tests.photos.decoding import read, reason
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


def test_white_is_zero_is_read_at_sixteen_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    (tmp_path / "photo.tif").write_bytes(tiff(values, WHITE_IS_ZERO))
    image = read(tmp_path / "photo.tif").image[:, :, 0].astype(float)
    assert np.abs(255 - image - values / 257).max() <= 1


def test_twelve_bits_keep_their_brightness(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    content = tiff(packed.astype(np.uint8).reshape(64, 96), BLACK_IS_ZERO, bits=12)
    (tmp_path / "photo.tif").write_bytes(
        content.replace(struct.pack("<HHII", 256, 4, 1, 96), struct.pack("<HHII", 256, 4, 1, 64))
    )
    image = read(tmp_path / "photo.tif").image[:, :, 0].astype(float)
    assert np.abs(image - values / 4095.0 * 255).max() <= 1


def test_sixteen_bits_in_planes_are_refused(tmp_path: Path) -> None:
    values = np.zeros((32, 32, 3), np.uint16)
    (tmp_path / "photo.tif").write_bytes(tiff(values, COLOURS, planes=True))
    assert reason(tmp_path / "photo.tif") == "not supported: TIFF of 16 bits in separate planes"
    (tmp_path / "photo.tif").write_bytes(tiff((values >> 8).astype(np.uint8), COLOURS, planes=True))
    assert (read(tmp_path / "photo.tif").image == 0).all()


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16"])
def test_large_images_are_converted_in_parts(mode: str) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (50, 70, 4), np.uint8), "RGBA").resize((7001, 1003))
    picture = (
        small if mode == "RGBA" else small.convert("L").convert("RGB" if mode == "P" else "L").convert(mode)
    )
    whole = to_rgb(picture).resize((1024, 147), Image.Resampling.LANCZOS, reducing_gap=3.0)
    parts = to_working_rgb(picture, 7001, 1003)
    assert parts.size == whole.size
    assert np.array_equal(np.asarray(parts), np.asarray(whole))

"""Photo files decoded to working size and true size, sound and damaged ones."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from matir_cli.photos.decode import decode_full_size
from tests.photos.decoding import read, reason
from tests.support.pictures import scene


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif", "jp2", "avif", "ppm"])
def test_reads_every_usual_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    scene("red", "blue").save(path)
    image = read(path).image
    assert image.shape == (90, 120, 3)
    red, green, blue = image[32, 22].astype(int)
    assert red > 150
    assert max(green, blue) < 110


def test_reads_heic(tmp_path: Path) -> None:
    import pillow_heif

    path = tmp_path / "photo.heic"
    pillow_heif.from_pillow(scene("green")).save(path)
    assert read(path).image[32, 22].argmax() == 1


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "photo.gif", save_all=True, append_images=frames[1:])
    assert tuple(read(tmp_path / "photo.gif").image[5, 5]) == (255, 0, 0)


@pytest.mark.parametrize("suffix", ["png", "tif"])  # Pillow turns a TIFF upright by itself
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = scene("red", size=(120, 80))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # from the upright image to the stored one
    stored = upright.transpose(Image.Transpose(turn[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo.{suffix}"
    stored.save(path, exif=exif)
    photo = read(path)
    assert (photo.record.width, photo.record.height, photo.record.orientation) == (120, 80, orientation)
    assert np.array_equal(photo.image, np.asarray(upright))
    assert np.array_equal(np.asarray(decode_full_size(path)), np.asarray(upright))


def test_large_photos_are_scaled_and_keep_their_true_size(tmp_path: Path) -> None:
    scene("red", size=(3000, 1500)).save(tmp_path / "photo.jpg")
    record = read(tmp_path / "photo.jpg").record
    assert (record.width, record.height, record.mask_width, record.mask_height) == (3000, 1500, 1024, 512)


def test_unreadable_files_have_a_reason(tmp_path: Path) -> None:
    whole = io.BytesIO()
    scene("red").save(whole, "JPEG")
    contents = {
        "zero.jpg": (b"", "zero bytes"),
        "text.jpg": (b"hello " * 50, "not an image"),
        "cut.jpg": (whole.getvalue()[:800], "damaged"),
    }
    for name, (content, expected) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert expected in reason(tmp_path / name)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    assert "too small" in reason(tmp_path / "one.png")
    assert "no such file" in reason(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a plain file" in reason(tmp_path / "pipe.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    # A PNG header that claims 60,000 x 7,000 pixels in a small file.
    path = tmp_path / "bomb.png"
    Image.new("1", (60_000, 7_000)).save(path)
    assert "more than 400 million" in reason(path)


def test_any_error_of_a_decoder_means_a_damaged_file(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "AVIF")
    damaged = bytearray(whole.getvalue())
    damaged[81] = 0  # libavif raises RuntimeError
    (tmp_path / "photo.avif").write_bytes(damaged)
    assert "damaged" in reason(tmp_path / "photo.avif")

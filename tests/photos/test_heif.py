"""HEIC and AVIF: several images, depth maps, rotation, and a decoder without an encoder."""

from pathlib import Path

import pi_heif
import pillow_heif
import pytest
from PIL import Image

from matir_cli.photos.decode import decode_full_size
from matir_cli.photos.formats import register_heif
from tests.photos.decoding import read
from tests.photos.heif import heic, with_depth_map
from tests.support.pictures import scene


def strongest(path: Path) -> int:
    """Return the strongest channel of a decoded photo's object: 0 red, 1 green, 2 blue."""
    return int(read(path).image[32, 22].argmax())


def test_the_decoder_has_no_encoder() -> None:
    register_heif()
    encoders = pi_heif.libheif_info()["encoders"]
    assert not [name for name in encoders if "265" in name or "hevc" in name.lower()]


@pytest.mark.parametrize("primary", [0, 1])
def test_the_primary_image_of_several_is_read(tmp_path: Path, primary: int) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(heic(scene("red"), scene("blue"), primary=primary))
    assert strongest(path) == 2 * primary
    assert decode_full_size(path).size == (120, 90)


def test_a_depth_map_is_no_photo(tmp_path: Path) -> None:
    path = tmp_path / "photo.heic"
    depth = Image.linear_gradient("L").resize((64, 48))
    path.write_bytes(with_depth_map(heic(scene("green"), depth)))
    assert len(pillow_heif.open_heif(path).info["depth_images"]) == 1  # the file is what it should be
    photo = read(path)
    assert photo.notes == ()
    assert photo.image.shape == (90, 120, 3)
    assert photo.image[32, 22].argmax() == 1


def test_avif_needs_no_further_package(tmp_path: Path) -> None:
    scene("blue").save(tmp_path / "photo.avif")
    assert strongest(tmp_path / "photo.avif") == 2
    assert Image.OPEN["AVIF"][0].__module__ == "PIL.AvifImagePlugin"

"""The comparison of photos by their pixels: copies are recognised, other exposures are not."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from matir_cli.records import ImageArray
from matir_cli.search.pixel_comparison import compare, grey_picture, same_picture
from tests.support.similar_photos import landscape, recompressed

WHOLE = 480, 360


def pixels(picture: Image.Image) -> ImageArray:
    return np.asarray(recompressed(picture, 85))


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def toned(picture: Image.Image, gamma: float) -> Image.Image:
    return picture.point([round(255 * (level / 255) ** gamma) for level in range(256)] * 3)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed": lambda picture: recompressed(picture, 30),
    "half size": lambda picture: picture.resize((240, 180)),
    "quarter": lambda picture: picture.resize((120, 90)),
    "cropped all round": lambda picture: cropped(picture, 0.05, 0.05, 0.05, 0.05),
    "cropped at one side": lambda picture: cropped(picture, 0, 0, 0.05, 0),
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "more contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.2),
    "lighter shadows": lambda picture: toned(picture, 0.7),
    "all of it": lambda picture: recompressed(
        toned(cropped(picture, 0.02, 0.01, 0.03, 0).resize((240, 180)), 1.3), 50
    ),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("seed", range(3))
def test_a_copy_is_the_same_picture_in_either_order(name: str, seed: int) -> None:
    picture = landscape(seed, WHOLE)
    first, second = grey_picture(pixels(picture)), grey_picture(pixels(COPIES[name](picture)))
    assert same_picture(first, second)
    assert same_picture(second, first)


def test_other_pictures_are_not_the_same() -> None:
    greys = [grey_picture(pixels(landscape(seed, WHOLE))) for seed in range(25)]
    pairs = [(a, b) for number, a in enumerate(greys) for b in greys[:number]]
    assert len(pairs) == 300
    assert not any(same_picture(*pair) for pair in pairs)


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_in_which_something_has_moved_is_another_one(seed: int) -> None:
    scene = landscape(seed, WHOLE)
    person = landscape(seed + 100, (48, 60))
    shots = []
    for left in (180, 200):
        shot = scene.copy()
        shot.paste(person, (left, 200))
        shots.append(grey_picture(pixels(shot)))
    assert not same_picture(*shots)
    found = compare(*shots)
    assert found is not None
    assert found.at_worst > 2 * found.everywhere  # the difference is in one place


@pytest.mark.parametrize("shift", [60, 90, 150])
def test_a_camera_that_turned_takes_another_picture(shift: int) -> None:
    wide = landscape(7, (640, 360))
    first, second = (grey_picture(pixels(wide.crop((left, 0, left + 480, 360)))) for left in (0, shift))
    assert not same_picture(first, second)


def test_flat_pictures_are_never_the_same() -> None:
    black = grey_picture(np.zeros((60, 80, 3), np.uint8))
    grey = grey_picture(np.full((60, 80, 3), 120, np.uint8))
    assert not same_picture(black, black)
    assert not same_picture(black, grey)
    assert not same_picture(grey, grey_picture(pixels(landscape(0))))

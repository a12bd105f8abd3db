"""What is drawn onto photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli import masks
from matir_cli.errors import OutputError, OutputExists
from matir_cli.gallery.rows import StoredRegion
from matir_cli.output import drawing
from matir_cli.records import Box, Region

RED = (255, 0, 0)


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (100, 100, 100))


def stored(ordinal: int, mask: np.ndarray) -> StoredRegion:
    rle = masks.encode(mask)
    region = Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.9)
    return StoredRegion(ordinal, 1, ordinal, region.box, region)


def test_a_tint_colours_the_mask_and_nothing_else() -> None:
    picture = grey(60, 40)
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[10:20, 30:45] = True
    drawing.tint(picture, mask, RED)
    pixels = np.asarray(picture)
    assert (pixels[~mask] == 100).all()
    assert (pixels[10, 30:45] == RED).all()  # the line around it, one pixel wide here
    assert (pixels[11:19, 31:44] == pixels[15, 40]).all()
    assert pixels[15, 40].tolist() == pytest.approx([162, 60, 60], abs=1)
    before = pixels.copy()
    drawing.tint(picture, np.zeros((40, 60), dtype=np.bool_), RED)
    assert (np.asarray(picture) == before).all()


def test_a_mask_up_to_the_edge_has_its_line_there() -> None:
    picture = grey(8, 8)
    drawing.tint(picture, np.ones((8, 8), dtype=np.bool_), RED)
    pixels = np.asarray(picture)
    assert (pixels[0] == RED).all()
    assert (pixels[1:7, 1:7] != RED).any(axis=2).all()


def test_a_box_lies_on_the_pixels_that_it_covers() -> None:
    picture = grey(60, 40)
    drawing.outline(picture, Box(10, 5, 30, 20), RED)
    red = (np.asarray(picture) == RED).all(axis=2)
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 5, 30, 20)
    assert red.sum() == 2 * 20 + 2 * 13


@pytest.mark.parametrize("size", [(8, 8), (200, 150), (4000, 3000)])
def test_labels_stay_inside_and_do_not_cover_each_other(size: tuple[int, int]) -> None:
    picture = grey(*size)
    labels = drawing.Labels(picture)
    for _ in range(3):
        labels.label(Box(0.5 * size[0], 0, 1.5 * size[0], size[1]), "0.87", RED)
    plates = (np.asarray(picture) != 100).any(axis=2)
    assert plates.any()
    if size[0] > 8:
        one = grey(*size)
        drawing.Labels(one).label(Box(10, 10, 150, 100), "0.87", RED)
        height = np.flatnonzero((np.asarray(one) != 100).any(axis=(1, 2))).size
        assert height >= max(12, size[0] / 60)  # legible
        assert plates.sum() == 3 * (np.asarray(one) != 100).any(axis=2).sum()


def test_colours_of_neighbours_differ() -> None:
    colours = np.array([drawing.colour(number) for number in range(12)], dtype=np.int32)
    distances = np.abs(colours[:, np.newaxis] - colours).sum(axis=2)
    assert distances[~np.eye(12, dtype=np.bool_)].min() > 40
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 150


def test_an_overlay_has_every_region_but_the_whole_photo() -> None:
    image = np.full((50, 100, 3), 100, dtype=np.uint8)
    whole = np.ones((50, 100), dtype=np.bool_)
    large, small = np.zeros_like(whole), np.zeros_like(whole)
    large[5:45, 5:60] = True
    small[15:25, 10:30] = True  # on the large one
    regions = [stored(0, whole), stored(1, small), stored(2, large)]
    picture = drawing.regions_overlay(image, regions)
    assert picture.size == (1024, 512)
    pixels = np.asarray(picture)
    assert (pixels[:, 700:] == 100).all()
    for ordinal in (1, 2):
        assert (pixels == drawing.colour(ordinal)).all(axis=2).sum() > 100
    assert drawing.regions_overlay(image, regions[:1]) == Image.new("RGB", (1024, 512), (100,) * 3)


def test_saving_goes_by_the_ending(tmp_path: Path) -> None:
    for name, kind in {"a.png": "PNG", "b.JPG": "JPEG", "c.webp": "WEBP", "d": "PNG"}.items():
        drawing.save_picture(grey(9, 9), tmp_path / name, force=False)
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind
    with pytest.raises(OutputExists):
        drawing.save_picture(grey(9, 9), tmp_path / "a.png", force=False)
    with pytest.raises(OutputError):
        drawing.save_picture(grey(9, 9), tmp_path / "a.doc", force=True)
    assert len([*tmp_path.iterdir()]) == 4

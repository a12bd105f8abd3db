"""COCO instances, read back with pycocotools."""

from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.coco import coco_file
from tests.output.blocks import make_pixels, picture


def test_masks_are_at_true_size_and_boxes_tight(gallery: GalleryFile, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    picture().save(path)
    pixels = make_pixels(gallery, path)
    with coco_file(tmp_path / "coco.json", force=False) as file:
        file.begin("a block")
        file.add(pixels)
    coco = COCO(str(tmp_path / "coco.json"))
    (annotation,) = coco.dataset["annotations"]
    mask = coco.annToMask(annotation)
    assert mask.shape == (1200, 1600)
    rows, columns = np.nonzero(mask)
    assert annotation["bbox"] == [400, 300, 400, 300]
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (400, 300, 800, 600)
    assert annotation["area"] == mask.sum()
    assert annotation["score"] == 0.5
    assert coco.imgs[pixels.result.photo.id]["file_name"] == str(path)

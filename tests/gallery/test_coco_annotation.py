"""COCO annotations of masks, at both sizes."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from matir_cli import masks
from matir_cli.gallery.coco_annotation import coco_annotation
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.records import PhotoRecord


@pytest.mark.parametrize(("working_size", "scale"), [(True, 1), (False, 4)])
def test_an_annotation_has_its_mask_with_box_and_area(working_size: bool, scale: int) -> None:
    photo = StoredPhoto(7, (Path("/a.jpg"),), PhotoRecord(bytes(32), 80, 40, 20, 10, 1))
    mask = np.zeros((10, 20), np.bool_)
    mask[2:6, 3:9] = True
    made = coco_annotation(
        photo, masks.encode(mask), annotation_id=5, category_id=2, working_size=working_size
    )
    assert list(made) == ["id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd"]
    assert (made["id"], made["image_id"], made["category_id"], made["iscrowd"]) == (5, 7, 2, 0)
    decoded = coco.decode(made["segmentation"]).astype(bool)
    assert decoded.shape == (10 * scale, 20 * scale)
    assert np.array_equal(decoded, masks.resize(mask, 10 * scale, 20 * scale))
    assert made["area"] == decoded.sum()
    rows, columns = np.nonzero(decoded)
    left, top = float(columns.min()), float(rows.min())
    assert made["bbox"] == [left, top, float(np.ptp(columns)) + 1, float(np.ptp(rows)) + 1]

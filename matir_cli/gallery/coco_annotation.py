"""COCO annotations of gallery masks, as in COCO's instances JSON."""

from __future__ import annotations

from matir_cli import masks
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.records import Rle


def coco_annotation(
    photo: StoredPhoto, rle: Rle, *, annotation_id: int, category_id: int, working_size: bool = False
) -> dict[str, object]:
    """Return a COCO instances annotation of a mask, ready for JSON.

    The segmentation is a compressed RLE, `bbox` is x, y, width, height, tight around the mask,
    and `area` its number of pixels; the image id is the photo's id.

    Args:
        rle: the mask, working pixels.
        working_size: keep working pixels instead of scaling the mask up to photo pixels.
    """
    mask = rle if working_size else masks.scale(rle, photo.record.height, photo.record.width)
    box = masks.box(mask)
    return {
        "id": annotation_id,
        "image_id": photo.id,
        "category_id": category_id,
        "segmentation": {"size": [mask.height, mask.width], "counts": mask.counts.decode("ascii")},
        "bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0],
        "area": masks.area(mask),
        "iscrowd": 0,
    }

"""A data set's images as photos of a gallery: which is which, and masks from one frame to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import photo_in_file
from matir_cli.records import MaskArray, PhotoRecord, Rle


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """The photos of a gallery that are images of a data set."""

    photos: Mapping[int, int]
    """Image id to photo id; nothing for an image that could not be indexed."""
    images: Mapping[int, tuple[int, ...]]
    """Photo id to the ids of the images that are this photo byte for byte, ascending."""
    files: Mapping[int, Path]
    """Photo id to the file of one of its images."""
    turned: Mapping[int, int]
    """Image id to EXIF orientation, where the annotations are of the photo before it is turned upright."""

    def ranked(self, photo_ids: Sequence[int]) -> list[int]:
        """A ranking of photos as one of images."""
        return [image for photo_id in photo_ids for image in self.images[photo_id]]

    def framed(self, rle: Rle | None, image_id: int) -> Rle | None:
        """A mask of a photo as the annotations of an image have it: at working size, but not turned."""
        orientation = self.turned.get(image_id, 1)
        if rle is None or orientation == 1:
            return rle
        return masks.encode(np.ascontiguousarray(_as_filed(masks.decode(rle), orientation)))


def index_images(gallery: GalleryFile, dataset: Dataset) -> ImageIndex:
    """Find each image's photo in the gallery.

    Raises:
        AnnotationsInvalid: an image's file has another size than its annotations.
    """
    photos: dict[int, int] = {}
    images: dict[int, list[int]] = {}
    paths: dict[int, Path] = {}
    turned: dict[int, int] = {}
    for image in dataset.images:
        photo_id = photo_in_file(gallery, image.path)
        if photo_id is None:
            continue
        record = gallery.photo(photo_id).record
        photos[image.id] = photo_id
        paths[photo_id] = image.path
        images.setdefault(photo_id, []).append(image.id)
        if _is_annotated_as_filed(image, record):
            turned[image.id] = record.orientation
    sorted_images = {photo_id: tuple(sorted(ids)) for photo_id, ids in images.items()}
    return ImageIndex(photos, sorted_images, paths, turned)


def _is_annotated_as_filed(image: EvalImage, record: PhotoRecord) -> bool:
    """Whether the annotations are of the pixels as they lie in the file, not upright.

    COCO's tools know no EXIF orientation, so where both have the size it is the file's that counts.
    """
    upright = record.width, record.height
    filed = upright[::-1] if record.orientation >= 5 else upright
    annotated = image.width, image.height
    if annotated not in (filed, upright):
        sizes = "{} x {} pixels, its annotations {} x {}".format(*filed, *annotated)
        raise AnnotationsInvalid(image.path, f"image {image.id} has {sizes}")
    return record.orientation > 1 and annotated == filed


def _as_filed(mask: MaskArray, orientation: int) -> MaskArray:
    """The (h, w) mask of an upright photo as it lies in the file of that EXIF orientation (2 to 8)."""
    match orientation:
        case 2:
            return mask[:, ::-1]
        case 3:
            return mask[::-1, ::-1]
        case 4:
            return mask[::-1]
        case 5:
            return mask.T
        case 6:
            return np.rot90(mask)
        case 7:
            return mask[::-1, ::-1].T
        case _:
            return np.rot90(mask, -1)

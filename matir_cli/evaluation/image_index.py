"""Images of a data set as photos of a gallery: ids, files and frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import photo_in_file
from matir_cli.records import PhotoRecord, Rle


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """The photos of a gallery that are images of a data set."""

    photos: Mapping[int, int]
    """Image id to photo id; images that could not be indexed are missing."""
    images: Mapping[int, tuple[int, ...]]
    """Photo id to the ids of the images that are this photo byte for byte, ascending."""
    files: Mapping[int, Path]
    """Photo id to the file of one of its images."""
    orientations: Mapping[int, int]
    """Image id to EXIF orientation, only for images whose annotations refer to the photo before it is
    turned upright."""

    def image_ranking(self, photo_ids: Sequence[int]) -> list[int]:
        """Convert a ranking of photo ids to one of image ids."""
        return [image for photo_id in photo_ids for image in self.images[photo_id]]

    def to_annotation_frame(self, rle: Rle | None, image_id: int) -> Rle | None:
        """Turn a mask of an upright photo into the frame of the image's annotations, at working size."""
        orientation = self.orientations.get(image_id, 1)
        if rle is None or orientation == 1:
            return rle
        return masks.encode(masks.turn_back(masks.decode(rle), orientation))


def locate_images(gallery: GalleryFile, dataset: Dataset) -> ImageIndex:
    """Find the photo of each image of the data set in the gallery.

    Raises:
        AnnotationsInvalid: an image file's size differs from that in the annotations.
    """
    photos: dict[int, int] = {}
    images: dict[int, list[int]] = {}
    files: dict[int, Path] = {}
    orientations: dict[int, int] = {}
    for image in dataset.images:
        with gallery.snapshot():  # another process may remove the photo between the statements
            photo_id = photo_in_file(gallery, image.path)
            if photo_id is None:
                continue
            record = gallery.photo(photo_id).record
        photos[image.id] = photo_id
        files[photo_id] = image.path
        images.setdefault(photo_id, []).append(image.id)
        if _is_annotated_as_stored(image, record):
            orientations[image.id] = record.orientation
    sorted_images = {photo_id: tuple(sorted(ids)) for photo_id, ids in images.items()}
    return ImageIndex(photos, sorted_images, files, orientations)


def _is_annotated_as_stored(image: EvalImage, record: PhotoRecord) -> bool:
    """Return whether the annotations refer to the pixels as the file stores them, not turned upright.

    COCO's tools ignore the EXIF orientation, so where stored and upright photo have the same size, the
    annotations are taken to be of the stored pixels.

    Raises:
        AnnotationsInvalid: the annotated size is neither of the two.
    """
    upright = record.width, record.height
    stored = upright[::-1] if record.orientation >= 5 else upright
    annotated = image.width, image.height
    if annotated not in (stored, upright):
        sizes = "{} x {} pixels, its annotations {} x {}".format(*stored, *annotated)
        raise AnnotationsInvalid(image.path, f"image {image.id} has {sizes}")
    return record.orientation > 1 and annotated == stored

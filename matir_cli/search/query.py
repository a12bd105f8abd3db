"""Queries: a text, an example in a photo and excluded texts.

`resolve_example` finds the region that an example means; `encoding` makes vectors of all parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matir_cli import masks
from matir_cli.errors import (
    EngineFailed,
    ExampleBlank,
    ExampleOutside,
    QueryEmpty,
    QueryNotText,
)
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredRegion
from matir_cli.photos.decode import DecodedPhoto, decode_photo
from matir_cli.photos.discover import hash_file, stat_file
from matir_cli.records import Box, FloatArray, PhotoRecord, Point, Rle, check_range
from matir_cli.search.box_matching import match_box
from matir_cli.search.index import region_vector
from matir_cli.search.models import SearchModels

REUSED_IOU = 0.8
"""Least IoU of a stored region's box and an example's box for the region to be used as the example."""


@dataclass(frozen=True, slots=True)
class Example:
    """An object to look for, shown in a photo; without box and point it is the whole photo."""

    path: Path
    """Path of any photo; it need not be in the gallery."""
    box: Box | None = None
    """Around the object, photo pixels."""
    point: Point | None = None
    """On the object, photo pixels; ignored if there is a box."""


@dataclass(frozen=True, slots=True)
class ResolvedExample:
    """The region that an example refers to, with its vector."""

    path: Path
    """Path of the photo."""
    vector: FloatArray
    """(d,) float32 of unit length."""
    box: Box
    """Around the region, photo pixels."""
    share: float
    """Fraction of the photo that the region covers, 0..1."""
    stored: bool
    """True if it is a region of the gallery, for which no model was run."""


@dataclass(frozen=True, slots=True)
class Query:
    """A description of what to find: a text, an example or both.

    Raises:
        OutOfRange: `weight` is not within 0..1.
    """

    text: str | None = None
    example: Example | ResolvedExample | None = None
    """An `Example` is resolved anew in each search; `resolve_example` does it once for several searches."""
    weight: float = 0.5
    """Weight of the example beside a text, 0..1: 0 is the text alone, 1 the example alone."""
    without: tuple[str, ...] = ()
    """Texts of objects that must not be found."""

    def __post_init__(self) -> None:
        check_range("weight", self.weight, 0, 1)

    def check(self) -> None:
        """Check that there is something to look for.

        Raises:
            QueryEmpty: there is neither a text nor an example, or a text has no word.
            QueryNotText: a text holds lone surrogates.
        """
        texts = self.without if self.text is None else (self.text, *self.without)
        if (self.text is None and self.example is None) or not all(text.strip() for text in texts):
            raise QueryEmpty
        for text in texts:
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise QueryNotText(text)


def resolve_example(gallery: GalleryFile, models: SearchModels, example: Example) -> ResolvedExample:
    """Find the region that an example refers to, and its vector.

    If the gallery holds the photo (known by its SHA-256), a stored region is used: with a box, the one
    that fits it with an IoU of at least `REUSED_IOU`; with a point, of the regions that contain it the one
    with the highest predicted IoU; with neither, the whole photo. If there is none, and for any other
    photo, the proposer finds the region and the encoder its vector.

    Raises:
        PhotoUnreadable: the file cannot be read as a photo.
        ExampleOutside: the box or point lies outside the photo.
        ExampleBlank: the proposer finds no object there.
        EngineFailed: the encoder's vector is not finite.
        MatirError: as loading and running the models raise it.
    """
    file = stat_file(example.path)
    digest = hash_file(file)
    with gallery.snapshot():  # another process may remove the photo between the statements
        stored = _resolve_stored(gallery, digest, example)
    return stored or _find_with_models(models, decode_photo(file, digest), example)


def _resolve_stored(gallery: GalleryFile, digest: bytes, example: Example) -> ResolvedExample | None:
    """Resolve an example by the stored regions of the photo with this SHA-256, None if none fits."""
    photo_id = gallery.photo_with(digest)
    if photo_id is None:
        return None
    record = gallery.photo(photo_id).record
    region = _find_stored(gallery.regions(photo_id), _clip(example, record), record)
    if region is None:
        return None
    share = record.share(region.region.area)
    return ResolvedExample(example.path, region_vector(gallery, region.id), region.box, share, stored=True)


def _clip(example: Example, record: PhotoRecord) -> Example:
    """Clip the example's box to the photo; raise ExampleOutside if nothing is left of it."""
    box, point = example.box, example.point
    if box is not None:
        box = Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, record.width), min(box.y1, record.height))
    outside = box is not None and box.area == 0
    if box is None and point is not None:
        outside = not (0 <= point.x < record.width and 0 <= point.y < record.height)
    if outside:
        raise ExampleOutside(example.path, record.width, record.height)
    return Example(example.path, box, point)


def _find_stored(regions: list[StoredRegion], example: Example, record: PhotoRecord) -> StoredRegion | None:
    """Return the stored region that the example refers to, if there is one."""
    if example.box is not None:
        best = match_box(example.box, regions)
        return best.region if best is not None and best.iou >= REUSED_IOU else None
    if example.point is None:
        return next((region for region in regions if region.ordinal == 0), None)
    point = record.to_working(example.point)
    hit = [r for r in regions if r.ordinal > 0 and masks.decode(r.region.rle)[int(point.y), int(point.x)]]
    return max(hit, key=lambda r: (r.region.predicted_iou, -r.ordinal), default=None)


def _find_with_models(models: SearchModels, photo: DecodedPhoto, example: Example) -> ResolvedExample:
    """Let the proposer find the region and the encoder its vector."""
    record, path = photo.record, example.path
    example = _clip(example, record)
    if example.box is not None:
        (region,) = models.proposer.refine(photo.image, [record.to_working(example.box)])
    elif example.point is not None:
        region = models.proposer.region_at(photo.image, record.to_working(example.point))
    else:
        return _encode_region(models, photo, path, masks.whole(record.mask_height, record.mask_width))
    if region is None:
        raise ExampleBlank(path)
    return _encode_region(models, photo, path, region.rle)


def _encode_region(models: SearchModels, photo: DecodedPhoto, path: Path, rle: Rle) -> ResolvedExample:
    (vector,) = models.region_encoder.encode(photo.image, [rle])
    if not np.isfinite(vector).all():
        raise EngineFailed("the encoder gave a vector that is not a number")
    record = photo.record
    box, share = record.to_photo(masks.box(rle)), record.share(masks.area(rle))
    return ResolvedExample(path, vector, box, share, stored=False)

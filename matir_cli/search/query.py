"""Queries: a text, examples in photos, and what must not be found.

`resolve_example` finds the region that an example means; `encoding` makes vectors of all parts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from matir_cli import masks
from matir_cli.errors import (
    EngineFailed,
    ExampleBlank,
    ExampleOutside,
    PhotoUnreadable,
    QueryEmpty,
    QueryNotText,
)
from matir_cli.gallery.rows import StoredRegion
from matir_cli.gallery.union import GalleryReader
from matir_cli.gallery.working_image import load_working_image
from matir_cli.photos.decode import DecodedPhoto, decode_photo
from matir_cli.photos.discover import hash_file, stat_file
from matir_cli.records import Box, FileRecord, FloatArray, PhotoRecord, Point, Rle, check_range
from matir_cli.search.box_matching import box_iou
from matir_cli.search.models import SearchModels
from matir_cli.search.vectors import region_vector

REUSED_IOU = 0.8
"""Least IoU of a stored region's box and an example's box for the region to be used without a model."""

POOR_IOU = 0.5
"""IoU of a region's box and an example's box below which the region is hardly what was meant."""

LEAST_IOU = 1e-3
"""IoU below which a region is elsewhere."""

MOST_EXAMPLES = 32
"""Good examples of a query at most, and bad ones: each costs a search."""

ExampleRule: TypeAlias = Literal["max", "mean"]
"""What counts of several examples: the one that a region is most like, or their mean."""

POINT_TOLERANCE = 0.01
"""Fraction of the long side by which a region may miss an example's point: models outline coarsely."""


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
    """True if it is a region of the gallery, which has its vector already."""
    iou: float | None = None
    """IoU of the region's box and the example's box, 0..1; None if the example has no box."""

    @property
    def fits_poorly(self) -> bool:
        """True if the region is hardly what the example's box is drawn around."""
        return self.iou is not None and self.iou < POOR_IOU


def normal_text(text: str) -> str:
    """Return the form in which a text is searched, cached and written: equal texts become one.

    Characters are composed (Unicode's NFC), space at the ends and byte order marks are left out.
    """
    return unicodedata.normalize("NFC", text).replace("\ufeff", "").strip()


@dataclass(frozen=True, slots=True)
class Query:
    """A description of what to find: a text, examples or both. Its texts become `normal_text`s.

    Raises:
        OutOfRange: `weight` is not within 0..1, or there are more than `MOST_EXAMPLES`.
    """

    text: str | None = None
    examples: tuple[Example | ResolvedExample, ...] = ()
    """An `Example` is resolved anew in each search; `resolve_each` does it once for several searches."""
    weight: float = 0.5
    """Weight of the examples beside a text, 0..1: 0 is the text alone, 1 the examples alone."""
    without: tuple[str, ...] = ()
    """Texts of objects that must not be found; one given twice counts once."""
    unlike: tuple[Example | ResolvedExample, ...] = ()
    """Examples of objects that must not be found."""
    rule: ExampleRule = "max"
    """What counts of several `examples`."""

    def __post_init__(self) -> None:
        check_range("weight", self.weight, 0, 1)
        for examples in (self.examples, self.unlike):
            check_range("number of examples", len(examples), 0, MOST_EXAMPLES)
        if self.text is not None:
            object.__setattr__(self, "text", normal_text(self.text))
        object.__setattr__(self, "without", tuple(dict.fromkeys(map(normal_text, self.without))))

    def check(self) -> None:
        """Check that there is something to look for.

        Raises:
            QueryEmpty: there is neither a text nor an example to find, or a text has no word.
            QueryNotText: a text holds lone surrogates.
        """
        texts = self.without if self.text is None else (self.text, *self.without)
        if (self.text is None and not self.examples) or not all(texts):
            raise QueryEmpty
        for text in texts:
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise QueryNotText(text)


def resolve_each(
    gallery: GalleryReader, models: SearchModels, examples: Sequence[Example | ResolvedExample]
) -> tuple[ResolvedExample, ...]:
    """Resolve the examples that are not yet; errors as in `resolve_example`."""
    return tuple(
        resolve_example(gallery, models, each) if isinstance(each, Example) else each for each in examples
    )


def resolve_example(gallery: GalleryReader, models: SearchModels, example: Example) -> ResolvedExample:
    """Find the region that an example refers to, and its vector.

    If the gallery holds the photo (known by its SHA-256), a stored region is used: with a box, the one
    that fits it with an IoU of at least `REUSED_IOU`; with a point, of the regions that contain it the one
    with the highest predicted IoU; with neither, the whole photo. If there is none, and for any other
    photo, the proposer finds the region and the encoder its vector. With a box, the proposer's region
    competes with the stored ones and with the whole photo: the box that fits best wins. The fit may still
    be poor (`ResolvedExample.fits_poorly`), which callers tell the user.

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
    if stored is not None and (stored.iou is None or stored.iou >= REUSED_IOU):
        return stored
    return _find_with_models(models, decode_photo(file, digest), example, stored)


def resolve_region(gallery: GalleryReader, region_id: int) -> ResolvedExample:
    """Return a stored region as an example.

    Raises:
        PhotoUnknown: the gallery does not hold it, perhaps no longer.
        GalleryDamaged: a stored value is impossible.
    """
    with gallery.snapshot():  # another process may remove the photo between the statements
        region = gallery.region(region_id)
        photo = gallery.photo(region.photo_id)
        vector = region_vector(gallery, region_id)
    share = photo.record.share(region.region.area)
    return ResolvedExample(photo.paths[0], vector, region.box, share, stored=True)


def resolve_in_gallery(
    gallery: GalleryReader, models: SearchModels, photo_id: int, box: Box | None, point: Point | None
) -> ResolvedExample:
    """Find the region of a stored photo that a box or a point means; with neither, it is the whole photo.

    As `resolve_example`, but the pixels are those of the stored preview if there is one.

    Raises:
        PhotoUnknown: the gallery does not hold the photo, perhaps no longer.
        PhotoUnreadable: its pixels are needed, and it is missing or changed.
        MatirError: as in `resolve_example`.
    """
    with gallery.snapshot():
        photo = gallery.photo(photo_id)
        example = Example(photo.paths[0], box, point)
        stored = _resolve_stored(gallery, photo.record.sha256, example)
    if stored is not None and (stored.iou is None or stored.iou >= REUSED_IOU):
        return stored
    image = load_working_image(gallery, photo_id)
    if image is None:
        raise PhotoUnreadable(photo.paths[0], "it is missing or changed, and no preview is stored")
    decoded = DecodedPhoto(FileRecord(photo.paths[0], 0, 0), photo.record, image)
    return _find_with_models(models, decoded, example, stored)


def _resolve_stored(gallery: GalleryReader, digest: bytes, example: Example) -> ResolvedExample | None:
    """Resolve an example by the stored regions of the photo with this SHA-256, None if there is none.

    With a box, it is the region that fits best, however poorly.
    """
    photo_id = gallery.photo_with(digest)
    if photo_id is None:
        return None
    record = gallery.photo(photo_id).record
    example = _clip(example, record)
    region = _find_stored(gallery.regions(photo_id), example, record)
    if region is None:
        return None
    share = record.share(region.region.area)
    iou = None if example.box is None else box_iou(example.box, region.box)
    vector = region_vector(gallery, region.id)
    return ResolvedExample(example.path, vector, region.box, share, stored=True, iou=iou)


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
    """Return the stored region that the example refers to, if there is one; with a box, the best fit."""
    if example.box is not None:
        fits = [(box_iou(example.box, region.box), region) for region in regions]
        # The whole photo is meant only if the box is nearly as large.
        meant = [
            (iou, region) for iou, region in fits if iou >= (POOR_IOU if region.ordinal == 0 else LEAST_IOU)
        ]
        best = max(meant, key=lambda m: (m[0], m[1].region.predicted_iou, -m[1].ordinal), default=None)
        return None if best is None else best[1]
    if example.point is None:
        return next((region for region in regions if region.ordinal == 0), None)
    point = record.to_working(example.point)
    hit = [r for r in regions if r.ordinal > 0 and masks.decode(r.region.rle)[int(point.y), int(point.x)]]
    return max(hit, key=lambda r: (r.region.predicted_iou, -r.ordinal), default=None)


def _find_with_models(
    models: SearchModels, photo: DecodedPhoto, example: Example, stored: ResolvedExample | None
) -> ResolvedExample:
    """Let the proposer find the region and the encoder its vector, unless `stored` fits the box better."""
    record, path = photo.record, example.path
    example = _clip(example, record)
    whole = masks.whole(record.mask_height, record.mask_width)
    if example.box is None:
        rle = whole if example.point is None else _region_at(models, photo, example.point)
        if rle is None:
            raise ExampleBlank(path)
        return _encode_region(models, photo, example, rle)
    (region,) = models.proposer.refine(photo.image, [record.to_working(example.box)])
    proposed = [] if region is None else [region.rle]
    fits = [(box_iou(example.box, record.to_photo(masks.box(rle))), rle) for rle in (whole, *proposed)]
    meant = [(iou, rle) for iou, rle in fits if iou >= (POOR_IOU if rle is whole else LEAST_IOU)]
    iou, best = max(meant, key=lambda fit: fit[0], default=(0.0, None))
    if stored is not None and stored.iou is not None and stored.iou > iou:
        return stored
    if best is None:
        raise ExampleBlank(path)
    return _encode_region(models, photo, example, best)


def _region_at(models: SearchModels, photo: DecodedPhoto, point: Point) -> Rle | None:
    """Return the proposer's region at a point in photo pixels; None if it finds none, or one elsewhere."""
    working = photo.record.to_working(point)
    region = models.proposer.region_at(photo.image, working)
    if region is None:
        return None
    reach = max(1, round(POINT_TOLERANCE * max(region.rle.height, region.rle.width)))
    x, y = int(working.x), int(working.y)
    near = masks.decode(region.rle)[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    return region.rle if near.any() else None


def _encode_region(models: SearchModels, photo: DecodedPhoto, example: Example, rle: Rle) -> ResolvedExample:
    (vector,) = models.region_encoder.encode(photo.image, [rle])
    if not np.isfinite(vector).all():
        raise EngineFailed("the encoder gave a vector that is not a number")
    record = photo.record
    box, share = record.to_photo(masks.box(rle)), record.share(masks.area(rle))
    iou = None if example.box is None else box_iou(example.box, box)
    return ResolvedExample(example.path, vector, box, share, stored=False, iou=iou)

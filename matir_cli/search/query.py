"""What is searched for: words, an object shown in a photo, and what it must not be; and its one vector.

Words and pictures lie in one space, but not alike: a region's cosines with texts are all small and
close together, those with other regions large and far apart ("Mind the gap", Liang et al., NeurIPS
2022). So each part of a query is measured in its own unit, the standard deviation of its cosines with
the gallery's regions: Montague and Aslam's scores of zero mean and unit variance ("Relevance score
normalization for metasearch", CIKM 2001). What is not wanted is subtracted as in Rocchio's feedback
("Relevance feedback in information retrieval", 1971), with less weight than what is:

    q  =  (1 - weight) t / s(t)  +  weight e / s(e)  -  AVERSION * mean of n / s(n)

with t the text, e the example, n each text not wanted and s the standard deviation. The means that
should be subtracted shift all scores alike and drop out. So q is one vector again,
searched like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matir_cli import masks
from matir_cli.engines.protocols import QueryVector
from matir_cli.errors import (
    EngineFailed,
    ExampleBlank,
    ExampleOutside,
    QueryContradicts,
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
from matir_cli.search.rank import score_spreads

AVERSION = 0.35
"""Share of what is not wanted. Of 0.15 to 1 the best on the drawn world: more hides what is wanted, too."""

SAME = 0.999
"""Cosine from which on two texts say the same."""

LEAST_SPREAD = 1e-6
"""Of cosines that differ at all: between equal ones lie rounding errors."""

REUSED_IOU = 0.8
"""A stored region stands for a box in an example from this IoU of the boxes on."""


@dataclass(frozen=True, slots=True)
class Example:
    """An object to look for, shown in a photo; without box and point, the photo as a whole."""

    path: Path
    """Any photo; it need not be in the gallery."""
    box: Box | None = None
    """Around the object, photo pixels."""
    point: Point | None = None
    """On the object, photo pixels; of no account beside a box."""


@dataclass(frozen=True, slots=True)
class ResolvedExample:
    """The region that an example came to."""

    path: Path
    vector: FloatArray
    """(d,) float32 of unit length."""
    box: Box
    """Around the region, photo pixels."""
    share: float
    """Part of the photo that the region covers, 0..1."""
    stored: bool
    """It is a region of the gallery; no model was asked."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to find; there is a text or an example, or both."""

    text: str | None = None
    example: Example | ResolvedExample | None = None
    """An `Example` is looked at anew in each search; `look` does it once for many."""
    weight: float = 0.5
    """Of the example beside a text, 0..1: 0 is the text alone, 1 the example alone."""
    without: tuple[str, ...] = ()
    """What not to find."""

    def __post_init__(self) -> None:
        check_range("weight", self.weight, 0, 1)

    def check(self) -> None:
        """Make sure that there is something to look for.

        Raises:
            QueryEmpty: no text and no example, or a text without a word.
            QueryNotText: a text has halves of characters in it.
        """
        texts = self.without if self.text is None else (self.text, *self.without)
        if (self.text is None and self.example is None) or not all(text.strip() for text in texts):
            raise QueryEmpty
        for text in texts:
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise QueryNotText(text)


def resolve_example(gallery: GalleryFile, models: SearchModels, example: Example) -> ResolvedExample:
    """The region that an example means, and its vector.

    A photo that is in the gallery has regions already: the one that fits the box; at a point, the
    one that the proposer was surest of. Where none does, and in any other photo, the proposer is asked.

    Raises:
        PhotoUnreadable: it cannot be read as a photo.
        ExampleOutside: the box or point is not in it.
        ExampleBlank: no object is seen there.
        MatirError: what loading and asking the models raise.
    """
    file = stat_file(example.path)
    digest = hash_file(file)
    photo_id = gallery.photo_with(digest)
    if photo_id is not None:
        size = gallery.photo(photo_id).record
        region = _stored(gallery.regions(photo_id), _inside(example, size), size)
        if region is not None:
            share = size.share(region.region.area)
            return ResolvedExample(
                example.path, region_vector(gallery, region.id), region.box, share, stored=True
            )
    return _see(models, decode_photo(file, digest), example)


def _inside(example: Example, size: PhotoRecord) -> Example:
    """The example with its box clipped to the photo."""
    box, point = example.box, example.point
    if box is not None:
        box = Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, size.width), min(box.y1, size.height))
    outside = box is not None and box.area == 0
    if box is None and point is not None:
        outside = not (0 <= point.x < size.width and 0 <= point.y < size.height)
    if outside:
        raise ExampleOutside(example.path, size.width, size.height)
    return Example(example.path, box, point)


def _stored(regions: list[StoredRegion], example: Example, size: PhotoRecord) -> StoredRegion | None:
    """The region of a photo in the gallery that stands for the example, if there is one."""
    if example.box is not None:
        best = match_box(example.box, regions)
        return best.region if best is not None and best.iou >= REUSED_IOU else None
    if example.point is None:
        return next((region for region in regions if region.ordinal == 0), None)
    at = size.to_working(example.point)
    there = [r for r in regions if r.ordinal > 0 and masks.decode(r.region.rle)[int(at.y), int(at.x)]]
    return max(there, key=lambda r: (r.region.predicted_iou, -r.ordinal), default=None)


def _see(models: SearchModels, photo: DecodedPhoto, example: Example) -> ResolvedExample:
    """The example as the models see it now."""
    size, path = photo.record, example.path
    example = _inside(example, size)
    if example.box is not None:
        (region,) = models.proposer.refine(photo.image, [size.to_working(example.box)])
    elif example.point is not None:
        region = models.proposer.region_at(photo.image, size.to_working(example.point))
    else:
        return _encode(models, photo, path, masks.whole(size.mask_height, size.mask_width))
    if region is None:
        raise ExampleBlank(path)
    return _encode(models, photo, path, region.rle)


def _encode(models: SearchModels, photo: DecodedPhoto, path: Path, rle: Rle) -> ResolvedExample:
    (vector,) = models.region_encoder.encode(photo.image, [rle])
    if not np.isfinite(vector).all():
        raise EngineFailed("the encoder gave a vector that is not a number")
    size = photo.record
    box, share = size.to_photo(masks.box(rle)), size.share(masks.area(rle))
    return ResolvedExample(path, vector, box, share, stored=False)


def encode_query(gallery: GalleryFile, models: SearchModels, query: Query) -> QueryVector:
    """The vector that regions are compared with: (d,) float32 of unit length.

    Raises:
        QueryEmpty: there is nothing to look for.
        QueryContradicts: what is not wanted says the same as what is.
        MatirError: what loading and asking the text encoder raise.
    """
    query.check()
    wanted: list[tuple[float, FloatArray]] = []
    truncated = False
    if query.text is not None:
        asked = models.text_encoder.encode(query.text)
        truncated = asked.truncated
        wanted.append((1.0 if query.example is None else 1.0 - query.weight, asked.vector))
    if query.example is not None:
        shown = (
            resolve_example(gallery, models, query.example)
            if isinstance(query.example, Example)
            else query.example
        )
        wanted.append((1.0 if query.text is None else query.weight, shown.vector))
    unwanted: list[tuple[float, FloatArray]] = []
    for text in query.without:
        asked = models.text_encoder.encode(text)
        truncated = truncated or asked.truncated
        if any(float(asked.vector @ vector) > SAME for _, vector in wanted):
            raise QueryContradicts(text)
        unwanted.append((-AVERSION / len(query.without), asked.vector))
    return QueryVector(_combine(gallery, wanted + unwanted), truncated)


def _combine(gallery: GalleryFile, parts: list[tuple[float, FloatArray]]) -> FloatArray:
    """The weighted sum of vectors, each in units of its own spread over the gallery; of unit length."""
    weights, vectors = (np.array(column) for column in zip(*parts, strict=True))
    if len(parts) > 1:
        spreads = score_spreads(gallery, vectors)
        # One region, or regions that are all alike, give no unit.
        weights = weights / (spreads if spreads.min() > LEAST_SPREAD else 1.0)
    total = weights @ vectors
    return np.asarray(total / np.linalg.norm(total), np.float32)

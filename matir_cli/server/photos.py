"""Photos for a page: pictures at a few sizes, and the outlines of their regions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli.errors import PhotoUnknown, PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.working_image import load_working_image
from matir_cli.output.json_records import BoxRecord
from matir_cli.output.outlines import svg_path
from matir_cli.photos.preview import encode_preview

SIZES = (160, 320, 640, 1024)
"""Long sides of pictures, pixels; a size in between is rounded up."""

CACHE_BYTES = 1 << 26
"""Pictures kept in memory, bytes."""

MOST_OUTLINES = 200
"""Regions that are outlined in one answer at most, unless they are those of one photo."""

MOST_REGIONS = 2000
"""Regions of a photo that are outlined at most."""


@dataclass(frozen=True, slots=True)
class ShownRegion:
    """A region of a photo."""

    id: int
    ordinal: int
    """Position in the photo: 0 is the whole photo, then the proposer's order."""
    box: BoxRecord
    """Photo pixels."""
    share: float
    """Fraction of the photo that it covers, 0..1."""
    predicted_iou: float
    """The proposer's own estimate of the mask's IoU with a real object, 0..1."""
    outline: str
    """SVG path of the mask, in half working pixels, to be filled by the even-odd rule."""


@dataclass(frozen=True, slots=True)
class ShownPhoto:
    """A photo of the gallery."""

    id: int
    paths: tuple[Path, ...]
    width: int
    """Photo pixels."""
    height: int
    mask_width: int
    """Working pixels."""
    mask_height: int
    taken_at: str | None
    camera: str | None
    latitude: float | None
    longitude: float | None


@dataclass(frozen=True, slots=True)
class ShownRegions:
    """The regions of a photo."""

    photo: int
    mask_width: int
    """Working pixels."""
    mask_height: int
    regions: tuple[ShownRegion, ...]
    """The whole photo first."""


def newest_photos(gallery: GalleryFile, limit: int) -> list[ShownPhoto]:
    """Return the facts of the photos taken last; those without a date follow, the last added first."""
    with gallery.snapshot():
        rows = gallery.connection.execute(_NEWEST, (limit,)).fetchall()
        return [shown_photo(gallery, gallery.checked_id(photo_id)) for (photo_id,) in rows]


_NEWEST = "select id from photos order by taken_at is null, taken_at desc, id desc limit ?"


def region_outlines(gallery: GalleryFile, ids: Iterable[int]) -> dict[int, str]:
    """Return the outlines of regions by id, as in `ShownRegion`; those that are gone are left out."""
    outlines = {}
    for region_id in ids:
        with suppress(PhotoUnknown):
            outlines[region_id] = svg_path(gallery.region(region_id).region.rle)
    return outlines


def shown_photo(gallery: GalleryFile, photo_id: int) -> ShownPhoto:
    """Return the facts of a photo; PhotoUnknown if there is none with that id."""
    photo = gallery.photo(photo_id)
    record = photo.record
    return ShownPhoto(
        id=photo.id,
        paths=photo.paths,
        width=record.width,
        height=record.height,
        mask_width=record.mask_width,
        mask_height=record.mask_height,
        taken_at=record.taken_at,
        camera=record.camera,
        latitude=record.latitude,
        longitude=record.longitude,
    )


def shown_regions(gallery: GalleryFile, photo_id: int) -> ShownRegions:
    """Return the regions of a photo with their outlines; PhotoUnknown if there is none with that id."""
    with gallery.snapshot():  # another process may remove the photo between the two statements
        record = gallery.photo(photo_id).record
        regions = gallery.regions(photo_id)[:MOST_REGIONS]
    shown = tuple(
        ShownRegion(
            id=each.id,
            ordinal=each.ordinal,
            box=each.box.rounded(2),
            share=round(record.share(each.region.area), 6),
            predicted_iou=round(each.region.predicted_iou, 4),
            outline=svg_path(each.region.rle),
        )
        for each in regions
    )
    return ShownRegions(photo_id, record.mask_width, record.mask_height, shown)


class Pictures:
    """Pictures of photos as JPEG; the ones asked for last are kept. May be used by several threads."""

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        """Keep up to `capacity` bytes."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._bytes = 0

    def jpeg(self, gallery: GalleryFile, photo_id: int, size: int) -> bytes:
        """Return a photo as JPEG; its long side is `size`, rounded up to one of `SIZES`, or less.

        Raises:
            PhotoUnknown: there is no photo with that id.
            PhotoUnreadable: its file is missing or changed, and no preview is stored.
        """
        photo = gallery.photo(photo_id)
        side = next((each for each in SIZES if each >= size), SIZES[-1])
        key = photo.record.sha256, side
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        image = load_working_image(gallery, photo_id)
        if image is None:
            raise PhotoUnreadable(photo.paths[0], "it is missing or changed, and no preview is stored")
        # The stored preview may be a stranger's: the browser gets one that is made here.
        picture = Image.fromarray(image)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        content = encode_preview(np.asarray(picture))
        with self._lock:
            if key not in self._kept:
                self._kept[key] = content
                self._bytes += len(content)
            while self._bytes > self._capacity:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped)
        return content

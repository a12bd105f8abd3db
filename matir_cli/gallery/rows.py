"""Gallery rows as records, validated on read: the file may be untrusted."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from matir_cli import masks
from matir_cli.records import MAX_PIXELS, Box, MaskArray, PhotoRecord, Region, Rle


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A photo stored in a gallery."""

    id: int
    paths: tuple[Path, ...]
    """Every file that holds the photo, in order of path."""
    record: PhotoRecord

    def at_true_size(self, mask: Rle) -> MaskArray:
        """Scale a mask in working pixels to photo pixels: (height, width) bool."""
        return masks.resize(masks.decode(mask), self.record.height, self.record.width)


@dataclass(frozen=True, slots=True)
class StoredRegion:
    """A region stored in a gallery."""

    id: int
    photo_id: int
    ordinal: int
    """Position in the photo: 0 is the whole photo, then the proposer's order."""
    box: Box
    """Photo pixels."""
    region: Region
    """The region as proposed: mask and box in working pixels."""


def check_photo(record: PhotoRecord) -> PhotoRecord:
    """Return `record` if this tool could have written it.

    Raises:
        ValueError: a value has the wrong type, is out of range or contradicts another one.
    """
    checked = msgspec.convert(asdict(record), PhotoRecord)
    if not isinstance(record.sha256, bytes) or len(record.sha256) != 32:
        raise ValueError("its SHA-256 is invalid")
    if not (0 < checked.mask_width <= checked.width and 0 < checked.mask_height <= checked.height):
        raise ValueError("its size is impossible")
    if checked.width * checked.height > MAX_PIXELS or checked.orientation not in range(1, 9):
        raise ValueError("its size or orientation is impossible")
    if checked.taken_at is not None:
        datetime.fromisoformat(checked.taken_at)
    if not all(
        degrees is None or math.isfinite(degrees) for degrees in (checked.latitude, checked.longitude)
    ):
        raise ValueError("its position is impossible")
    return checked


def read_region(row: Any) -> StoredRegion:
    """Convert a row of `GalleryFile`'s region query: the region's columns, then its photo's four sizes.

    Raises:
        TypeError, ValueError, ZeroDivisionError: this tool cannot have written the row.
    """
    region_id, photo_id, ordinal, x0, y0, x1, y1, area, iou, stability, counts, *sizes = row
    width, height, mask_width, mask_height = sizes
    box, rle = Box(x0, y0, x1, y1), Rle(mask_height, mask_width, counts)
    masks.check(rle)
    if not (isinstance(area, int) and all(map(math.isfinite, (x0, y0, x1, y1, iou, stability)))):
        raise ValueError("a size or a score is not a number")
    region = Region(rle, box.scaled(mask_width / width, mask_height / height), area, iou, stability)
    return StoredRegion(region_id, photo_id, ordinal, box, region)

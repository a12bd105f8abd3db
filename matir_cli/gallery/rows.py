"""What lies in a gallery, as records; checked when it is read, since a gallery may come from a stranger."""

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
    """A photo as it lies in the gallery."""

    id: int
    paths: tuple[Path, ...]
    """Every file that holds it, in order of path."""
    record: PhotoRecord

    def at_true_size(self, mask: Rle) -> MaskArray:
        """A mask in working pixels as (height, width) bool in photo pixels."""
        return masks.resize(masks.decode(mask), self.record.height, self.record.width)


@dataclass(frozen=True, slots=True)
class StoredRegion:
    """A region as it lies in the gallery."""

    id: int
    photo_id: int
    ordinal: int
    """0 is the whole photo."""
    box: Box
    """Photo pixels."""
    region: Region
    """As the proposer gave it: mask and box in working pixels."""


def checked_photo(record: PhotoRecord) -> PhotoRecord:
    """The record, if this tool may have written it; a gallery may come from a stranger. Else ValueError."""
    checked = msgspec.convert(asdict(record), PhotoRecord)
    if not isinstance(record.sha256, bytes) or len(record.sha256) != 32:
        raise ValueError("its SHA-256 is none")
    if not (0 < checked.mask_width <= checked.width and 0 < checked.mask_height <= checked.height):
        raise ValueError("an impossible size")
    if checked.width * checked.height > MAX_PIXELS or checked.orientation not in range(1, 9):
        raise ValueError("an impossible size or orientation")
    if checked.taken_at is not None:
        datetime.fromisoformat(checked.taken_at)
    if not all(place is None or math.isfinite(place) for place in (checked.latitude, checked.longitude)):
        raise ValueError("an impossible place")
    return checked


def read_region(row: Any) -> StoredRegion:
    """A region from its columns and its photo's four sizes, in the order of the tables.

    Raises:
        TypeError, ValueError, ZeroDivisionError: this tool has not written it.
    """
    region_id, photo_id, ordinal, x0, y0, x1, y1, area, iou, stability, counts, *sizes = row
    width, height, mask_width, mask_height = sizes
    box, rle = Box(x0, y0, x1, y1), Rle(mask_height, mask_width, counts)
    masks.check(rle)
    if not (isinstance(area, int) and all(map(math.isfinite, (x0, y0, x1, y1, iou, stability)))):
        raise ValueError("a size or a score is not a number")
    region = Region(rle, box.scaled(mask_width / width, mask_height / height), area, iou, stability)
    return StoredRegion(region_id, photo_id, ordinal, box, region)

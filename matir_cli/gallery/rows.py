"""Gallery rows as records, validated on read: the file may be untrusted."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from matir_cli import masks
from matir_cli.records import (
    MAX_PIXELS,
    WORKING_SIDE,
    Box,
    FileMetadata,
    MaskArray,
    OriginKind,
    PhotoRecord,
    Region,
    RegionOrigin,
    Rle,
)

LONGEST_TEXT = 100_000
"""Characters of a stored text at most, such as a query, or a judge's answer."""

LONGEST_LABEL = 1000
"""Characters of a region's label at most."""

LONGEST_VECTOR = 1 << 16
"""Dimensions of a stored vector at most; CLIP's have up to 1280."""

LONGEST_PREVIEW = 1 << 26
"""Bytes of a stored preview at most; one has some hundred thousand."""


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A photo stored in a gallery."""

    id: int
    paths: tuple[Path, ...]
    """Every file that holds the photo, in order of path, raw files that share it last."""
    record: PhotoRecord
    metadata: FileMetadata = field(default_factory=FileMetadata)
    """Rating, keywords and position that its files and their sidecars state."""

    @property
    def position(self) -> tuple[float, float] | None:
        """Latitude and longitude, degrees: that of a sidecar, else that of the photo itself."""
        for each in (self.metadata, self.record):
            if each.latitude is not None and each.longitude is not None:
                return each.latitude, each.longitude
        return None

    def at_true_size(self, mask: Rle) -> MaskArray:
        """Scale a mask in working pixels to photo pixels: (height, width) bool."""
        return masks.resize(masks.decode(mask), self.record.height, self.record.width)


@dataclass(frozen=True, slots=True)
class StoredRegion:
    """A region stored in a gallery."""

    id: int
    photo_id: int
    ordinal: int
    """Position in the photo: 0 is the whole photo, then the proposer's order, then regions given."""
    box: Box
    """Photo pixels."""
    region: Region
    """The region as proposed or given: mask and box in working pixels."""


def check_photo(record: PhotoRecord) -> PhotoRecord:
    """Return `record` if this tool could have written it.

    Raises:
        ValueError: a value has the wrong type, is out of range or contradicts another one.
    """
    try:
        checked = msgspec.convert(asdict(record), PhotoRecord)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    if not isinstance(record.sha256, bytes) or len(record.sha256) != 32:
        raise ValueError("its SHA-256 is invalid")
    _check_size(checked.width, checked.height, checked.mask_width, checked.mask_height)
    if checked.orientation not in range(1, 9):
        raise ValueError("its orientation is impossible")
    if checked.taken_at is not None:
        datetime.fromisoformat(checked.taken_at)
    check_text(checked.camera or "", "its camera")
    for degrees, most in ((checked.latitude, 90.0), (checked.longitude, 180.0)):
        if degrees is not None and not -most <= degrees <= most:
            raise ValueError("its position is impossible")
    return checked


def _check_size(width: int, height: int, mask_width: int, mask_height: int) -> None:
    """Check the size of a photo, and that at which its masks are stored."""
    if not (0 < mask_width <= width and 0 < mask_height <= height and width * height <= MAX_PIXELS):
        raise ValueError("its size is impossible")
    if max(mask_width, mask_height) > WORKING_SIDE:
        raise ValueError(f"its masks of {mask_width} x {mask_height} pixels are larger than any")


def check_text(value: object, name: str) -> str:
    """Return `value` if it is a text of at most `LONGEST_TEXT` characters.

    Raises:
        ValueError: it is not; the message begins with `name`.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"{name} is too long")
    return value


def check_number(value: object, name: str) -> float:
    """Return `value` if it is a finite number.

    Raises:
        ValueError: it is not; the message begins with `name`.
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is not a finite number")
    return value


def check_id(value: object, name: str) -> int:
    """Return `value` if it is an integer.

    Raises:
        ValueError: it is not; the message begins with `name`.
    """
    if not isinstance(value, int):
        raise ValueError(f"{name} is not an integer")
    return value


def read_boxes(text: object, width: float, height: float) -> tuple[Box, ...]:
    """Read the boxes of a stored grounding, as JSON, clipped to a photo of `width` x `height` pixels.

    Raises:
        ValueError: `text` is not a list of boxes.
    """
    try:
        corners = msgspec.json.decode(
            check_text(text, "the list of a judge's boxes"), type=list[tuple[float, float, float, float]]
        )
    except msgspec.MsgspecError as error:
        raise ValueError(f"a judge's boxes: {error}") from error
    return tuple(_clipped(Box(*box), width, height) for box in corners)


def _clipped(box: Box, width: float, height: float) -> Box:
    """Clip a box to a photo; ValueError if an edge is not a number, or the edges are in the wrong order."""
    x0, x1 = (min(max(check_number(x, "a box's edge"), 0.0), width) for x in (box.x0, box.x1))
    y0, y1 = (min(max(check_number(y, "a box's edge"), 0.0), height) for y in (box.y0, box.y1))
    if x1 < x0 or y1 < y0:
        raise ValueError("a box is inside out")
    return Box(x0, y0, x1, y1)


def read_region(row: Any) -> StoredRegion:
    """Convert a row of `region_rows.SELECT_REGION`.

    The box is clipped to the photo.

    Raises:
        TypeError, ValueError: this tool cannot have written the row.
    """
    region_id, photo_id, ordinal, x0, y0, x1, y1, area, iou, stability, counts, *others = row
    *sizes, has_origin, kind, label = others
    width, height, mask_width, mask_height = (check_id(size, "a size") for size in sizes)
    _check_size(width, height, mask_width, mask_height)
    if not isinstance(counts, bytes):
        raise ValueError("its mask is not a blob")
    box, rle = _clipped(Box(x0, y0, x1, y1), width, height), Rle(mask_height, mask_width, counts)
    masks.check(rle)
    if not 0 <= check_id(area, "an area") <= mask_width * mask_height or check_id(ordinal, "an ordinal") < 0:
        raise ValueError("its area or position is impossible")
    check_number(iou, "a predicted IoU")
    check_number(stability, "a stability")
    origin = None if has_origin is None else read_origin(kind, label)
    region = Region(rle, box.scaled(mask_width / width, mask_height / height), area, iou, stability, origin)
    return StoredRegion(region_id, photo_id, ordinal, box, region)


def read_origin(kind: object, label: object) -> RegionOrigin:
    """Check a row of `region_origins`; ValueError if this tool cannot have written it."""
    if label is not None and len(check_text(label, "a region's label")) > LONGEST_LABEL:
        raise ValueError("a region's label is too long")
    return RegionOrigin(
        OriginKind(check_text(kind, "a region's origin")), None if label is None else str(label)
    )

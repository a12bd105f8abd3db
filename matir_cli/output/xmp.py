"""Labels and regions in the terms of XMP, and the paths of sidecars.

A label becomes a keyword (`dc:subject`). Its place becomes a region as defined by the Metadata Working
Group's "Guidelines for Handling Image Metadata" 2.0 (2010), section 5.9: centre, width and height as
fractions of the image *as stored*, before its EXIF orientation is applied. Programs that show the photo
rotate the region with it. The types of regions are Face, Pet, Focus and BarCode; there is none for other
objects, so a region has no type by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matir_cli.records import Box, PhotoRecord
from matir_cli.search.results import SearchResult

AUTO = "auto"
"""The sidecars that the photo has, or else one named by `APPEND`."""

APPEND = "append"
"""Sidecar named photo.jpg.xmp, as by digiKam and darktable: photo.jpg and photo.png have one each."""

REPLACE = "replace"
"""Sidecar named photo.xmp, as by Lightroom."""

REGION_TYPES = ("Face", "Pet", "Focus", "BarCode")
"""Types that the guidelines allow; a region may also have none."""


@dataclass(frozen=True, slots=True)
class XmpTag:
    """A label for a photo, and the places of the objects that it names."""

    label: str
    """The keyword; satisfies `is_label`."""
    boxes: Sequence[Box] = ()
    """Boxes of the objects, photo pixels (upright)."""
    type: str | None = None
    """Type of the regions: one of `REGION_TYPES`, or None for no type."""


@dataclass(frozen=True, slots=True)
class XmpArea:
    """A region of the stored image; fractions of its width and height, 0..1."""

    x: float
    """x of the centre."""
    y: float
    """y of the centre."""
    w: float
    h: float

    @property
    def box(self) -> Box:
        """The region as a box, in the same fractions."""
        return Box(self.x - self.w / 2, self.y - self.h / 2, self.x + self.w / 2, self.y + self.h / 2)


def is_label(text: str) -> bool:
    """Return True if `text` can be a keyword.

    It must not be empty, start or end with space, or hold control characters or others that XML cannot hold.
    """
    return text == text.strip() != "" and all(
        (c >= " " and not "\x7f" <= c <= "\x9f" and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff")
        for c in text
    )


def region_boxes(result: SearchResult, all_instances: bool) -> tuple[Box, ...]:
    """Return the boxes of the first object or of all objects, in photo pixels.

    A region that is the whole photo, found without the judge, has no box worth noting and is left out.
    """
    objects = result.objects if all_instances else result.objects[:1]
    judged = result.grounding is not None
    return tuple(each.box for each in objects if judged or each.region is None or each.region.ordinal > 0)


def sidecar_path(photo: Path, naming: str) -> Path:
    """Return the path of the sidecar of `photo`; `naming` is `APPEND` or `REPLACE`."""
    return photo.with_name(f"{photo.name}.xmp") if naming == APPEND else photo.with_suffix(".xmp")


def stored_area(box: Box, photo: PhotoRecord) -> XmpArea:
    """Convert a box in photo pixels (upright) to an area of the image as stored, clipped to the image."""
    x0, x1 = (min(max(x / photo.width, 0.0), 1.0) for x in (box.x0, box.x1))
    y0, y1 = (min(max(y / photo.height, 0.0), 1.0) for y in (box.y0, box.y1))
    x, y, w, h = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
    # The inverse of the transformation that the EXIF tag Orientation prescribes.
    match photo.orientation:
        case 2:
            return XmpArea(1 - x, y, w, h)
        case 3:
            return XmpArea(1 - x, 1 - y, w, h)
        case 4:
            return XmpArea(x, 1 - y, w, h)
        case 5:
            return XmpArea(y, x, h, w)
        case 6:
            return XmpArea(y, 1 - x, h, w)
        case 7:
            return XmpArea(1 - y, 1 - x, h, w)
        case 8:
            return XmpArea(1 - y, x, h, w)
        case _:
            return XmpArea(x, y, w, h)

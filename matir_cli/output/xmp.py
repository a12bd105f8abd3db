"""Labels and regions as XMP has them, and the sidecar they go to.

A label becomes a keyword (`dc:subject`). Where it is becomes a region after the Metadata Working
Group's "Guidelines for Handling Image Metadata" 2.0 (2010), section 5.9: centre, width and height
as fractions of the image *as it is stored*, before its EXIF orientation is applied. Programs that
show the photo turn the region with it. Its types are Face, Pet, Focus and BarCode; there is none for
things, so a region has no type unless told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matir_cli.records import Box, PhotoRecord
from matir_cli.search.results import SearchResult

APPEND = "append"
"""photo.jpg.xmp, as digiKam and darktable do it: photo.jpg and photo.png have one each."""

REPLACE = "replace"
"""photo.xmp, as Lightroom does it."""

REGION_TYPES = ("Face", "Pet", "Focus", "BarCode")
"""What the guidelines allow; a region may also have none."""


@dataclass(frozen=True, slots=True)
class XmpTag:
    """What is found in a photo."""

    label: str
    """Fulfils `is_label`."""
    boxes: Sequence[Box] = ()
    """Where it is: photo pixels, upright."""
    type: str | None = None
    """Of the regions: one of `REGION_TYPES`, or None to leave it out."""


@dataclass(frozen=True, slots=True)
class XmpArea:
    """A region of the stored image; fractions of its width and height, 0..1."""

    x: float
    """Of the centre."""
    y: float
    w: float
    h: float

    @property
    def box(self) -> Box:
        """The same, by its corners."""
        return Box(self.x - self.w / 2, self.y - self.h / 2, self.x + self.w / 2, self.y + self.h / 2)


def is_label(text: str) -> bool:
    """Whether `text` can be a keyword: not empty, no space around it, no character that XML cannot hold."""
    return text == text.strip() != "" and all(
        (c >= " " and not "\x7f" <= c <= "\x9f" and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff")
        for c in text
    )


def region_boxes(found: SearchResult, all_instances: bool) -> tuple[Box, ...]:
    """Where the object is, photo pixels: the first answer or all; nowhere for what fills the photo."""
    answers = found.answers if all_instances else found.answers[:1]
    judged = found.grounding is not None
    return tuple(a.box for a in answers if judged or a.region is None or a.region.ordinal > 0)


def sidecar_path(photo: Path, naming: str) -> Path:
    """Where the sidecar of `photo` lies; `naming` is `APPEND` or `REPLACE`."""
    return photo.with_name(f"{photo.name}.xmp") if naming == APPEND else photo.with_suffix(".xmp")


def stored_area(box: Box, photo: PhotoRecord) -> XmpArea:
    """A box of the upright photo, in photo pixels, as an area of the image that the file stores."""
    x0, x1 = (min(max(x / photo.width, 0.0), 1.0) for x in (box.x0, box.x1))
    y0, y1 = (min(max(y / photo.height, 0.0), 1.0) for y in (box.y0, box.y1))
    x, y, w, h = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
    # The inverse of what turns the stored image upright, see the EXIF tag Orientation.
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

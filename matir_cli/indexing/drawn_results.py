"""Masks and boxes of Label Studio's JSON export, decoded: brush, polygon and rectangle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from matir_cli import masks
from matir_cli.gallery.brush_rle import decode_brush
from matir_cli.gallery.label_studio import PROPOSED_LABEL
from matir_cli.gallery.rows import LONGEST_LABEL, StoredPhoto
from matir_cli.indexing.annotations import is_scaled
from matir_cli.records import Box, MaskArray
from matir_cli.search.query import normal_text

OTHER_KIND = "of another kind than brush, polygon and rectangle"
TURNED = "of a photo that was turned in Label Studio"
WRONG_SIZE = "drawn on a picture of another size than the photo"
MALFORMED = "with malformed values, or a rectangle that was turned"
EMPTY = "empty, or outside of the picture"
"""Reasons why masks and boxes of a task are left out."""

DECODING_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec on what a stranger has written."""


class _Value(msgspec.Struct):
    """The values of all kinds of results that are read."""

    format: str | None = None
    rle: list[int] | None = None
    points: list[tuple[float, float]] | None = None
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    rotation: float | None = 0
    brushlabels: list[str] | None = None
    polygonlabels: list[str] | None = None
    rectanglelabels: list[str] | None = None
    labels: list[str] | None = None


class _Result(msgspec.Struct):
    type: str
    original_width: int
    original_height: int
    value: _Value
    id: str | None = None
    image_rotation: float | None = 0
    origin: str | None = None
    """Label Studio's word on it: "prediction", "prediction-changed" or "manual"."""


class LeftOut(Exception):
    """A task, or a mask or box of one, is left out, for this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DrawnResult:
    """A mask or a box as a person has left it."""

    id: str | None
    label: str | None
    mask: MaskArray | None
    """(h, w) bool, at the size of the picture it was drawn on; None for a box."""
    box: Box | None
    """Working pixels; None for a mask."""
    is_untouched: bool
    """True if Label Studio says that it is as it was predicted."""


def decode_result(raw: msgspec.Raw, photo: StoredPhoto) -> DrawnResult:
    """Decode a result of an annotation; LeftOut if it is no mask or box, or cannot be used."""
    kind = _decode_field(raw, _Kind).type.lower().removesuffix("labels")
    if kind not in ("brush", "polygon", "rectangle"):
        raise LeftOut(OTHER_KIND)
    result = _decode_field(raw, _Result)
    value, width, height = result.value, result.original_width, result.original_height
    if (result.image_rotation or 0) % 360:
        raise LeftOut(TURNED)
    if not (
        0 < width <= masks.MAX_SIDE
        and 0 < height <= masks.MAX_SIDE
        and is_scaled((width, height), (photo.record.width, photo.record.height))
    ):
        raise LeftOut(WRONG_SIZE)
    mask, box = None, None
    if kind == "rectangle":
        box = photo.record.to_working(_box(value).scaled(photo.record.width, photo.record.height))
    else:
        try:
            mask = _brush(value, width, height) if kind == "brush" else _polygon(value, width, height)
        except ValueError as error:
            raise LeftOut(MALFORMED) from error
        if not mask.any():
            raise LeftOut(EMPTY)
    given = (value.brushlabels, value.polygonlabels, value.rectanglelabels, value.labels)
    labels = [normal_text(label)[:LONGEST_LABEL] for each in given for label in each or ()]
    label = next((each for each in labels if each and each != PROPOSED_LABEL), None)
    return DrawnResult(result.id, label, mask, box, result.origin == "prediction")


class _Kind(msgspec.Struct):
    type: str


_Form = TypeVar("_Form", _Kind, _Result)


def _decode_field(raw: msgspec.Raw, form: type[_Form]) -> _Form:
    try:
        return msgspec.json.decode(raw, type=form)
    except DECODING_ERRORS as error:
        raise LeftOut(MALFORMED) from error


def _brush(value: _Value, width: int, height: int) -> MaskArray:
    """Decode a brush mask: (height, width) bool; ValueError if it is none."""
    if value.rle is None or value.format not in (None, "rle"):
        raise ValueError("a brush without run lengths")
    return decode_brush(bytes(value.rle), width, height)


def _polygon(value: _Value, width: int, height: int) -> MaskArray:
    """Draw a polygon in percent: (height, width) bool; ValueError if it is none."""
    points = [edge for x, y in value.points or () for edge in (x / 100 * width, y / 100 * height)]
    return masks.decode(masks.segmentation_to_rle([points], height, width))


def _box(value: _Value) -> Box:
    """Return the box around a rectangle in percent, clipped: as fractions of the picture's sides."""
    edges = (value.x, value.y, value.width, value.height)
    if any(edge is None or not math.isfinite(edge) for edge in edges) or (value.rotation or 0) % 360:
        raise LeftOut(MALFORMED)
    x, y, width, height = (float(edge or 0) / 100 for edge in edges)
    x0, x1 = (min(max(edge, 0.0), 1.0) for edge in (x, x + width))
    y0, y1 = (min(max(edge, 0.0), 1.0) for edge in (y, y + height))
    if x1 <= x0 or y1 <= y0:
        raise LeftOut(EMPTY)
    return Box(x0, y0, x1, y1)

"""Pictures for clients: photos with outlined objects, and contact sheets, as JPEG of bounded size."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.output import drawing
from matir_cli.output.overlays import MARK
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import Box, Rle
from matir_cli.search.results import SearchResult

LARGEST_PICTURE = 1 << 20
"""Bytes of a picture at most."""

SHEET_SIDE = 1536
"""Width of a contact sheet at most, pixels."""

TILE_SIDE = 384
"""Side of a photo on a contact sheet at most, pixels."""

_GAP = 4
"""Pixels between the photos of a contact sheet."""

_QUALITIES = (85, 70, 50, 30)
"""JPEG qualities, tried in this order until the picture is small enough."""

_PAPER = (32, 32, 32)


@dataclass(frozen=True, slots=True)
class Outlined:
    """An object to outline in a picture."""

    label: str
    box: Box
    """Photo pixels."""
    mask: Rle | None
    """Working pixels."""
    colour: drawing.Colour


def jpeg(picture: Image.Image) -> bytes:
    """Encode a picture as JPEG of at most `LARGEST_PICTURE` bytes, coarser or smaller if it has to be."""
    while True:
        for quality in _QUALITIES:
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=quality)
            if stream.tell() <= LARGEST_PICTURE:
                return stream.getvalue()
        picture = picture.reduce(2)


def outlined_photo(
    photo: StoredPhoto, working: Image.Image, objects: Sequence[Outlined], side: int
) -> Image.Image:
    """Draw objects onto a copy of a photo.

    Args:
        working: RGB, the photo at working size.
        side: long side of the picture at most, pixels.
    """
    picture = _within(working, side)
    # Large objects first, so that smaller ones on top of them stay visible.
    ordered = sorted(objects, key=lambda each: -each.box.area)
    boxes = [photo.record.scaled_to(each.box, *picture.size) for each in ordered]
    for each in ordered:
        if each.mask is not None:
            mask = masks.resize(masks.decode(each.mask), picture.height, picture.width)
            drawing.tint(picture, mask, each.colour)
    for each, box in zip(ordered, boxes, strict=True):
        drawing.outline(picture, box, each.colour)
    labels = drawing.Labels(picture)
    # Labels of small objects first: they have the fewest places to go.
    for each, box in reversed([*zip(ordered, boxes, strict=True)]):
        labels.label(box, each.label, each.colour)
    return picture


def found_object(result: SearchResult, label: str) -> list[Outlined]:
    """Return the object of a result, to be outlined; an empty list if there is none."""
    return [Outlined(label, each.box, each.mask, MARK) for each in result.objects[:1]]


def contact_sheet(
    gallery: GalleryFile, results: Sequence[SearchResult]
) -> tuple[Image.Image, int, list[bool]]:
    """Draw results (at least one) side by side, each with its object and its number.

    Returns:
        The picture, the number of its columns, and for each result whether its photo is available.
    """
    columns = math.ceil(math.sqrt(len(results)))
    side = min(TILE_SIDE, (SHEET_SIDE - _GAP) // columns - _GAP)
    rows = math.ceil(len(results) / columns)
    step = side + _GAP
    sheet = Image.new("RGB", (_GAP + columns * step, _GAP + rows * step), _PAPER)
    available = []
    for index, result in enumerate(results):
        tile, shown = _tile(gallery, result, side)
        left, top = _GAP + index % columns * step, _GAP + index // columns * step
        sheet.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
        corner = Box(left, top, left + side, top + side)
        drawing.Labels(sheet, max(12, side // 12)).label(corner, str(result.rank), MARK)
        available.append(shown)
    return sheet, columns, available


def _tile(gallery: GalleryFile, result: SearchResult, side: int) -> tuple[Image.Image, bool]:
    """Return a photo on a contact sheet, and whether it is available."""
    working = ResultPixels(gallery, result, all_instances=False).working
    if working is None:
        return Image.new("RGB", (side, side), (96, 96, 96)), False
    picture = _within(working, side)
    for each in result.objects[:1]:
        if each.mask is not None:
            mask = masks.resize(masks.decode(each.mask), picture.height, picture.width)
            drawing.tint(picture, mask, MARK)
        drawing.outline(picture, result.photo.record.scaled_to(each.box, *picture.size), MARK)
    return picture, True


def _within(picture: Image.Image, side: int) -> Image.Image:
    """Return a copy of a picture whose long side is `side`."""
    factor = side / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)

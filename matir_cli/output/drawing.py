"""Drawing masks, boxes and labels onto photos.

Everything is drawn in place on an RGB `PIL.Image` of any size; masks and boxes are in its pixels. Lines and
letters grow with the picture, so that they are as legible on a thumbnail as on 50 megapixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from matir_cli import masks
from matir_cli.atomic_write import atomic_write
from matir_cli.errors import OutputError
from matir_cli.gallery.rows import StoredRegion
from matir_cli.records import Box, ImageArray, MaskArray

Colour: TypeAlias = tuple[int, int, int]
"""RGB, 0..255."""

TINT = 0.4
"""Fraction of the colour in a tinted pixel, low enough for the object to stay recognisable."""

LEAST_SIDE = 1024
"""Pixels: `canvas` enlarges smaller photos to this long side, so that labels have space."""

PICTURE_FORMATS = {"": "PNG", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""File name suffix, in lower case, to the image format that Pillow writes for it."""

_GOLDEN = 0.618034
"""The golden ratio's fraction: multiples of it, modulo 1, keep far apart."""

_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)

_MIDDLE = 140
"""Luma, 0..255, from which on text on a colour is dark."""


def colour(number: int) -> Colour:
    """Return a bright colour; those of consecutive numbers are the golden ratio of the hue circle apart."""
    hue = (0.02 + number * _GOLDEN) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if number % 2 else 0.65, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def canvas(photo: Image.Image) -> Image.Image:
    """Return a copy of the photo to draw on, enlarged to a long side of `LEAST_SIDE` if it is smaller."""
    factor = max(1.0, LEAST_SIDE / max(photo.size))
    size = round(photo.width * factor), round(photo.height * factor)
    return photo.resize(size, Image.Resampling.LANCZOS)


def line_width(picture: Image.Image) -> int:
    """Return the width of lines in pixels: a 400th of the long side, at least 1."""
    return max(1, round(max(picture.size) / 400))


def tint(picture: Image.Image, mask: MaskArray, colour: Colour) -> None:
    """Tint the pixels of the (height, width) bool `mask`, and draw a line just inside its edge."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    # Only the part that the mask covers, so that many small masks on a large photo stay cheap.
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    share = np.where(part, np.uint8(round(255 * TINT)), np.uint8(0))
    share[part & ~_eroded(part, line_width(picture))] = 255
    picture.paste(colour, (left, top), Image.fromarray(share))


def outline(picture: Image.Image, box: Box, colour: Colour) -> None:
    """Draw a box (continuous edges), with a dark line on either side so that it shows on any background."""
    width = line_width(picture)
    x1, y1 = max(box.x0, box.x1 - 1), max(box.y0, box.y1 - 1)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((box.x0 - 1, box.y0 - 1, x1 + 1, y1 + 1), outline=_DARK, width=width + 2)
    draw.rectangle((box.x0, box.y0, x1, y1), outline=colour, width=width)


class Labels:
    """Places labels on one picture so that none covers another while there is space."""

    def __init__(self, picture: Image.Image, size: int | None = None) -> None:
        """Start with no labels.

        Args:
            picture: RGB; labels are drawn onto it.
            size: of the letters in pixels; None: a 55th of the picture's long side, at least 11.
        """
        self._draw = ImageDraw.Draw(picture)
        self._size = picture.size
        self._font = ImageFont.load_default(size or max(11, round(max(picture.size) / 55)))
        self._taken: list[Box] = []

    def label(self, box: Box, text: str, colour: Colour) -> None:
        """Write `text` on a plate of the colour, inside or outside the top or bottom edge of `box`."""
        x0, y0, x1, y1 = self._draw.textbbox((0, 0), text, font=self._font)
        margin = max(2, round((y1 - y0) / 4))
        width, height = x1 - x0 + 2 * margin, y1 - y0 + 2 * margin
        plate = self._place(box, width, height)
        self._taken.append(plate)
        ink = _ink(colour)
        self._draw.rectangle((plate.x0, plate.y0, plate.x1 - 1, plate.y1 - 1), colour, ink)
        self._draw.text((plate.x0 + margin - x0, plate.y0 + margin - y0), text, ink, self._font)

    def _place(self, box: Box, width: float, height: float) -> Box:
        """Return the first free place of this size inside the picture; the first of all if none is free."""
        across, down = self._size
        first = None
        for x, y in _places(box, width, height):
            left, top = max(0.0, min(x, across - width)), max(0.0, min(y, down - height))
            plate = Box(left, top, left + width, top + height)
            if not any(_overlap(plate, other) for other in self._taken):
                return plate
            first = first or plate
        assert first is not None
        return first


def regions_overlay(image: ImageArray, regions: Sequence[StoredRegion]) -> Image.Image:
    """Draw all regions but the whole photo: tinted, boxed and numbered by their ordinals.

    Args:
        image: (mask_height, mask_width, 3) uint8 RGB, the photo at working size.

    Returns:
        An RGB picture at working size, or larger if that is below `LEAST_SIDE`.
    """
    height, width = image.shape[:2]
    picture = canvas(Image.fromarray(image))
    size = picture.size
    # Large regions first, so that smaller ones on top of them stay visible.
    drawn = sorted((r for r in regions if r.ordinal > 0), key=lambda r: -r.region.area)
    boxes = [r.region.box.scaled(size[0] / width, size[1] / height) for r in drawn]
    for region in drawn:
        mask = masks.resize(masks.decode(region.region.rle), size[1], size[0])
        tint(picture, mask, colour(region.ordinal))
    for region, box in zip(drawn, boxes, strict=True):
        outline(picture, box, colour(region.ordinal))
    labels = Labels(picture)
    # Labels of small regions first: they have the fewest places to go.
    for region, box in reversed([*zip(drawn, boxes, strict=True)]):
        labels.label(box, str(region.ordinal), colour(region.ordinal))
    return picture


def _ink(background: Colour) -> Colour:
    """Return black or white, whichever is more legible on `background`; luma as in ITU-R BT.601."""
    red, green, blue = background
    return _DARK if 0.299 * red + 0.587 * green + 0.114 * blue >= _MIDDLE else _LIGHT


def save_picture(picture: Image.Image, path: Path, *, force: bool) -> None:
    """Write the picture in the format that the suffix of `path` names; PNG if it has none.

    Raises:
        OutputExists: the file exists, and `force` is False.
        OutputError: it cannot be written, or the suffix is not in `PICTURE_FORMATS`.
    """
    if (kind := PICTURE_FORMATS.get(path.suffix.lower())) is None:
        raise OutputError(path, f"{path.suffix} is none of {', '.join(filter(None, PICTURE_FORMATS))}")
    with atomic_write(path, force=force) as temporary:
        picture.save(temporary, kind)


def _eroded(mask: MaskArray, steps: int) -> MaskArray:
    """Return the mask without its outermost `steps` pixels; pixels beyond the array count as outside."""
    inner = np.pad(mask, 1)
    for _ in range(steps):
        core = inner.copy()
        core[1:, :] &= inner[:-1, :]
        core[:-1, :] &= inner[1:, :]
        core[:, 1:] &= inner[:, :-1]
        core[:, :-1] &= inner[:, 1:]
        inner = core
    return inner[1:-1, 1:-1]


def _places(box: Box, width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield places for a label, best first: inside the top edge, above it, inside the bottom edge, below."""
    steps = max(1, int((box.x1 - box.x0) // width))
    for y in (box.y0, box.y0 - height, box.y1 - height, box.y1):
        for step in range(steps):
            yield box.x0 + step * width, y


def _overlap(left: Box, right: Box) -> bool:
    return left.x0 < right.x1 and right.x0 < left.x1 and left.y0 < right.y1 and right.y0 < left.y1

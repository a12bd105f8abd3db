"""Masks, boxes and labels drawn onto a photo, at its true or its working size.

Everything is drawn in place on an RGB `PIL.Image`; masks, boxes and the picture share one frame.
Lines and letters grow with the picture, so that they are as legible on a thumbnail as on 50 megapixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from matir_cli import masks
from matir_cli.gallery import StoredRegion
from matir_cli.records import Box, ImageArray, MaskArray

Colour: TypeAlias = tuple[int, int, int]
"""RGB, 0..255."""

TINT = 0.4
"""Share of the colour in a tinted pixel: the object stays recognisable."""

LEAST_SIDE = 1024
"""Pixels: `regions_overlay` enlarges a smaller photo to this long side, so that numbers find room."""

_GOLDEN = 0.618034
_PLATE = (20, 20, 20)


def colour(number: int) -> Colour:
    """A bright colour; neighbouring numbers differ most, by the golden ratio of the hue circle."""
    hue = (0.02 + number * _GOLDEN) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if number % 2 else 0.65, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def line_width(picture: Image.Image) -> int:
    """Pixels: a 400th of the long side, at least 1."""
    return max(1, round(max(picture.size) / 400))


def tint(picture: Image.Image, mask: MaskArray, colour: Colour) -> None:
    """Colour the pixels of the (height, width) `mask`, and draw a line around it, just inside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    # Only the part that the mask covers: many small masks on a large photo stay cheap.
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    share = np.where(part, np.uint8(round(255 * TINT)), np.uint8(0))
    share[part & ~_eroded(part, line_width(picture))] = 255
    picture.paste(colour, (left, top), Image.fromarray(share))


def outline(picture: Image.Image, box: Box, colour: Colour) -> None:
    """Draw the box, continuous edges, with a dark line beside the coloured one so that it shows on any ground."""
    width = line_width(picture)
    x1, y1 = max(box.x0, box.x1 - 1), max(box.y0, box.y1 - 1)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((box.x0 - 1, box.y0 - 1, x1 + 1, y1 + 1), outline=_PLATE, width=width + 2)
    draw.rectangle((box.x0, box.y0, x1, y1), outline=colour, width=width)


@dataclass(slots=True)
class Labels:
    """Puts labels onto one picture so that none covers another while there is room."""

    picture: Image.Image
    size: int | None = None
    """Of the letters, in pixels; None: a 55th of the picture's long side, at least 11."""
    _taken: list[Box] = field(default_factory=list)

    def label(self, box: Box, text: str, colour: Colour) -> None:
        """Write `text` in the colour on a dark plate, at a corner of `box` or along its edges."""
        font = ImageFont.load_default(self.size or max(11, round(max(self.picture.size) / 55)))
        draw = ImageDraw.Draw(self.picture)
        x0, y0, x1, y1 = draw.textbbox((0, 0), text, font)
        margin = max(2, round((y1 - y0) / 4))
        width, height = x1 - x0 + 2 * margin, y1 - y0 + 2 * margin
        plate = self._place(box, width, height)
        self._taken.append(plate)
        draw.rectangle((plate.x0, plate.y0, plate.x1 - 1, plate.y1 - 1), _PLATE, colour)
        draw.text((plate.x0 + margin - x0, plate.y0 + margin - y0), text, colour, font)

    def _place(self, box: Box, width: float, height: float) -> Box:
        """The first free place of this size, inside the picture; the box's corner where there is none."""
        across, down = self.picture.size
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
    """All regions but the whole photo, tinted, boxed and numbered by their ordinals.

    Args:
        image: (mask_height, mask_width, 3) uint8 RGB, the photo at working size.

    Returns:
        RGB, the working size, or larger where that is below `LEAST_SIDE`.
    """
    height, width = image.shape[:2]
    factor = max(1.0, LEAST_SIDE / max(height, width))
    size = round(width * factor), round(height * factor)
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    # Large ones first, so that what lies on them stays to be seen.
    found = sorted((r for r in regions if r.ordinal > 0), key=lambda r: -r.region.area)
    boxes = [r.region.box.scaled(size[0] / width, size[1] / height) for r in found]
    for region in found:
        mask = masks.resize(masks.decode(region.region.rle), size[1], size[0])
        tint(picture, mask, colour(region.ordinal))
    for region, box in zip(found, boxes, strict=True):
        outline(picture, box, colour(region.ordinal))
    labels = Labels(picture)
    # The small ones first: they have the fewest places.
    for region, box in reversed([*zip(found, boxes, strict=True)]):
        labels.label(box, str(region.ordinal), colour(region.ordinal))
    return picture


def _eroded(mask: MaskArray, steps: int) -> MaskArray:
    """The mask without its outermost `steps` pixels; what lies outside the array counts as outside."""
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
    """Where a label of the box may lie, best first: along its top edge, above it, its bottom edge, below."""
    steps = max(1, int((box.x1 - box.x0) // width))
    for y in (box.y0, box.y0 - height, box.y1 - height, box.y1):
        for step in range(steps):
            yield box.x0 + step * width, y


def _overlap(left: Box, right: Box) -> bool:
    return left.x0 < right.x1 and right.x0 < left.x1 and left.y0 < right.y1 and right.y0 < left.y1

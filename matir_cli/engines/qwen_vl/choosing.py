"""Choosing among regions by number, instead of writing a box.

The regions that may be the object are framed on the photo and numbered, and the judge is asked for a number:
"Set-of-Mark Prompting" (Yang et al., arXiv 2310.11441). Only the logits of the numbers at the answer position
are read, so nothing is decoded but the question.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from matir_cli.engines.qwen_vl.boxes import ImageSize
from matir_cli.engines.qwen_vl.enlarging import resize_image
from matir_cli.records import Box, ImageArray

NUMBERS = "123456789"
"""Numbers of regions; each is one token in the vocabulary of Qwen's models."""

LABEL_SHARE = 1 / 14
"""Height of a number, as a fraction of the photo's shorter side."""

LEAST_LABEL = 11
"""Least height of a number, pixels."""

_COLOURS = ((255, 255, 255), (0, 0, 0))
"""Colours of numbers and of their plates."""


def number_regions(image: ImageArray, regions: Sequence[Box], size: ImageSize) -> ImageArray:
    """Return the photo in the size in which the model sees it, with the regions framed and numbered from 1.

    A number stands in the middle of its region, on a plate, unless an earlier number stands there.

    Args:
        regions: boxes in pixels of `image`, at most as many as there are `NUMBERS`.

    Returns:
        (size.height, size.width, 3) uint8.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(resize_image(image, size))
    draw = ImageDraw.Draw(picture)
    label = max(LEAST_LABEL, round(min(size.width, size.height) * LABEL_SHARE))
    font = ImageFont.load_default(label)
    scaled = [box.scaled(size.width / width, size.height / height) for box in regions]
    for box in scaled:
        edges = [round(box.x0), round(box.y0), round(max(box.x0, box.x1 - 1)), round(max(box.y0, box.y1 - 1))]
        draw.rectangle(edges, outline=_COLOURS[0])
    taken: list[tuple[float, float]] = []
    for number, box in zip(NUMBERS, scaled, strict=False):
        x, y = _free_place(box, label, taken)
        taken.append((x, y))
        plate = [x - label / 2, y - label / 2, x + label / 2, y + label / 2]
        draw.rectangle(plate, fill=_COLOURS[1])
        draw.text((x, y), number, fill=_COLOURS[0], font=font, anchor="mm")
    return np.asarray(picture)


def _free_place(box: Box, label: int, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the middle of the box, or of a corner or side of it where no other number stands."""
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    dx, dy = max(0.0, x - box.x0 - label / 2), max(0.0, y - box.y0 - label / 2)
    places = [(x, y)] + [(x + dx * i, y + dy * j) for j in (-1, 1, 0) for i in (-1, 1, 0) if (i, j) != (0, 0)]
    for place in places:
        if all(abs(place[0] - a) >= label or abs(place[1] - b) >= label for a, b in taken):
            return place
    return x, y

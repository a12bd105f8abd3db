"""Pixels of any colour mode as 8-bit RGB, scaled to working size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WORKING_SIDE = 1024
"""Pixels: the long side of the image that models see and masks are kept in."""

STRIP = 1 << 20
"""Pixels of a grey picture that are brought to 8 bits at a time."""


def working_rgb(picture: Image.Image, width: int, height: int) -> Image.Image:
    """RGB with a long side of at most `WORKING_SIDE`; `width` x `height` is the photo's true size."""
    factor = min(1.0, WORKING_SIDE / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # Palettes, bits and 16-bit greys do not average; they become 8 bits before the scaling.
    smooth = picture if picture.mode in ("L", "RGB", "CMYK", "YCbCr") else _eight_bit(picture)
    if picture.size != size:
        smooth = smooth.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return to_rgb(smooth)


def to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit and float greys by their range, transparency over white."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    return _eight_bit(picture).convert("RGB")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """RGB, or L for greys of more bits; a few bytes a pixel beside the picture's own."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _grey(picture)
    if picture.has_transparency_data:
        clear = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        opaque = Image.new("RGB", clear.size, "white")
        opaque.paste(clear, mask=clear.getchannel("A"))
        return opaque
    return picture.convert("RGB")


def _grey(picture: Image.Image) -> Image.Image:
    """The picture in L, its range spread over it; strip by strip, for it takes eight bytes a pixel."""
    values = np.asarray(picture)
    rows = max(1, STRIP // values.shape[1])

    def strips() -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for top in range(0, len(values), rows):
            there = slice(top, top + rows)
            yield there, np.nan_to_num(values[there].astype(np.float64), posinf=0.0, neginf=0.0)

    low = min(float(strip.min()) for _, strip in strips())
    high = max(float(strip.max()) for _, strip in strips())
    if picture.mode.startswith("I") and low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    grey = np.empty(values.shape, np.uint8)
    for there, strip in strips():
        grey[there] = ((strip - low) * (255.0 / max(high - low, 1e-12))).round()
    return Image.fromarray(grey)

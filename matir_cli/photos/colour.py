"""Images of any colour mode converted to 8-bit RGB and scaled to working size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WORKING_SIDE = 1024
"""Pixels: longest side of the working image, which models see and in which masks are kept."""

STRIP = 1 << 20
"""Number of pixels of a grey image that are converted to 8 bits at a time."""


def to_working_rgb(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Convert to RGB with a longest side of at most `WORKING_SIDE`; smaller photos keep their size.

    Args:
        width: true width of the photo, pixels; `picture` may be a reduced decoding of it.
        height: true height of the photo, pixels.
    """
    factor = min(1.0, WORKING_SIDE / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # Palettes, bits and 16-bit greys cannot be averaged; they are converted to 8 bits before scaling.
    scalable = picture if picture.mode in ("L", "RGB", "CMYK", "YCbCr") else _to_eight_bits(picture)
    if picture.size != size:
        scalable = scalable.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return to_rgb(scalable)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB: 16-bit and float greys by their range, transparency over white."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    return _to_eight_bits(picture).convert("RGB")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Convert to RGB, or to L for greys of more bits; uses a few bytes per pixel beyond the image's own."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _to_grey(picture)
    if picture.has_transparency_data:
        clear = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        opaque = Image.new("RGB", clear.size, "white")
        opaque.paste(clear, mask=clear.getchannel("A"))
        return opaque
    return picture.convert("RGB")


def _to_grey(picture: Image.Image) -> Image.Image:
    """Convert to L, stretching the value range to 0..255.

    Works strip by strip, since float64 values take eight bytes per pixel. Integers between 0 and
    65535 of which one exceeds 255 are taken for 16-bit greys and keep their brightness.
    """
    values = np.asarray(picture)
    rows_per_strip = max(1, STRIP // values.shape[1])

    def strips() -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for top in range(0, len(values), rows_per_strip):
            rows = slice(top, top + rows_per_strip)
            yield rows, np.nan_to_num(values[rows].astype(np.float64), posinf=0.0, neginf=0.0)

    low = min(float(strip.min()) for _, strip in strips())
    high = max(float(strip.max()) for _, strip in strips())
    if picture.mode.startswith("I") and low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    grey = np.empty(values.shape, np.uint8)
    for rows, strip in strips():
        grey[rows] = ((strip - low) * (255.0 / max(high - low, 1e-12))).round()
    return Image.fromarray(grey)

"""Images of any colour mode converted to 8-bit RGB and scaled to working size.

Conversion goes band by band where an image is large: a copy of the whole in another mode would take up
to four bytes per pixel more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from matir_cli.records import WORKING_SIDE

BAND = 1 << 20
"""Number of pixels that are converted at a time."""

REDUCING_GAP = 3.0
"""An image is averaged down to at least this multiple of its final size before it is resampled."""

ToRgb = Callable[[Image.Image], Image.Image]
"""Converts an image, or any part cut out of it, to RGB, or to L for greys."""

_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_TIFF_BITS = 258


def to_working_rgb(
    picture: Image.Image, width: int, height: int, convert: ToRgb | None = None
) -> Image.Image:
    """Convert to RGB with a longest side of at most `WORKING_SIDE`; smaller photos keep their size.

    Args:
        width: true width of the photo, pixels; `picture` may be a reduced decoding of it.
        height: true height of the photo, pixels.
        convert: converts the scaled picture, in its own mode or already in RGB; None for `to_rgb`.
    """
    convert = convert or to_rgb
    factor = min(1.0, WORKING_SIDE / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # Palettes, bits and 16-bit greys cannot be averaged; they are converted to 8 bits before scaling.
    averaged = picture.mode in ("L", "RGB", "CMYK", "YCbCr")
    if picture.size == size:
        return convert(picture)
    if averaged:
        return convert(picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP))
    x = int(picture.width / size[0] / REDUCING_GAP) or 1
    y = int(picture.height / size[1] / REDUCING_GAP) or 1
    box = (0.0, 0.0, picture.width / x, picture.height / y)
    reduced = _reduce(picture, x, y)
    return convert(reduced.resize(size, Image.Resampling.LANCZOS, box, REDUCING_GAP).convert("RGB"))


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB: 16-bit and float greys by their range, transparency over white."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    return rgb_conversion(picture)(picture).convert("RGB")


def rgb_conversion(picture: Image.Image) -> ToRgb:
    """Return the conversion that suits all parts of `picture`: greys of more than 8 bits have one range."""
    if picture.mode.startswith("I") or picture.mode == "F":
        low, high = _grey_range(picture)
        inverted = _is_white_zero(picture)

        def to_grey(part: Image.Image) -> Image.Image:
            grey = _stretch(part, low, high)
            return ImageChops.invert(grey) if inverted else grey

        return to_grey
    return _to_eight_bits


def bands(picture: Image.Image, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of bands of about `BAND` pixels, heights a multiple of `multiple`."""
    rows = max(1, BAND // (picture.width * multiple)) * multiple
    for top in range(0, picture.height, rows):
        yield top, min(top + rows, picture.height)


def _reduce(picture: Image.Image, x: int, y: int) -> Image.Image:
    """Convert to RGB or L and average blocks of `x` x `y` pixels, like `Image.reduce`."""
    to_eight_bits = rgb_conversion(picture)
    if x == y == 1:
        return to_eight_bits(picture)
    reduced: Image.Image | None = None
    for top, bottom in bands(picture, y):
        part = to_eight_bits(picture.crop((0, top, picture.width, bottom))).reduce((x, y))
        if reduced is None:
            reduced = Image.new(part.mode, (part.width, -(-picture.height // y)))
        reduced.paste(part, (0, top // y))
    assert reduced is not None  # no image is empty
    return reduced


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Convert a colour image, or one of bits or a palette, to RGB; transparency lies over white."""
    if picture.has_transparency_data:
        clear = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        opaque = Image.new("RGB", clear.size, "white")
        opaque.paste(clear, mask=clear.getchannel("A"))
        return opaque
    return picture.convert("RGB")


def _grey_range(picture: Image.Image) -> tuple[float, float]:
    """Return the values of a grey image that become 0 and 255.

    Integers between 0 and 65535 of which one exceeds 255 are taken for 16-bit greys, which keep their
    brightness, and so are 12-bit greys in TIFF.
    """
    if picture.mode.startswith("I;16") and tiff_tag(picture, _TIFF_BITS) in (12, (12,)):
        return 0.0, 4095.0
    parts = (picture.crop((0, top, picture.width, bottom)) for top, bottom in bands(picture))
    lows, highs = zip(*(_range_of(_values(part)) for part in parts), strict=True)
    low, high = min(lows), max(highs)
    if picture.mode.startswith("I") and low >= 0 and 255 < high <= 65535:
        return 0.0, 65535.0
    return low, high


def _stretch(part: Image.Image, low: float, high: float) -> Image.Image:
    """Convert greys to L, with `low` as 0 and `high` as 255."""
    grey = np.empty((part.height, part.width), np.uint8)
    for top, bottom in bands(part):
        values = _values(part.crop((0, top, part.width, bottom)))
        scaled = (values - low) * (255.0 / max(high - low, 1e-12))
        grey[top:bottom] = scaled.round().clip(0, 255)
    return Image.fromarray(grey)


def _values(part: Image.Image) -> NDArray[np.float64]:
    """Return greys as (height, width) float64; NaN and infinity become 0."""
    return np.nan_to_num(np.asarray(part).astype(np.float64), posinf=0.0, neginf=0.0)


def _range_of(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _is_white_zero(picture: Image.Image) -> bool:
    """Return True for a TIFF whose greys count down from white, which Pillow inverts at 8 bits only."""
    return tiff_tag(picture, _TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO


def tiff_tag(picture: Image.Image, tag: int) -> object:
    """Return the value of a tag of a TIFF; None if it is missing, or the image is no TIFF."""
    tags = getattr(picture, "tag_v2", None)
    return None if tags is None else tags.get(tag)

"""Image formats that may be read, size limits, and reasons for decoding failures."""

from __future__ import annotations

import struct
import warnings
import zlib
from functools import cache

from PIL import Image

from matir_cli.records import MAX_PIXELS

FORBIDDEN_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"})
"""Formats that are not read: EPS runs another program, and Pillow only identifies the others."""

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Suffixes of formats that Pillow reads only with the optional package pillow-heif."""

DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(EOFError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
"""Exceptions that decoders were seen to raise on damaged files."""

# `decode` and `preview` check an image's size before decoding it, but some formats hold another image
# inside, whose size only Pillow sees. Pillow's limit is one global: it warns at it, and refuses an image
# of twice as many pixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def readable_formats() -> list[str]:
    """Return the names of the formats that Pillow may open, sorted."""
    Image.init()
    return sorted(set(Image.OPEN) - FORBIDDEN_FORMATS)


@cache
def register_heif() -> bool:
    """Register pillow-heif with Pillow; return True if the package is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def decode_reason(error: BaseException) -> str:
    """Return the reason to report for one of `DECODE_ERRORS`: one short line, lower case at its start."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    words = " ".join(str(error).split())[:120]
    return f"damaged: {words}" if words else f"damaged: {type(error).__name__}"

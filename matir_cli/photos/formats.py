"""Image formats that may be read, and the reasons given when decoding fails."""

from __future__ import annotations

import struct
import zlib
from functools import cache

from PIL import Image

from matir_cli.records import MAX_PIXELS

FORBIDDEN_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"})
"""EPS runs another program; Pillow only identifies the others."""

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})

# All that decoders were seen to raise on damaged files.
DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(EOFError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)


def readable_formats() -> list[str]:
    Image.init()
    return sorted(set(Image.OPEN) - FORBIDDEN_FORMATS)


@cache
def register_heif() -> bool:
    """Let Pillow read HEIC where the optional package is installed; say whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def decode_reason(error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    words = " ".join(str(error).split())[:120]
    return f"damaged: {words}" if words else f"damaged: {type(error).__name__}"

"""Image formats that may be read, and the reasons why a file cannot be."""

from __future__ import annotations

import struct
import warnings
import zlib
from functools import cache

from PIL import Image

from matir_cli.photos.suffixes import HEIF_SUFFIXES, MORE_SUFFIXES, RAW_SUFFIXES
from matir_cli.records import MAX_PIXELS

FORBIDDEN_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG", "IPTC", "FITS", "BLP"})
"""Formats that are not read.

EPS runs another program; IPTC opens an image inside it in any format, EPS included; Pillow only identifies
BUFR to MPEG; and it decodes FITS and BLP in Python, after unpacking them to any size.
"""

WEBP_PIXELS = 160_000_000
"""Larger WebP images are refused: Pillow decodes them through four copies of 4 bytes per pixel."""

DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(EOFError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
"""Exceptions that decoders were seen to raise on damaged files."""

NEEDS_HEIF = "HEIC: needs pip install 'matir-cli[heic]'"

# `image_file` checks an image's size before decoding it, but some formats hold another image inside,
# whose size only Pillow sees. Pillow's limit is one global: it warns at it, and refuses an image of twice
# as many pixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def readable_formats() -> list[str]:
    """Return the names of the formats that Pillow may open, sorted."""
    Image.init()
    return sorted(set(Image.OPEN) - FORBIDDEN_FORMATS)


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the suffixes of pictures that Pillow reads, in lower case, some of raw formats among them."""
    readable = set(readable_formats())
    registered = {suffix for suffix, name in Image.registered_extensions().items() if name in readable}
    return frozenset(registered | MORE_SUFFIXES)


@cache
def picture_suffixes() -> frozenset[str]:
    """Return the suffixes of all pictures that are known, read or not, in lower case."""
    return frozenset({*Image.registered_extensions(), *MORE_SUFFIXES, *RAW_SUFFIXES, *HEIF_SUFFIXES})


@cache
def register_heif() -> bool:
    """Register pi-heif with Pillow; return True if the package is installed.

    It only decodes: the wheel of pillow-heif has an encoder under the GPL. Thumbnails, depth maps and other
    images beside the primary one are not decoded.
    """
    try:
        import pi_heif
    except ImportError:
        return False
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def is_heif(start: bytes) -> bool:
    """Return True if a file that starts with these bytes, 12 or more, is HEIC or HEIF."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

_SIGNATURES = (
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"BLP1", "BLP"),
    (0, b"BLP2", "BLP"),
    (0, b"BUFR", "BUFR"),
    (0, b"GRIB", "GRIB"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"8BPS\0\2", "PSB"),
    (0, b"gimp xcf", "XCF"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw format"),
    (6, b"HEAPCCDR", "a camera's raw format"),
    (0, b"FOVb", "a camera's raw format"),
    (0, b"\0MRM", "a camera's raw format"),
    (8, b"crx ", "a camera's raw format"),
    (0, b"\0\0\1\xba", "video"),
    (0, b"\0\0\1\xb3", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (8, b"AVI ", "video"),
    (4, b"ftypqt", "video"),
    (4, b"ftypisom", "video"),
    (4, b"ftypmp4", "video"),
    (4, b"ftypM4V", "video"),
    (4, b"ftyp3gp", "video"),
)
"""Offset and bytes of formats that are not read, and their names."""


def refused_format(start: bytes) -> str | None:
    """Name the format of a file that is not read, by its first bytes; None if it is none of those known.

    Args:
        start: the first 64 bytes or more, or the whole file.
    """
    for offset, signature, name in _SIGNATURES:
        if start[offset:].startswith(signature):
            return name
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "SVG" if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head) else None


_UNSUPPORTED = (
    *("unsupported", "not supported", "not yet supported", "unknown", "unimplemented", "not implemented"),
    *("cannot handle", "not available", "not configured", "unrecognized", "support not installed"),
    *("not a psd", "unexpected mode"),
)
"""Parts of the messages, in lower case, by which decoders say that a file is of a form they do not read."""


def decode_reason(error: BaseException, lines: str = "") -> str:
    """Return the reason to report for one of `DECODE_ERRORS`: one short line, lower case at its start.

    Args:
        lines: text that native libraries wrote while they decoded; libtiff says there what is wrong.
    """
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    if isinstance(error, MemoryError):
        return "takes more memory to decode than is allowed"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror.lower()
    said = [" ".join(line.removeprefix("tempfile.tif: ").split()) for line in lines.splitlines()]
    words = " ".join(str(error).split())
    words = (said[0] if said and words.startswith("decoder error") else words)[:120].rstrip(" .")
    kind = "not supported" if is_unsupported(words, error) else "damaged"
    return f"{kind}: {words or type(error).__name__}"


def is_unsupported(words: str, error: BaseException) -> bool:
    """Return True if an error says that the file is of a form that its decoder does not read."""
    lowered = words.lower()
    return isinstance(error, NotImplementedError) or any(part in lowered for part in _UNSUPPORTED)

"""Camera raw files (DNG), made byte by byte: a Bayer mosaic, EXIF and, if wanted, an embedded preview."""

import struct

import numpy as np
from PIL import Image

from tests.photos.crafted import encoded

_BYTE, _TEXT, _SHORT, _LONG, _RATIONAL, _SIGNED = 1, 2, 3, 4, 5, 10
_SIZES = {
    _BYTE: ("B", 1),
    _TEXT: ("B", 1),
    _SHORT: ("H", 1),
    _LONG: ("I", 1),
    _RATIONAL: ("I", 2),
    _SIGNED: ("i", 2),
}

_XYZ_TO_SRGB = (32405, -15371, -4985, -9693, 18760, 416, 556, -2040, 10572)
"""Ten thousandths: a camera whose colours are those of linear sRGB."""

Entries = dict[int, tuple[int, list[int]]]


def dng(picture: Image.Image, *, orientation: int = 1, preview: Image.Image | None = None) -> bytes:
    """Make a DNG of an RGB picture of even sides.

    Args:
        orientation: that the file states, 1, 3, 6 or 8; the picture is as stored.
        preview: embedded as JPEG, as stored.
    """
    mosaic = _mosaic(picture).tobytes()
    raw: Entries = {
        254: (_LONG, [0]),
        256: (_LONG, [picture.width]),
        257: (_LONG, [picture.height]),
        258: (_SHORT, [16]),
        259: (_SHORT, [1]),
        262: (_SHORT, [32803]),
        273: (_LONG, [0]),
        277: (_SHORT, [1]),
        278: (_LONG, [picture.height]),
        279: (_LONG, [len(mosaic)]),
        33421: (_SHORT, [2, 2]),
        33422: (_BYTE, [0, 1, 1, 2]),
    }
    camera: Entries = {
        271: (_TEXT, [*b"ACME\0"]),
        272: (_TEXT, [*b"ACME Raw 1\0"]),
        274: (_SHORT, [orientation]),
        34665: (_LONG, [0]),
        50706: (_BYTE, [1, 4, 0, 0]),
        50708: (_TEXT, [*b"ACME Raw 1\0"]),
        50721: (_SIGNED, [n for value in _XYZ_TO_SRGB for n in (value, 10000)]),
        50728: (_RATIONAL, [1, 1] * 3),
        50778: (_SHORT, [21]),
    }
    exif: Entries = {36867: (_TEXT, [*b"2024:05:06 07:08:09\0"])}
    if preview is None:
        return _file([camera | raw, exif], [mosaic], main=0)
    jpeg = encoded(preview, "JPEG", quality=95)
    shown: Entries = {
        254: (_LONG, [1]),
        256: (_LONG, [preview.width]),
        257: (_LONG, [preview.height]),
        258: (_SHORT, [8, 8, 8]),
        259: (_SHORT, [7]),
        262: (_SHORT, [6]),
        273: (_LONG, [0]),
        277: (_SHORT, [3]),
        278: (_LONG, [preview.height]),
        279: (_LONG, [len(jpeg)]),
        330: (_LONG, [0]),
    }
    return _file([camera | shown, exif, raw], [jpeg, mosaic], main=2)


def _mosaic(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Return the linear values behind the colour filters R G / G B."""
    levels = np.asarray(picture.convert("RGB"), np.float64) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    values = (linear * 65535).round().astype(np.uint16)
    mosaic = values[..., 1].copy()
    mosaic[0::2, 0::2] = values[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = values[1::2, 1::2, 2]
    return mosaic


def _file(directories: list[Entries], images: list[bytes], main: int) -> bytes:
    """Write directories and images one after the other: the first directory is IFD0, the second EXIF."""
    starts, place = [], 8
    for entries in directories:
        starts.append(place)
        place += 6 + 12 * len(entries) + sum(_outside(*entry) for entry in entries.values())
    offsets = [place + sum(map(len, images[:k])) for k in range(len(images))]
    holders = [entries for entries in directories if 273 in entries]
    for entries, offset in zip(holders, offsets, strict=True):
        entries[273] = (_LONG, [offset])
    directories[0][34665] = (_LONG, [starts[1]])
    if main:
        directories[0][330] = (_LONG, [starts[main]])
    written = b"".join(map(_directory, directories, starts))
    return b"II*\0" + struct.pack("<I", 8) + written + b"".join(images)


def _outside(kind: int, values: list[int]) -> int:
    length = struct.calcsize("<" + _SIZES[kind][0]) * len(values)
    return length + length % 2 if length > 4 else 0


def _directory(entries: Entries, start: int) -> bytes:
    head, data = struct.pack("<H", len(entries)), b""
    place = start + 6 + 12 * len(entries)
    for tag, (kind, values) in sorted(entries.items()):
        letter, numbers = _SIZES[kind]
        content = struct.pack(f"<{len(values)}{letter}", *values)
        count = len(values) // numbers
        if len(content) > 4:
            field = struct.pack("<I", place + len(data))
            data += content + bytes(len(content) % 2)
        else:
            field = content.ljust(4, b"\0")
        head += struct.pack("<HHI", tag, kind, count) + field
    return head + bytes(4) + data

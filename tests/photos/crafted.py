"""Image files that Pillow does not write: TIFFs of unusual layouts, PNGs with broken chunks, slow files."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.pictures import scene

BLACK_IS_ZERO, WHITE_IS_ZERO, COLOURS = 1, 0, 2
"""Photometric interpretations of a TIFF."""


def tiff(
    values: NDArray[np.unsignedinteger],
    photometric: int,
    *,
    planes: bool = False,
    bits: int | None = None,
    gps: int | None = None,
) -> bytes:
    """Make an uncompressed little-endian TIFF of (height, width) or (height, width, samples) values.

    `gps` is the place that it states for its directory of GPS fields.
    """
    height, width, samples = (*values.shape, 1)[:3]
    parts = [values[..., k].tobytes() for k in range(samples)] if planes else [values.tobytes()]
    entries = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits or values.dtype.itemsize * 8] * samples),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0] * len(parts)),
        277: ("H", [samples]),
        278: ("I", [height]),
        279: ("I", [len(part) for part in parts]),
        284: ("H", [2 if planes else 1]),
    }
    if gps is not None:
        entries[34853] = ("I", [gps])
    place = 8 + 2 + 12 * len(entries) + 4
    data = place + 64
    entries[273] = ("I", [data + sum(map(len, parts[:k])) for k in range(len(parts))])
    directory, extra = b"", b""
    for tag, (kind, numbers) in entries.items():
        content = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if len(content) > 4:
            content, extra = struct.pack("<I", place + len(extra)), extra + content
        directory += struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(numbers)) + content.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + extra.ljust(64, b"\0") + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, last: bool = False) -> bytes:
    """Make a PNG with more chunks behind its header, or before its end."""
    stream = io.BytesIO()
    scene("red").save(stream, "PNG")
    content = stream.getvalue()
    place = len(content) - 12 if last else 33
    return content[:place] + b"".join(chunks) + content[place:]


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return the file of a picture."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def many_scans(picture: Image.Image, count: int) -> bytes:
    """Make a progressive JPEG that repeats its last scan until there are `count` more."""
    content = encoded(picture, "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + b"\xff\xd9"


def striped_tiff(rows: int) -> bytes:
    """Make a TIFF with one strip per row, 8 pixels wide; all strips are the same bytes."""
    offsets = 8 + 2 + 9 * 12 + 4
    entries = [
        *((256, 4, 1, 8), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, rows, offsets), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, rows, offsets + 4 * rows)),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + struct.pack("<I", 8) * rows + struct.pack("<I", 8) * rows

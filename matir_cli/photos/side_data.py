"""What files state before they are decoded, and copies without what keeps decoders from the picture.

Some decoders give up the whole file for a broken colour profile, a long text or unreadable EXIF. The copies
are made only after a decoder has failed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"

MAX_TEXT = 1 << 20
"""Bytes of a text or a colour profile in a PNG, unpacked; Pillow has the same limit."""

_PICTURE_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})

_OFFSETS = frozenset({273, 324})
"""Tags of a TIFF that list the places of its strips, and of its tiles."""

_MOST_ENTRIES = 1 << 16

_MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_SCAN, _APP0, _APP1, _APP14, _APP15, _COMMENT = 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE


def png_without_broken_chunks(content: bytes) -> bytes | None:
    """Return a PNG without the metadata chunks that cannot be read; None if there are none, or no end.

    Chunks of an animation are left out as well: only its first picture is read.
    """
    kept = [PNG_SIGNATURE]
    left_out = texts = 0
    for kind, data, chunk in _png_chunks(content):
        texts += len(data)
        if kind in _PICTURE_CHUNKS or (_is_sound(kind, data, chunk) and texts < 32 * MAX_TEXT):
            kept.append(chunk)
        else:
            left_out += 1
        if kind == b"IEND":
            return b"".join(kept) if left_out else None
    return None


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield kind, data and the whole of each chunk, up to one that is cut."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 12 + length
        if end > len(content):
            return
        yield content[place + 4 : place + 8], content[place + 8 : end - 4], content[place:end]
        place = end


def _is_sound(kind: bytes, data: bytes, chunk: bytes) -> bool:
    """Return True if a metadata chunk is worth keeping and can be read."""
    if zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
        return False
    name, _, rest = data.partition(b"\0")
    match kind:
        case b"eXIf":
            return True
        case b"tEXt":
            return len(data) <= MAX_TEXT
        case b"zTXt" | b"iCCP":
            return bool(name) and rest[:1] == b"\0" and _unpacks(rest[1:])
        case b"iTXt":
            text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
            return len(rest) > 2 and (_unpacks(text) if rest[0] else len(text) <= MAX_TEXT)
        case _:
            return False


def _unpacks(data: bytes) -> bool:
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(data, MAX_TEXT)
    except zlib.error:
        return False
    return unpacking.eof


def jpeg_without_metadata(content: bytes, *, keep_exif: bool) -> bytes | None:
    """Return a JPEG without its metadata segments; None if the segments before the picture are broken.

    JFIF's and Adobe's segments are kept, since colours depend on them.
    """
    kept = [JPEG_SIGNATURE]
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == _START_OF_SCAN:
            return b"".join((*kept, content[place:]))
        if marker in _MARKERS_WITHOUT_LENGTH:
            end = place + 2
        else:
            end = place + 2 + struct.unpack_from(">H", content, place + 2)[0]
        segment = content[place:end]
        is_exif = marker == _APP1 and segment[4:].startswith(b"Exif\0")
        is_metadata = (_APP0 < marker <= _APP15 and marker != _APP14) or marker == _COMMENT
        if not is_metadata or (is_exif and keep_exif):
            kept.append(segment)
        place = end
    return None


def without_exif_item(content: bytes) -> bytes:
    """Return an AVIF or HEIC whose EXIF item has another type, so that no decoder reads it."""
    return content.replace(b"Exif", b"none")


def jpeg_scans(content: bytes) -> int:
    """Return the number of scans of a JPEG; those of images inside its metadata count too."""
    return content.count(bytes((0xFF, _START_OF_SCAN)))


def jpeg2000_reductions(start: bytes) -> int:
    """Return how many times a JPEG 2000 can be decoded at half the size; 0 if it does not say.

    Args:
        start: the beginning of the file, to behind the codestream's main header.
    """
    place = start.find(b"\xff\x4f\xff\x51")
    place = -1 if place < 0 else start.find(b"\xff\x52", place + 4)
    return start[place + 9] if 0 <= place < len(start) - 9 and start[place + 9] <= 32 else 0


def tiff_strips(stream: BinaryIO) -> int:
    """Return the number of strips or tiles that the first directory of a TIFF states; 0 if it states none."""
    stream.seek(0)
    head = stream.read(16)
    order = ">" if head.startswith(b"MM") else "<"
    if head[2:4] in (b"+\0", b"\0+"):  # BigTIFF
        pointer, count, entry, place = f"{order}Q", f"{order}Q", f"{order}HHQ8x", 8
    else:
        pointer, count, entry, place = f"{order}I", f"{order}H", f"{order}HHI4x", 4
    try:
        stream.seek(*struct.unpack_from(pointer, head, place))
        (entries,) = struct.unpack(count, stream.read(struct.calcsize(count)))
        directory = stream.read(min(entries, _MOST_ENTRIES) * struct.calcsize(entry))
        return max(
            (length for tag, _, length in struct.iter_unpack(entry, directory) if tag in _OFFSETS), default=0
        )
    except (struct.error, OSError, ValueError, OverflowError):  # cut, or a place that no file has
        return 0

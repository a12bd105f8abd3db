"""HEIC files of unusual content, made from those of an encoder by editing their boxes."""

import io
import struct
from collections.abc import Iterator

import pillow_heif
from PIL import Image

_DEPTH = b"urn:mpeg:hevc:2015:auxid:2\0"


def heic(*pictures: Image.Image, primary: int = 0) -> bytes:
    """Write a HEIC of one or several images."""
    stream = io.BytesIO()
    pillow_heif.register_heif_opener()
    first, *others = pictures
    first.save(stream, "HEIF", quality=90, save_all=True, append_images=others, primary_index=primary)
    return stream.getvalue()


def with_depth_map(content: bytes) -> bytes:
    """Turn the second image of a HEIC into the depth map of the first one."""
    meta_start, meta_end = next(
        (at, end) for kind, at, end in _boxes(content, 0, len(content)) if kind == b"meta"
    )
    parts = {kind: content[at:end] for kind, at, end in _boxes(content, meta_start + 12, meta_end)}
    first, second = _items(parts[b"iinf"])[:2]
    parts[b"iref"] = _box(b"iref", bytes(4) + _box(b"auxl", struct.pack(">HHH", second, 1, first)))
    parts[b"iprp"] = _with_property(parts[b"iprp"], second, _box(b"auxC", bytes(4) + _DEPTH))
    grown = 12 + sum(map(len, parts.values())) - (meta_end - meta_start)
    parts[b"iloc"] = _moved(parts[b"iloc"], grown)
    meta = _box(b"meta", bytes(4) + b"".join(parts.values()))
    return content[:meta_start] + meta + content[meta_end:]


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each box."""
    while start < end:
        (length,) = struct.unpack_from(">I", content, start)
        yield content[start + 4 : start + 8], start, start + length
        start += length


def _items(iinf: bytes) -> list[int]:
    return [struct.unpack_from(">H", iinf, at + 12)[0] for _, at, _ in _boxes(iinf, 14, len(iinf))]


def _with_property(iprp: bytes, item: int, added: bytes) -> bytes:
    """Add a property to one item; associations have one byte each."""
    parts = {kind: iprp[at:end] for kind, at, end in _boxes(iprp, 8, len(iprp))}
    number = 1 + sum(1 for _ in _boxes(parts[b"ipco"], 8, len(parts[b"ipco"])))
    ipma, place = parts[b"ipma"], 16
    (items,) = struct.unpack_from(">I", ipma, 12)
    made = b""
    for _ in range(items):
        name, count = struct.unpack_from(">HB", ipma, place)
        links = ipma[place + 3 : place + 3 + count]
        place += 3 + count
        links += bytes((number,)) if name == item else b""
        made += struct.pack(">HB", name, len(links)) + links
    ipco = _box(b"ipco", parts[b"ipco"][8:] + added)
    return _box(b"iprp", ipco + _box(b"ipma", ipma[8:16] + made))


def _moved(iloc: bytes, by: int) -> bytes:
    """Move the places of all items; sizes are those that libheif writes."""
    assert (iloc[8], iloc[12], iloc[13]) == (0, 0x44, 0x40)
    moved, place = bytearray(iloc), 16
    for _ in range(struct.unpack_from(">H", iloc, 14)[0]):  # id, data reference, base, extents
        base, extents = struct.unpack_from(">IH", iloc, place + 4)
        struct.pack_into(">I", moved, place + 4, base + by)
        place += 10 + 8 * extents
    return bytes(moved)

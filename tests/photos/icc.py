"""Colour profiles (ICC), made byte by byte: RGB by primaries and gamma, grey by gamma, CMYK by a table."""

import struct
from collections.abc import Sequence

P3_PRIMARIES = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
"""XYZ of Display P3's red, green and blue, adapted to D50."""

ADOBE_PRIMARIES = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of Adobe RGB (1998)'s red, green and blue, adapted to D50."""

_WHITE = (0.9642, 1.0, 0.8249)


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _srgb_curve() -> bytes:
    return (
        b"para"
        + bytes(4)
        + struct.pack(">HH", 3, 0)
        + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    )


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(12 + 67)
    tags = {b"desc": text, b"wtpt": _xyz(_WHITE), **tags}
    place = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, place + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    head = struct.pack(
        ">I4sI4s4s4s12s4s", 0, b"test", 0x02400000, kind, space, connection, bytes(12), b"acsp"
    )
    head = head.ljust(68, b"\0") + _fixed(*_WHITE)
    content = head.ljust(128, b"\0") + table + data
    return struct.pack(">I", len(content)) + content[4:]


def rgb_profile(primaries: Sequence[Sequence[float]], gamma: float | None = None) -> bytes:
    """Make a profile of RGB; None for the curve of sRGB, which Display P3 has too."""
    curve = _srgb_curve() if gamma is None else _gamma(gamma)
    tags = {name + b"XYZ": _xyz(values) for name, values in zip((b"r", b"g", b"b"), primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {name + b"TRC": curve for name in (b"r", b"g", b"b")})


def grey_profile(gamma: float) -> bytes:
    """Make a profile of greys."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)})


def cmyk_profile(ink: tuple[int, int, int]) -> bytes:
    """Make a profile of CMYK in which cyan is printed in `ink` (L* 0..100, a*, b*), all else in black."""
    even = bytes(range(256))
    paper, black = (255, 128, 128), (0, 128, 128)
    corners = [black] * 16  # by C, M, Y, K; K changes fastest
    corners[0b0000] = paper
    corners[0b1000] = (round(ink[0] * 2.55), ink[1] + 128, ink[2] + 128)
    table = b"".join(bytes(corner) for corner in corners)
    identity = _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + even * 4 + table + even * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


DISPLAY_P3 = rgb_profile(P3_PRIMARIES)
ADOBE_RGB = rgb_profile(ADOBE_PRIMARIES, 563 / 256)

"""GPS positions as EXIF and XMP write them, as signed degrees.

The forms are those that exiftool reads (lib/Image/ExifTool/GPS.pm, `ToDegrees`), with its results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import ExifTags

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]?\d+)?", re.ASCII)

_XMP = re.compile(r"\s*(?P<numbers>[\d.,\s]+?)\s*(?P<reference>[NSEW])[a-z]*\s*", re.ASCII | re.IGNORECASE)

Position = tuple[float, float]
"""Latitude (north positive) and longitude (east positive), degrees."""


def exif_position(gps: Mapping[int, Any]) -> Position | None:
    """Return the position in a GPS directory of EXIF; None if it is missing, invalid or only half there.

    A coordinate needs its reference, N or S, E or W, as a letter or a word of any type; any other
    reference than S or W means north or east. Minutes and seconds may be missing. A part of 0/0 makes the
    coordinate invalid.
    """
    tags = ExifTags.GPS
    latitude = _signed(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "S", 90.0)
    longitude = _signed(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "W", 180.0)
    return None if latitude is None or longitude is None else (latitude, longitude)


def xmp_position(latitude: str, longitude: str) -> Position | None:
    """Return the position that XMP gives as DDD,MM,SSk or DDD,MM.mmk, with k one of N, S, E, W."""
    north, east = _XMP.fullmatch(latitude), _XMP.fullmatch(longitude)
    if north is None or east is None:
        return None
    y = _signed(north["numbers"], north["reference"], "S", 90.0)
    x = _signed(east["numbers"], east["reference"], "W", 180.0)
    return None if x is None or y is None else (y, x)


def _signed(written: object, reference: object, negative: str, limit: float) -> float | None:
    """Convert degrees, minutes and seconds to signed degrees; None if missing or beyond `limit`."""
    if reference is None:
        return None
    parts = _parts(written)
    if not parts or not all(math.isfinite(part) for part in parts):
        return None
    degrees, minutes, seconds = (*parts, 0.0, 0.0)[:3]
    value = abs(degrees + (minutes + seconds / 60) / 60)
    if value > limit:
        return None
    letter = _text(reference).strip("\0 \t\r\n").upper()[:1]
    return -value if letter == negative else value


def _parts(written: object) -> list[float]:
    """Return the first three numbers of a coordinate: a rational, several of them, or text."""
    if isinstance(written, str | bytes):
        return [float(number) for number in _NUMBER.findall(_text(written))[:3]]
    values: list[Any] = list(written) if isinstance(written, Iterable) else [written]
    try:
        return [float(value) for value in values[:3]]
    except (TypeError, ValueError, ArithmeticError):
        return []


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)

"""EXIF fields of a photo: orientation, date, camera, GPS position."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

LONGEST_CAMERA = 200
"""Characters of a camera's name that are kept; EXIF sets no limit."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the transposition that turns the image upright; 1 is upright already."""


def read_orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 (upright) if it is missing or invalid."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation)
    return orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1


def read_taken_at(exif: Image.Exif) -> str | None:
    """Return when the photo was taken: ISO 8601, the camera's local time; None if missing or invalid."""
    fields = exif.get_ifd(ExifTags.IFD.Exif)
    written = fields.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    try:
        return datetime.strptime(str(written).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def read_camera(exif: Image.Exif) -> str | None:
    """Return maker and model of the camera, the maker only once; None if neither is given."""
    maker, model = (
        " ".join(str(exif.get(tag) or "").replace("\0", " ").split())
        for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    name = model if model.startswith(maker) else f"{maker} {model}"
    return name.strip()[:LONGEST_CAMERA] or None


def read_position(exif: Image.Exif) -> tuple[float | None, float | None]:
    """Return latitude (north positive) and longitude (east positive) in degrees, both or neither."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90.0)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180.0)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(gps: Mapping[int, Any], tag: int, ref: int, negative: str, limit: float) -> float | None:
    """Convert degrees, minutes and seconds to signed degrees; None if missing or beyond `limit`."""
    try:
        degrees, minutes, seconds = (float(part) for part in gps[tag])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not 0 <= value <= limit:  # false for NaN too
        return None
    return -value if str(gps.get(ref, "")).strip("\0 ").upper() == negative else value

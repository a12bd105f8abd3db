"""EXIF fields of a photo: orientation, date, camera, GPS position."""

from __future__ import annotations

from datetime import datetime

from PIL import ExifTags, Image

LONGEST_CAMERA = 200
"""Characters of a camera's name; EXIF would let it be of any length."""

# EXIF orientation to what turns the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def stated_turn(picture: Image.Image) -> int:
    stated = picture.getexif().get(ExifTags.Base.Orientation)
    return stated if isinstance(stated, int) and stated in UPRIGHT else 1


def taken_at(exif: Image.Exif) -> str | None:
    details = exif.get_ifd(ExifTags.IFD.Exif)
    written = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    try:
        return datetime.strptime(str(written).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def camera(exif: Image.Exif) -> str | None:
    maker, model = (
        " ".join(str(exif.get(tag) or "").replace("\0", " ").split())
        for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    name = model if model.startswith(maker) else f"{maker} {model}"
    return name.strip()[:LONGEST_CAMERA] or None


def position(exif: Image.Exif) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, both or neither."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90.0)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180.0)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(gps: dict[int, object], tag: int, ref: int, negative: str, limit: float) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in gps[tag])  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not 0 <= value <= limit:  # false for NaN too
        return None
    return -value if str(gps.get(ref, "")).strip("\0 ").upper() == negative else value

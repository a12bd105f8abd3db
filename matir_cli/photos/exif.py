"""Metadata of a photo: orientation, date, camera, GPS position, from EXIF and XMP.

Metadata never decides over the picture: what cannot be read is left out, and named in
`Metadata.unreadable`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from PIL import ExifTags, Image, TiffTags

from matir_cli.photos.dates import parse_date
from matir_cli.photos.formats import DECODE_ERRORS
from matir_cli.photos.position import Position, exif_position, xmp_position
from matir_cli.photos.xmp_packet import EXIF, PHOTOSHOP, XMP, read_properties

Value = TypeVar("Value")

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


@dataclass(frozen=True, slots=True)
class Metadata:
    """Fields of a photo beside its pixels; None where missing or invalid."""

    taken_at: str | None = None
    """ISO 8601, the camera's local time."""
    camera: str | None = None
    latitude: float | None = None
    """Degrees, north positive."""
    longitude: float | None = None
    """Degrees, east positive."""
    unreadable: tuple[str, ...] = ()
    """Names of the kinds of metadata that are there but cannot be read: "EXIF", "XMP"."""


def read_camera(exif: Image.Exif) -> str | None:
    """Return maker and model of the camera, the maker only once; None if neither is given."""
    maker, model = (
        " ".join(_text(exif.get(tag)).replace("\0", " ").split())
        for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    name = model if model.startswith(maker) else f"{maker} {model}"
    return name.strip()[:LONGEST_CAMERA] or None


class MetadataReader:
    """Reads the metadata of one image, noting what is there but cannot be read. It never fails."""

    def __init__(self, picture: Image.Image) -> None:
        """Wrap an image whose file is open; a PNG's pixels must be loaded, since its EXIF may follow them."""
        self._picture = picture
        self._unreadable: list[str] = []
        content = picture.info.get("exif")
        if isinstance(content, bytes):  # Pillow has read that of a JPEG, and kept its failure to itself
            self._read("EXIF", partial(Image.Exif().load, content))
        exif = self._read("EXIF", picture.getexif)
        # After a failure Pillow returns what it could read until then.
        self._exif = picture.getexif() if exif is None else exif

    def orientation(self) -> int:
        """Return the orientation, 1 to 8; 1 (upright) if it is missing or invalid.

        EXIF's, or without one that of XMP (tiff:Orientation). A HEIC has none: it is turned by its own
        transformations (irot, imir) alone, as its standard says, and pi-heif removes the others.
        """
        orientation = self._read("EXIF", lambda: self._exif.get(ExifTags.Base.Orientation))
        return orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1

    def metadata(self) -> Metadata:
        """Return the date, the camera and the position.

        The date is the first that is valid of: EXIF DateTimeOriginal and DateTimeDigitized; in XMP
        exif:DateTimeOriginal, photoshop:DateCreated, xmp:CreateDate and exif:DateTimeDigitized; EXIF's GPS
        date and time, which is UTC; EXIF DateTime. The position is EXIF's, else XMP's.
        """
        base = ExifTags.Base
        fields, gps = self._directory(ExifTags.IFD.Exif), self._directory(ExifTags.IFD.GPSInfo)
        taken_at = self._first_date(fields, base.DateTimeOriginal, base.DateTimeDigitized)
        position = self._read("EXIF", lambda: exif_position(gps))
        if taken_at is None or position is None:
            properties = self._read("XMP", lambda: _xmp_properties(self._picture)) or {}
            taken_at = taken_at or next(filter(None, map(parse_date, _xmp_dates(properties))), None)
            position = position or _xmp_position(properties)
        taken_at = taken_at or self._read("EXIF", lambda: _gps_date(gps))
        taken_at = taken_at or self._first_date(self._exif, base.DateTime)
        latitude, longitude = position or (None, None)
        camera = self._read("EXIF", lambda: read_camera(self._exif))
        return Metadata(taken_at, camera, latitude, longitude, tuple(dict.fromkeys(self._unreadable)))

    def forget_broken_directories(self) -> None:
        """Take out directories that cannot be read: Pillow reads all of a TIFF's with the pixels."""
        for ifd in TiffTags.TAGS_V2_GROUPS:
            if ifd in self._exif and self._read("EXIF", partial(self._exif.get_ifd, ifd)) is None:
                del self._exif[ifd]

    def _read(self, kind: str, reader: Callable[[], Value]) -> Value | None:
        """Return what `reader` returns; None if it fails. Failures and Pillow's warnings are noted."""
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                return reader()
            except DECODE_ERRORS:
                self._unreadable.append(kind)
                return None
            finally:
                self._unreadable += [kind] * len(warned)

    def _directory(self, ifd: int) -> Mapping[int, Any]:
        """Return a directory of EXIF; empty if it is missing or unreadable."""
        return self._read("EXIF", lambda: self._exif.get_ifd(ifd)) or {}

    def _first_date(self, fields: Mapping[int, Any], *tags: int) -> str | None:
        """Return the first valid date among some fields of EXIF."""
        dates = (self._read("EXIF", partial(_date_in, fields, tag)) for tag in tags)
        return next(filter(None, dates), None)


def _date_in(fields: Mapping[int, Any], tag: int) -> str | None:
    return parse_date(fields.get(tag))


def _gps_date(gps: Mapping[int, Any]) -> str | None:
    """Return GPS date and time, UTC; midnight if there is no time."""
    date = parse_date(gps.get(ExifTags.GPS.GPSDateStamp))
    if date is None:
        return None
    try:
        hour, minute, second = (int(float(part)) for part in gps[ExifTags.GPS.GPSTimeStamp])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return date
    return parse_date(f"{date[:10]}T{hour:02}:{minute:02}:{second:02}") or date


def _xmp_properties(picture: Image.Image) -> dict[str, str]:
    packet = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    return dict(read_properties(packet)) if isinstance(packet, bytes | str) and packet else {}


def _xmp_dates(properties: dict[str, str]) -> Iterator[str]:
    names = ((EXIF, "DateTimeOriginal"), (PHOTOSHOP, "DateCreated"), (XMP, "CreateDate"))
    for space, name in (*names, (EXIF, "DateTimeDigitized")):
        yield properties.get(f"{{{space}}}{name}", "")


def _xmp_position(properties: dict[str, str]) -> Position | None:
    latitude, longitude = (properties.get(f"{{{EXIF}}}GPS{axis}", "") for axis in ("Latitude", "Longitude"))
    return xmp_position(latitude, longitude)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value or "")

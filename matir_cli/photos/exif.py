"""Metadata of a photo: orientation, date, camera, position, rating, keywords, from EXIF, IPTC and XMP.

Metadata never decides over the picture: what cannot be read is left out, and named in
`Metadata.unreadable`.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from PIL import ExifTags, Image, TiffTags

from matir_cli.photos.dates import parse_date
from matir_cli.photos.descriptive import (
    clean_keywords,
    exif_keywords,
    exif_rating,
    iptc_keywords,
    xmp_keywords,
    xmp_rating,
)
from matir_cli.photos.formats import DECODE_ERRORS
from matir_cli.photos.position import Position, exif_position, xmp_position
from matir_cli.photos.xmp_packet import EXIF, PHOTOSHOP, XMP, XmpPacket, read_packet

Value = TypeVar("Value")

LONGEST_CAMERA = 200
"""Characters of a camera's name that are kept; EXIF sets no limit."""

_XMP_TAG, _IPTC_TAG, _IPTC_BLOCK = 700, 33723, 0x0404
"""Tags of a TIFF with XMP and with IPTC, and the number of Photoshop's block with IPTC."""

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
    """Names of the kinds of metadata that are there but cannot be read: "EXIF", "IPTC", "XMP"."""
    rating: int | None = None
    """-1 (rejected) to 5; 0 is unrated."""
    keywords: tuple[str, ...] = ()
    """As `clean_keywords` returns them."""


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
        """Return the date, the camera, the position, the rating and the keywords.

        The date is the first that is valid of: EXIF DateTimeOriginal and DateTimeDigitized; in XMP
        exif:DateTimeOriginal, photoshop:DateCreated, xmp:CreateDate and exif:DateTimeDigitized; EXIF's GPS
        date and time, which is UTC; EXIF DateTime. The position is EXIF's, else XMP's; the rating XMP's, else
        EXIF's. The keywords are those of all three.
        """
        base = ExifTags.Base
        fields, gps = self._directory(ExifTags.IFD.Exif), self._directory(ExifTags.IFD.GPSInfo)
        taken_at = self._first_date(fields, base.DateTimeOriginal, base.DateTimeDigitized)
        position = self._read("EXIF", lambda: exif_position(gps))
        xmp = self._read("XMP", self._xmp) or XmpPacket({}, {}, "")
        taken_at = taken_at or next(filter(None, map(parse_date, _xmp_dates(xmp))), None)
        position = position or position_in(xmp)
        taken_at = taken_at or self._read("EXIF", lambda: _gps_date(gps))
        taken_at = taken_at or self._first_date(self._exif, base.DateTime)
        latitude, longitude = position or (None, None)
        camera = self._read("EXIF", lambda: read_camera(self._exif))
        rating = xmp_rating(xmp)
        if rating is None:
            rating = self._read("EXIF", lambda: exif_rating(self._exif))
        keywords = clean_keywords(
            (
                *(xmp_keywords(xmp) or ()),
                *(self._read("IPTC", lambda: iptc_keywords(self._iptc())) or ()),
                *(self._read("EXIF", lambda: exif_keywords(self._exif)) or ()),
            )
        )
        unreadable = tuple(dict.fromkeys(self._unreadable))
        return Metadata(taken_at, camera, latitude, longitude, unreadable, rating, keywords)

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

    def _xmp(self) -> XmpPacket | None:
        """Parse the packet of the image, or that in a raw file's own tag; None if there is none."""
        info = self._picture.info
        packet = info.get("xmp") or info.get("XML:com.adobe.xmp") or self._exif.get(_XMP_TAG)
        return read_packet(packet) if isinstance(packet, bytes | str) and packet else None

    def _iptc(self) -> bytes:
        """Return the data sets of IPTC: of a JPEG's Photoshop segment, or of a TIFF's own tag."""
        blocks = self._picture.info.get("photoshop")
        content = blocks.get(_IPTC_BLOCK) if isinstance(blocks, dict) else self._exif.get(_IPTC_TAG)
        if isinstance(content, tuple) and all(isinstance(word, int) for word in content):
            content = struct.pack(f"{self._exif.endian}{len(content)}I", *content)
        return content if isinstance(content, bytes) else b""

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


def _xmp_dates(packet: XmpPacket) -> Iterator[str]:
    names = ((EXIF, "DateTimeOriginal"), (PHOTOSHOP, "DateCreated"), (XMP, "CreateDate"))
    for space, name in (*names, (EXIF, "DateTimeDigitized")):
        yield packet.texts.get(f"{{{space}}}{name}", "")


def position_in(packet: XmpPacket) -> Position | None:
    """Return the position that a packet states, None if there is none or it is invalid."""
    latitude, longitude = (packet.texts.get(f"{{{EXIF}}}GPS{axis}", "") for axis in ("Latitude", "Longitude"))
    return xmp_position(latitude, longitude)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value or "")

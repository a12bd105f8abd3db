"""GPS positions in all the forms in which cameras and programs write them."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags
from PIL.TiffImagePlugin import IFDRational

from matir_cli.photos.position import Position, exif_position, xmp_position

GPS = ExifTags.GPS


def position(latitude: Any, north: Any, longitude: Any, east: Any) -> Position | None:
    fields = {
        GPS.GPSLatitude: latitude,
        GPS.GPSLatitudeRef: north,
        GPS.GPSLongitude: longitude,
        GPS.GPSLongitudeRef: east,
    }
    return exif_position({tag: value for tag, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("written", "reference", "expected"),
    [
        ((33.0, 30.0, 0.0), "S", -33.5),
        ((33.0, 30.0, 0.0), "South", -33.5),
        ((33.0, 30.0, 0.0), "s", -33.5),
        ((33.0, 30.0, 0.0), b"S\0", -33.5),
        ((33.0, 30.0, 0.0), " SOUTH\0", -33.5),
        ((33.0, 30.0, 0.0), "N\0\0", 33.5),
        ((33.0, 30.0, 0.0), "", 33.5),  # exiftool: north unless it begins with S
        ((33.0, 30.0, 0.0), "?", 33.5),
        ((33.0, 30.0, 0.0), None, None),  # exiftool: no position
        ((33.0, 30.5), "N", 33 + 30.5 / 60),
        ((33.25,), "N", 33.25),
        (33.25, "N", 33.25),
        ((-33.0, 0.0, 0.0), "N", 33.0),  # exiftool: the reference alone decides
        ((33.0, 30.0, 36.0, 99.0), "N", 33.51),
        ("33 30 36", "N", 33.51),
        (b"33,30.6\0", "N", 33.51),
        ((IFDRational(33), IFDRational(30), IFDRational(0, 0)), "N", None),  # exiftool: "undef" is invalid
        ((IFDRational(33), IFDRational(1, 0), 0.0), "N", None),
        ((91.0, 0.0, 0.0), "N", None),
        ((math.nan, 0.0, 0.0), "N", None),
        ((), "N", None),
        ("", "N", None),
        (("a", "b"), "N", None),
        (None, "N", None),
    ],
)
def test_coordinates_are_read_as_exiftool_reads_them(
    written: object, reference: object, expected: float | None
) -> None:
    found = position(written, reference, (70.0, 36.0, 0.0), "W")
    assert found == (None if expected is None else pytest.approx((expected, -70.6)))


def test_half_a_position_is_none() -> None:
    assert position((1.0, 2.0, 3.0), "N", None, None) is None
    assert position(None, None, (1.0, 2.0, 3.0), "E") is None


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        ("33,30.0S", "70,36,0W", (-33.5, -70.6)),
        ("33,30,36N", "70,36.5E", (33.51, 70 + 36.5 / 60)),
        ("33.51", "70.6", None),
        ("33,30", "70,36E", None),
        ("N", "E", None),
        ("", "", None),
        ("91,0N", "0,0E", None),
    ],
)
def test_xmp_coordinates(latitude: str, longitude: str, expected: Position | None) -> None:
    found = xmp_position(latitude, longitude)
    assert found == (None if expected is None else pytest.approx(expected))


VALUES = st.none() | st.text(max_size=12) | st.binary(max_size=12) | st.floats() | st.integers(-400, 400)


@settings(derandomize=True, deadline=None)
@given(*[VALUES | st.lists(VALUES, max_size=4).map(tuple) for _ in range(4)])
def test_anything_gives_a_position_or_none(latitude: Any, north: Any, longitude: Any, east: Any) -> None:
    found = position(latitude, north, longitude, east)
    assert found is None or (-90 <= found[0] <= 90 and -180 <= found[1] <= 180)


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_any_xmp_gives_a_position_or_none(latitude: str, longitude: str) -> None:
    found = xmp_position(latitude, longitude)
    assert found is None or (-90 <= found[0] <= 90 and -180 <= found[1] <= 180)

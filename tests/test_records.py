"""Values shared by packages: boxes, scaling, verdicts and ranges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matir_cli.errors import OutOfRange
from matir_cli.records import Box, PhotoRecord, Point, Verdict, check_range

PHOTO = PhotoRecord(bytes(32), 4000, 3000, 1024, 768, 1)


def test_an_inverted_box_has_no_area() -> None:
    assert Box(1, 2, 4, 6).area == 12
    assert Box(4, 2, 1, 6).area == 0
    assert Box(0.123, 1, 2.987, 3).rounded(1) == (0.1, 1, 3.0, 3)


def test_places_scale_between_photo_and_working_pixels() -> None:
    assert PHOTO.to_working(Box(1000, 750, 4000, 3000)) == Box(256, 192, 1024, 768)
    assert PHOTO.to_photo(Point(512, 384)) == Point(2000, 1500)
    assert PHOTO.scaled_to(Point(2000, 1500), 100, 50) == Point(50, 25)
    assert PHOTO.scaled_from(Point(50, 25), 100, 50) == Point(2000, 1500)
    assert PHOTO.share(512 * 384) == 0.25


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_the_probability_follows_the_margin(z_true: float, z_false: float) -> None:
    verdict = Verdict(z_true, z_false)
    assert 0 <= verdict.p_true <= 1
    assert verdict.p_true + Verdict(z_false, z_true).p_true == pytest.approx(1)
    if abs(verdict.margin) < 30:
        assert math.log(verdict.p_true / (1 - verdict.p_true)) == pytest.approx(verdict.margin, abs=1e-3)


def test_a_range_includes_its_bounds_and_no_nan() -> None:
    for value in (None, 0.0, 1.0):
        check_range("weight", value, 0, 1)
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(OutOfRange):
            check_range("weight", value, 0, 1)
    check_range("limit", 1e9, 1)

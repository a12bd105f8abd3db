"""Distances on the Earth, against known ones and against another formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.search.distances import EARTH_RADIUS, great_circle, parse_distance, parse_position

LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)


def distance(here: tuple[float, float], there: tuple[float, float]) -> float:
    return float(great_circle(*here, np.array([there[0]]), np.array([there[1]]))[0])


def by_vectors(here: tuple[float, float], there: tuple[float, float]) -> float:
    """The angle between two unit vectors, by its tangent, which is precise at any size."""

    def direction(position: tuple[float, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        y, x = (math.radians(degrees) for degrees in position)
        return np.array([math.cos(y) * math.cos(x), math.cos(y) * math.sin(x), math.sin(y)])

    a, b = direction(here), direction(there)
    return EARTH_RADIUS * math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))


@settings(derandomize=True, deadline=None)
@given(LATITUDES, LONGITUDES, LATITUDES, LONGITUDES)
def test_the_distance_is_the_angle_between_two_directions(a: float, b: float, c: float, d: float) -> None:
    # Near the antipode the haversine loses digits: half a metre.
    assert distance((a, b), (c, d)) == pytest.approx(by_vectors((a, b), (c, d)), rel=1e-9, abs=0.5)


@settings(derandomize=True, deadline=None)
@given(LATITUDES, LONGITUDES, LATITUDES, LONGITUDES)
def test_it_is_the_same_both_ways_and_around_the_date_line(a: float, b: float, c: float, d: float) -> None:
    there = distance((a, b), (c, d))
    assert there == pytest.approx(distance((c, d), (a, b)), rel=1e-9, abs=1e-3)
    turned = d + 360 if d < 0 else d - 360
    assert there == pytest.approx(distance((a, b), (c, turned)), rel=1e-9, abs=0.5)
    assert 0 <= there <= math.pi * EARTH_RADIUS * (1 + 1e-12)


@pytest.mark.parametrize(
    ("here", "there", "metres"),
    [
        ((48.8584, 2.2945), (48.8530, 2.3499), 4098),  # Eiffel Tower, Notre-Dame
        ((0, 179.9995), (0, -179.9995), 111),  # across the date line
        ((89.9995, 0), (89.9995, 180), 111),  # across the pole
        ((90, 0), (90, 77), 0),  # the pole has every longitude
        ((-90, 5), (90, 5), math.pi * EARTH_RADIUS),
        ((51.5, -0.12), (51.5, -0.12), 0),
    ],
)
def test_known_distances(here: tuple[float, float], there: tuple[float, float], metres: float) -> None:
    assert distance(here, there) == pytest.approx(metres, rel=0.01, abs=0.01)


def test_what_people_write() -> None:
    assert [parse_distance(text) for text in ("500m", "5km", " 0.5 KM ", "2mi", ".5km")] == [
        *(500, 5000, 500, 3218.688, 500),
    ]
    assert parse_position("48.858,2.294") == (48.858, 2.294)
    assert parse_position(" -90 , +180.0") == (-90, 180)
    for text in ("", "5", "km", "-5km", "0m", "5 miles", "1e3m", "nanm", "٥km", "9" * 400 + "km"):
        with pytest.raises(ValueError, match="no distance"):
            parse_distance(text)
    for text in ("", "48", "48,", "91,0", "0,181", "48 2", "nan,0", "48.1,2.2,3", "٤٨,2"):
        with pytest.raises(ValueError, match="no latitude and longitude"):
            parse_position(text)

"""Distances on the Earth: great circles between positions in degrees, and distances as people write them."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS = 6_371_008.8
"""Metres: the mean radius (IUGG). A sphere of it is within 0.6% of the ellipsoid."""

_DEGREES = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"

_POSITION = re.compile(rf"\s*({_DEGREES})\s*,\s*({_DEGREES})\s*", re.ASCII)

_DISTANCE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(m|km|mi)\s*", re.ASCII | re.IGNORECASE)

_METRES = {"m": 1.0, "km": 1000.0, "mi": 1609.344}


def great_circle(
    latitude: float, longitude: float, latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distances from one position to (n,) others, metres, (n,) float64.

    By the haversine formula, which keeps its precision for near points, and knows no seam at the date line
    and no singularity at the poles.

    Args:
        latitude, longitude: degrees, north and east positive.
        latitudes, longitudes: of the others, degrees.
    """
    here, there = math.radians(latitude), np.radians(latitudes)
    across = np.radians(longitudes - longitude)
    half = np.sin((there - here) / 2) ** 2 + math.cos(here) * np.cos(there) * np.sin(across / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))), np.float64)


def parse_position(text: str) -> tuple[float, float]:
    """Parse "LAT,LON": degrees, north and east positive.

    Raises:
        ValueError: `text` is no position; the message gives an example.
    """
    match = _POSITION.fullmatch(text)
    if match is None or abs(float(match[1])) > 90 or abs(float(match[2])) > 180:
        raise ValueError(f"{text!r} is no latitude and longitude in degrees such as 48.858,2.294.")
    return float(match[1]), float(match[2])


def parse_distance(text: str) -> float:
    """Parse a distance with its unit, m, km or mi, as metres.

    Raises:
        ValueError: `text` is no such distance; the message gives examples.
    """
    match = _DISTANCE.fullmatch(text)
    metres = math.inf if match is None else float(match[1]) * _METRES[match[2].lower()]
    if not 0 < metres < math.inf:
        raise ValueError(f"{text!r} is no distance such as 500m, 5km or 3mi.")
    return metres

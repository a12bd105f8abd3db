"""The outlines of masks as polygons: for labels, and for pages that draw them at any size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from matir_cli.records import MaskArray

Ring: TypeAlias = NDArray[np.float64]
"""(n, 2) x and y in the mask's pixels, continuous edges; closed: the last point is not repeated."""


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of a mask."""

    outer: Ring
    holes: tuple[Ring, ...]


def outlines(mask: MaskArray) -> list[Part]:
    """The parts of a (height, width) mask, largest first.

    Straight edges lie exactly between pixels, corners are cut by half a pixel (marching squares);
    points on a straight line are left out, which changes nothing.
    """
    # A border of zeros, so that what touches the mask's edge is closed; a pixel's centre is at one half.
    levels = np.pad(mask, 1).astype(np.float64)
    generator = contour_generator(z=levels, fill_type=FillType.OuterOffset)
    # For this type of filling: per polygon its points, outer outline first, and where each outline begins.
    filled: tuple[list[Ring], list[NDArray[np.uint32]]] = generator.filled(0.5, 2.0)  # type: ignore[assignment]
    parts = []
    for polygon, ends in zip(*filled, strict=True):
        rings = [_corners(polygon[a : b - 1] - 0.5) for a, b in pairwise(ends)]
        parts.append(Part(rings[0], tuple(rings[1:])))
    return sorted(parts, key=lambda part: -ring_area(part.outer))


def merged(parts: list[Part]) -> Ring:
    """The outer outlines of all parts (at least one) as one polygon, for formats that know only that.

    Each further part hangs on the nearest point of those before it, by a line there and back that
    encloses nothing. Holes are filled, with what lies in them.
    """
    ring = parts[0].outer
    holes = [hole for part in parts for hole in part.holes]
    for part in parts[1:]:
        if any(_encloses(hole, part.outer[0]) for hole in holes):
            continue
        here, there = _nearest(ring, part.outer)
        turned = np.roll(part.outer, -there, axis=0)
        ring = np.concatenate([ring[: here + 1], turned, turned[:1], ring[here:]])
    return ring


def ring_area(ring: Ring) -> float:
    """In square pixels (the shoelace formula)."""
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _corners(ring: Ring) -> Ring:
    """The ring without the points at which it goes straight on."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    kept: Ring = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return kept


def _encloses(ring: Ring, point: Ring) -> bool:
    """Whether the (2,) point lies in the ring: a line to its right crosses it an odd number of times."""
    (x, y), (x0, y0), (x1, y1) = point, ring.T, np.roll(ring, -1, axis=0).T
    straddles = (y0 <= y) != (y1 <= y)
    rise = np.where(straddles, y1 - y0, 1.0)
    crossings = straddles & (x0 + (y - y0) * (x1 - x0) / rise > x)
    return bool(np.count_nonzero(crossings) % 2)


def _nearest(ring: Ring, other: Ring) -> tuple[int, int]:
    """The indices of the two points, one of each, that are nearest to each other."""
    best, indices = np.inf, (0, 0)
    for there, point in enumerate(other):  # a row at a time: both may have thousands of points
        distances = np.square(ring - point).sum(axis=1)
        here = int(distances.argmin())
        if distances[here] < best:
            best, indices = float(distances[here]), (here, there)
    return indices

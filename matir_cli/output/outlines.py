"""Outlines of masks as polygons, for label files and for drawing at any size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, cast

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.records import MaskArray, Rle

Ring: TypeAlias = NDArray[np.float64]
"""(n, 2) x and y in the mask's pixels, continuous edges. Closed; the first point is not repeated."""

_Filled: TypeAlias = tuple[list[Ring], list[NDArray[np.uint32]]]
"""Polygons in the form `FillType.OuterOffset`: per polygon the points of its rings, the outer one first, each
with its first point repeated at the end; and the offset at which each ring begins, and the last one ends."""


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of a mask."""

    outer: Ring
    """Its outer outline."""
    holes: tuple[Ring, ...]
    """The outlines of its holes."""


def outlines(mask: MaskArray) -> list[Part]:
    """Return the connected parts of a (height, width) bool mask, the one with the largest outline first.

    Straight edges lie exactly between pixels, corners are cut by half a pixel (marching squares). Points
    in the middle of a straight line are left out, which does not change the shape.
    """
    # A border of zeros closes outlines at the mask's edge; pixel centres lie at one half.
    levels = np.pad(mask, 1).astype(np.float64)
    generator = contour_generator(z=levels, fill_type=FillType.OuterOffset)
    polygons, offsets = cast(_Filled, generator.filled(0.5, 2.0))  # the fill type decides which form it is
    parts = []
    for points, ends in zip(polygons, offsets, strict=True):
        rings = [_corners(points[start : end - 1] - 0.5) for start, end in pairwise(ends)]
        parts.append(Part(rings[0], tuple(rings[1:])))
    return sorted(parts, key=lambda part: -ring_area(part.outer))


def merged(parts: list[Part]) -> Ring:
    """Merge the outer outlines of all parts (at least one) into one polygon, for formats that allow only one.

    Each further part is connected to the nearest point of those before it by a line there and back, which
    encloses no area. Holes are filled; parts inside a hole are left out.
    """
    ring = parts[0].outer
    holes = [hole for part in parts for hole in part.holes]
    for part in parts[1:]:
        if any(_encloses(hole, part.outer[0]) for hole in holes):
            continue
        index, nearest = _nearest(ring, part.outer)
        rolled = np.roll(part.outer, -nearest, axis=0)
        ring = np.concatenate([ring[: index + 1], rolled, rolled[:1], ring[index:]])
    return ring


def svg_path(rle: Rle) -> str:
    """Return the SVG path data of a mask's outlines, to be filled by the even-odd rule.

    It is in half pixels of the mask, so that the corners are integers. `rle` must be safe to decode.
    """
    return "".join(
        _svg_ring(ring) for part in outlines(masks.decode(rle)) for ring in (part.outer, *part.holes)
    )


def _svg_ring(ring: Ring) -> str:
    corners = np.rint(2 * ring).astype(int)
    steps = " ".join(f"{x} {y}" for x, y in np.diff(corners, axis=0).tolist())
    return f"M{corners[0, 0]} {corners[0, 1]}l{steps}z"


def ring_area(ring: Ring) -> float:
    """Return the area inside the ring in square pixels (shoelace formula)."""
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _corners(ring: Ring) -> Ring:
    """Return the ring without the points at which its direction does not change."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    kept: Ring = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return kept


def _encloses(ring: Ring, point: Ring) -> bool:
    """Return True if the (2,) point is in the ring: a ray to its right crosses it an odd number of times."""
    (x, y), (x0, y0), (x1, y1) = point, ring.T, np.roll(ring, -1, axis=0).T
    straddles = (y0 <= y) != (y1 <= y)
    rise = np.where(straddles, y1 - y0, 1.0)
    crossings = straddles & (x0 + (y - y0) * (x1 - x0) / rise > x)
    return bool(np.count_nonzero(crossings) % 2)


def _nearest(ring: Ring, other: Ring) -> tuple[int, int]:
    """Return the indices of the two points, one of each ring, that are nearest to each other."""
    best, indices = np.inf, (0, 0)
    for number, point in enumerate(other):  # row by row: both rings may have thousands of points
        distances = np.square(ring - point).sum(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] < best:
            best, indices = float(distances[nearest]), (nearest, number)
    return indices

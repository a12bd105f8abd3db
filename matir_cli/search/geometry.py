"""Relations between boxes in a photo: which region is left of, above, inside or near which other one.

All thresholds are fractions, so that they mean the same in every photo. They were chosen on the validation
split of the drawn world.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from matir_cli.search.phrases.description import RelationKind

APART = 0.13
"""Least distance of two centres, as a fraction of the photo's side, for "left of", "above" and the like."""

CONTAINED = 0.9
"""Least fraction of a box's area that lies in another one for it to be inside."""

SMALLER = 0.5
"""Largest area of a box inside another one, as a fraction of the other's area."""

NEARBY = 0.3
"""Largest gap between two boxes that are near each other, as a fraction of the photo's side."""

SAME_OBJECT = 0.5
"""Boxes with an IoU of at least this are taken for the same object, which has no relation to itself."""

BoxArray = NDArray[np.float64]
"""(..., n, 4) boxes XYXY, as fractions of the photo's width and height; leading axes are photos."""

Holds = NDArray[np.bool_]
"""(..., n, n): True where region i (row) has the relation to region j (column)."""


def relation_holds(kind: RelationKind, boxes: BoxArray) -> Holds:
    """Return between which of the n boxes of each photo a relation holds; never between one and itself.

    Args:
        kind: any kind but `ATTRIBUTE`, which boxes say nothing about.
    """
    distinct = (_iou(boxes) < SAME_OBJECT) & ~np.eye(boxes.shape[-2], dtype=np.bool_)
    return np.asarray(_TESTS[kind](boxes) & distinct)


def _offsets(boxes: BoxArray, axis: int) -> BoxArray:
    """(..., n, n): the centre of box j minus that of box i, along x (0) or y (1)."""
    centres = (boxes[..., axis] + boxes[..., axis + 2]) / 2
    return np.asarray(centres[..., np.newaxis, :] - centres[..., np.newaxis])


def _areas(boxes: BoxArray) -> BoxArray:
    """(..., n)"""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _overlaps(boxes: BoxArray, axis: int) -> BoxArray:
    """(..., n, n): the length that boxes i and j share along an axis; negative: the gap between them."""
    low, high = boxes[..., axis], boxes[..., axis + 2]
    ends = np.minimum(high[..., np.newaxis], high[..., np.newaxis, :])
    return np.asarray(ends - np.maximum(low[..., np.newaxis], low[..., np.newaxis, :]))


def _intersections(boxes: BoxArray) -> BoxArray:
    return np.asarray(np.maximum(_overlaps(boxes, 0), 0) * np.maximum(_overlaps(boxes, 1), 0))


def _iou(boxes: BoxArray) -> BoxArray:
    shared, areas = _intersections(boxes), _areas(boxes)
    union = areas[..., np.newaxis] + areas[..., np.newaxis, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _inside(boxes: BoxArray) -> Holds:
    areas = _areas(boxes)
    is_contained = _intersections(boxes) >= CONTAINED * areas[..., np.newaxis]
    return np.asarray(is_contained & (areas[..., np.newaxis] <= SMALLER * areas[..., np.newaxis, :]))


def _near(boxes: BoxArray) -> Holds:
    gaps = (np.minimum(_overlaps(boxes, axis), 0) for axis in (0, 1))
    return np.asarray(np.hypot(*gaps) <= NEARBY)


_TESTS: dict[RelationKind, Callable[[BoxArray], Holds]] = {
    RelationKind.LEFT_OF: lambda boxes: _offsets(boxes, 0) >= APART,
    RelationKind.RIGHT_OF: lambda boxes: _offsets(boxes, 0) <= -APART,
    RelationKind.ABOVE: lambda boxes: _offsets(boxes, 1) >= APART,
    RelationKind.BELOW: lambda boxes: _offsets(boxes, 1) <= -APART,
    RelationKind.INSIDE: _inside,
    RelationKind.AROUND: lambda boxes: np.swapaxes(_inside(boxes), -1, -2),
    RelationKind.NEAR: _near,
}

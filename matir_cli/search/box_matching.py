"""Matching a box to the stored region whose box overlaps it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matir_cli.gallery.rows import StoredRegion
from matir_cli.records import Box


@dataclass(frozen=True, slots=True)
class BoxMatch:
    """The stored region that fits a box best."""

    region: StoredRegion
    iou: float
    """IoU of the region's box and the box it was matched to, 0..1."""


def box_iou(left: Box, right: Box) -> float:
    """Return the intersection over union, 0..1, of two boxes in one frame; 0 when both are empty."""
    overlap = Box(
        max(left.x0, right.x0), max(left.y0, right.y0), min(left.x1, right.x1), min(left.y1, right.y1)
    ).area
    union = left.area + right.area - overlap
    return overlap / union if union > 0 else 0.0


def match_box(box: Box, regions: Sequence[StoredRegion]) -> BoxMatch | None:
    """Return the region whose box has the highest IoU with `box`, both in photo pixels.

    The region that is the whole photo (ordinal 0) is not considered, since its mask outlines no object.
    Ties go to the region with the higher predicted IoU, then to the lower ordinal. The IoU may be
    anything down to 0: callers decide from which IoU on a region stands for the box.

    Returns:
        None if the photo has no region besides the whole photo.
    """
    matches = [BoxMatch(region, box_iou(box, region.box)) for region in regions if region.ordinal > 0]
    return max(matches, key=lambda m: (m.iou, m.region.region.predicted_iou, -m.region.ordinal), default=None)

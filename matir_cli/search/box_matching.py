"""From the judge's box to a stored mask: the region whose box overlaps it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matir_cli.gallery.rows import StoredRegion
from matir_cli.records import Box


@dataclass(frozen=True, slots=True)
class BoxMatch:
    """A stored region that stands for a box."""

    region: StoredRegion
    iou: float
    """Of the region's box with the judge's, 0..1."""


def box_iou(left: Box, right: Box) -> float:
    """Intersection over union of two boxes in one frame; 0 when both are empty."""
    overlap = Box(
        max(left.x0, right.x0), max(left.y0, right.y0), min(left.x1, right.x1), min(left.y1, right.y1)
    ).area
    union = left.area + right.area - overlap
    return overlap / union if union > 0 else 0.0


def match_box(box: Box, regions: Sequence[StoredRegion]) -> BoxMatch | None:
    """The region whose box has the best IoU with `box` (photo pixels), None if there is none.

    The whole photo does not take part: its mask outlines nothing. Of regions with one
    IoU, the proposer's surer one wins, then the earlier one.
    """
    matches = [BoxMatch(region, box_iou(box, region.box)) for region in regions if region.ordinal > 0]
    return max(matches, key=lambda m: (m.iou, m.region.region.predicted_iou, -m.region.ordinal), default=None)

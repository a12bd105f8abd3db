"""Matching a box to the stored region that it stands for.

The paper takes the region whose box has the highest IoU with the judge's box. But a judge's boxes may be
rough while the regions are exact. So by the rule "joint" three things must agree: the boxes, the region's
vector with the query, and the proposer's own estimate of the mask:

    score  =  IoU  +  SIMILARITY * z  +  PREDICTED_IOU * predicted IoU

with z the similarity to the described object in standard deviations over the gallery.

By either rule, a region that a person has drawn or confirmed goes before all others if its box fits the
judge's with an IoU of at least `HUMAN_IOU`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matir_cli.gallery.rows import StoredRegion
from matir_cli.records import Box

SIMILARITY = 0.3
"""Weight of one standard deviation of similarity, where an IoU of 1 has weight 1. On the validation split of
the drawn world, and on other pictures and queries, 0.3 to 0.5 are best and equally good."""

PREDICTED_IOU = 0.3
"""Weight of the predicted IoU; 0 to 0.5 differ by half a point of mAP@50@50 at most."""


HUMAN_IOU = 0.5
"""IoU with the judge's box from which on a person's region is taken to be the object meant: as in mAP@50."""


@dataclass(frozen=True, slots=True)
class BoxMatch:
    """A stored region that a box may stand for."""

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


def match_box(
    box: Box,
    regions: Sequence[StoredRegion],
    similarities: Mapping[int, float] | None = None,
    human_iou: float = HUMAN_IOU,
) -> BoxMatch | None:
    """Return the region that fits `box` best, both in photo pixels: by IoU, or jointly with `similarities`.

    The region that is the whole photo (ordinal 0) is not considered, since its mask outlines no object.
    Ties go to the region with the higher predicted IoU, then to the lower ordinal. The IoU may be
    anything down to 0: callers decide from which IoU on a region stands for the box.

    Args:
        similarities: by region id, the similarity to the described object in standard deviations, up to a
            constant that is the same for all regions; None: the highest IoU wins.
        human_iou: IoU from which on a person's region wins.

    Returns:
        None if the photo has no region besides the whole photo.
    """
    return next(iter(rank_matches(box, regions, similarities, human_iou)), None)


def rank_matches(
    box: Box,
    regions: Sequence[StoredRegion],
    similarities: Mapping[int, float] | None = None,
    human_iou: float = HUMAN_IOU,
) -> list[BoxMatch]:
    """Return the regions that `match_box` chooses among, the one that it returns first."""
    matches = [BoxMatch(region, box_iou(box, region.box)) for region in regions if region.ordinal > 0]

    def key(match: BoxMatch) -> tuple[bool, float, float, int]:
        score = match.iou if similarities is None else joint_score(match, similarities)
        is_drawn = match.region.region.is_human and match.iou >= human_iou
        return is_drawn, score, match.region.region.predicted_iou, -match.region.ordinal

    return sorted(matches, key=key, reverse=True)


def joint_score(match: BoxMatch, similarities: Mapping[int, float]) -> float:
    """Return the score of a match by the rule "joint"; arguments as for `match_box`."""
    similarity, predicted = similarities[match.region.id], match.region.region.predicted_iou
    return match.iou + (SIMILARITY * similarity + PREDICTED_IOU * predicted)


def match_boxes(
    boxes: Sequence[Box],
    regions: Sequence[StoredRegion],
    similarities: Mapping[int, float] | None = None,
    human_iou: float = HUMAN_IOU,
) -> list[BoxMatch | None]:
    """Return the match of each box of one answer; arguments and matches as for `match_box`.

    Jointly, a region stands for one box only, or else all objects of an answer might become the one that
    resembles the description most. The first box, which is *the* object, chooses first.
    """
    if similarities is None:
        return [match_box(box, regions, human_iou=human_iou) for box in boxes]
    matches = []
    free = list(regions)
    for box in boxes:
        match = match_box(box, free, similarities, human_iou)
        matches.append(match)
        free = [region for region in free if match is None or region.id != match.region.id]
    return matches

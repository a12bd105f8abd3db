"""Regions that a judge is offered to choose among, where it chooses one by its number.

They are the photo's regions that resemble the described object most, as in stage 1. The judge's answer is the
box of one of them, and is matched and cached like a box that it writes.
"""

from __future__ import annotations

import numpy as np

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.union import GalleryReader
from matir_cli.records import Box, FloatArray
from matir_cli.search.box_matching import box_iou
from matir_cli.search.rerank import JudgeSession
from matir_cli.search.vectors import score_regions

SAME_REGION = 0.7
"""IoU from which two regions are the same to a judge; the proposer's threshold for duplicates."""


def box_question(session: JudgeSession, photo: JudgePhoto) -> GroundingQuestion:
    """Return the question where the session's object is, with regions to choose among if the judge chooses.

    Args:
        photo: its `key` is the photo's id.
    """
    most = session.judge().offers
    if not most or session.directions is None:
        return GroundingQuestion(photo, session.query)
    try:
        record = session.gallery.photo(photo.key).record
    except PhotoUnknown:  # another process has removed it meanwhile
        return GroundingQuestion(photo, session.query)
    height, width = photo.image.shape[:2]
    boxes = offer_regions(session.gallery, photo.key, session.directions(), most)
    return GroundingQuestion(
        photo, session.query, tuple(record.scaled_to(box, width, height) for box in boxes)
    )


def offer_regions(gallery: GalleryReader, photo_id: int, directions: FloatArray, most: int) -> list[Box]:
    """Return the boxes of at most so many regions of a photo, the most similar first, in photo pixels.

    The whole photo is not offered, nor a region whose box is that of a more similar one.

    Args:
        directions: (k, d) float32, as in `grounding.MatchOptions`.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """
    with gallery.snapshot():  # regions and their vectors must belong together
        regions = [region for region in gallery.regions(photo_id) if region.ordinal > 0]
        ids = np.array([region.id for region in regions], np.int64)
        scores = score_regions(gallery, ids, directions).max(axis=0)
    offered: list[Box] = []
    for place in np.argsort(-scores, kind="stable"):
        box = regions[place].box
        if len(offered) < most and all(box_iou(box, other) < SAME_REGION for other in offered):
            offered.append(box)
    return offered

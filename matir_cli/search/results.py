"""Search results: ranked photos, each with the objects that answer the query."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.records import Box, Candidate, Rle, Verdict
from matir_cli.search.explanation import Explanation

MATCHED = "matched"
"""A stored region fits the judge's box; the mask is that region's."""

UNMATCHED = "unmatched"
"""No stored region fits the judge's box, so there is no mask."""

REFINED = "refined"
"""No stored region fits the judge's box; the proposer found the mask inside the box."""

NO_BOX = "no box"
"""The judge's answer can be read and holds no box."""

UNREADABLE = "unreadable"
"""The judge's answer to the grounding question cannot be read."""


@dataclass(frozen=True, slots=True)
class GroundedObject:
    """One object that answers the query: its box and, where there is one, its mask."""

    box: Box
    """Photo pixels: the judge's box where the photo was grounded, otherwise the region's."""
    region: StoredRegion | None
    """The stored region that fits the box best; None if the photo has none besides the whole photo."""
    iou: float | None
    """IoU of the region's box and the judge's box, 0..1; None if the photo was not grounded."""
    mask: Rle | None
    """Working pixels; None if no stored region fits the judge's box and no mask was refined."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A photo that answers a query."""

    rank: int
    """1 is the best."""
    photo: StoredPhoto
    candidate: Candidate
    """The photo's best region and its score, from stage 1."""
    objects: tuple[GroundedObject, ...]
    """The objects found, in the order of the judge's answer: the first is *the* object. Empty if the
    judge gave no box."""
    verdict: Verdict | None = None
    """The judge's verdict; None if the judge was not asked about the photo."""
    grounding: str | None = None
    """Outcome of grounding for the first object, one of the constants above; None if not grounded."""
    judge_failed: bool = False
    """True if the judge was asked about the photo and its model computes no numbers for it."""
    explanation: Explanation | None = None
    """How the score and the mask came about, if that was asked for."""

    @property
    def path(self) -> Path:
        """Path of a file that holds the photo: the first that exists, otherwise the first."""
        return next((path for path in self.photo.paths if os.path.lexists(path)), self.photo.paths[0])

    @property
    def score(self) -> float:
        """S' of a judged photo, 0..1 (eq. 2), otherwise the cosine of its best region, -1..1 (eq. 1)."""
        return self.verdict.p_true if self.verdict is not None else self.candidate.score

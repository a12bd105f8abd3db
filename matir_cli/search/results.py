"""Search results: ranked photos, each with the objects that answer the query."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.records import Box, Candidate, Rle, Verdict

MATCHED = "matched"

UNMATCHED = "unmatched"

REFINED = "refined"

NO_BOX = "no box"

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class GroundedObject:
    """One object that answers the query."""

    box: Box
    """Photo pixels: the judge's where it was asked, else the region's."""
    region: StoredRegion | None
    """The stored region that fits best."""
    iou: float | None
    """Of the region's box with the judge's; None where there was no judge."""
    mask: Rle | None
    """Working pixels; None where no stored region fits the judge's box well enough."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A photo that answers a query."""

    rank: int
    """1 is the best."""
    photo: StoredPhoto
    candidate: Candidate
    """What stage 1 said of it."""
    answers: tuple[GroundedObject, ...]
    """The first is *the* object; none where the judge gave no box."""
    verdict: Verdict | None = None
    """What the judge said of it, where it was asked."""
    grounding: str | None = None
    """How the judge's box became a mask: one of the names above; None where it was not asked."""

    @property
    def path(self) -> Path:
        """A file that holds the photo, one that is still there if any is."""
        return next((path for path in self.photo.paths if os.path.lexists(path)), self.photo.paths[0])

    @property
    def score(self) -> float:
        """S' of a judged photo, 0..1 (eq. 2), else the cosine of its best region, -1..1 (eq. 1)."""
        return self.verdict.p_true if self.verdict is not None else self.candidate.score

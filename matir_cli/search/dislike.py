"""Bad examples: regions that are nearer to one of them than to the query score less.

A bad example is like the wanted objects in some way, since it was found for the same query. To subtract its
vector from the query's, as in Rocchio's relevance feedback (1971), therefore hides wanted objects as well.
Here a region loses nothing unless it is nearer to the bad example than to the query:

    score = q(i) - weight * max(0, b(i) - q(i) - margin)

q and b are a region's cosines with the query and with the bad example that it is most like, each as a z-score
over the gallery, since cosines of texts and of examples are not comparable. The result is on the scale of the
cosine with the query, which is an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matir_cli.gallery.union import GalleryReader
from matir_cli.records import FloatArray
from matir_cli.search.vectors import score_regions

Scores = NDArray[np.float64]

REGIONS_AT_ONCE = 4096
"""Regions whose vectors are read at once."""


@dataclass(frozen=True, slots=True)
class Dislike:
    """Bad examples of a query, on the scale of its scores."""

    vectors: FloatArray
    """(m, d) float32, one of each example: its inner product with a region's unit vector, plus the offset, is
    the score with the query from which on the region is nearer to the query."""
    offsets: Scores
    """(m,)"""
    weight: float
    """What a region loses for each unit by which its score is lower than that; 0 or more."""

    def scaled(self, factor: float) -> Dislike:
        """Return the same for scores that are multiplied by `factor`."""
        return replace(
            self, vectors=np.asarray(self.vectors * factor, np.float32), offsets=self.offsets * factor
        )

    def losses(self, gallery: GalleryReader, regions: NDArray[np.int64], scores: Scores) -> Scores:
        """Return (m, n): what each bad example would take from the scores of n regions; the largest counts.

        Raises:
            GalleryDamaged: as `score_regions`.
        """
        near = score_regions(gallery, regions, self.vectors) + self.offsets[:, np.newaxis]
        return np.asarray(self.weight * np.maximum(near - scores, 0.0))

    def lower(self, gallery: GalleryReader, regions: NDArray[np.int64], scores: Scores) -> Scores:
        """Return (n,): the scores of n regions, less what the bad examples take; errors as `losses`."""
        lowered = scores.copy()
        for start in range(0, regions.size, REGIONS_AT_ONCE):
            part = slice(start, start + REGIONS_AT_ONCE)
            lowered[part] -= self.losses(gallery, regions[part], scores[part]).max(axis=0)
        return lowered

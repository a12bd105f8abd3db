"""The split of an exported data set into train and val, and its background photos.

The side of a photo depends on its content alone, and near-copies are on one side: photos that are added
later, in whatever order, leave it where it is, unless one of them is a near-copy of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from matir_cli.gallery.union import GalleryReader
from matir_cli.search.events import SearchOutcome
from matir_cli.search.rerank import JudgedCandidate

MOST_BACKGROUND = 0.9
"""Share of background photos at most."""


def val_photos(gallery: GalleryReader, photo_ids: Collection[int], share: float) -> set[int]:
    """Return those of the photos that belong to val: about `share` of them, 0..1.

    A group of near-copies is on the side that the SHA-256 of the smallest SHA-256 in it chooses.
    """
    # Here, since every search imports this module for its options.
    from matir_cli.search.near_copies import PhotoComparison, link_near_copies, read_traits

    photos = read_traits(gallery, sorted(photo_ids))
    chosen = set[int]()
    for group in link_near_copies(gallery, photos, PhotoComparison(gallery)):
        digest = hashlib.sha256(group[0].sha256).digest()
        if int.from_bytes(digest[:8], "big") < share * 2**64:
            chosen |= {photo.id for photo in group}
    return chosen


class BackgroundPhotos:
    """Photos that show none of a data set's classes: the judge called each of its queries False."""

    def __init__(self, share: float) -> None:
        """Collect backgrounds for a data set of which they are to be `share`, 0 to `MOST_BACKGROUND`."""
        self._share = share
        self._denied: dict[str, dict[int, JudgedCandidate]] = {}  # by query and photo

    def note(self, query: str, outcome: SearchOutcome) -> None:
        """Take note of what the judge has called False."""
        denied = {item.candidate.photo_id: item for item in outcome.denied}
        self._denied.setdefault(query, {}).update(denied)

    def wanted(self, labelled: int) -> int:
        """Return the number of backgrounds for a data set with this number of labelled photos."""
        return int(labelled * self._share / (1.0 - self._share) + 1e-9)

    def choose(self, gallery: GalleryReader, labelled: Collection[int]) -> list[JudgedCandidate]:
        """Return the backgrounds, those of which the judge was surest first.

        A photo on which there is no verdict for one of the queries is none: it may show that class.

        Args:
            labelled: ids of the photos with labels.
        """
        common = set.intersection(*({*denied} for denied in self._denied.values())) if self._denied else set()
        worst = {
            photo_id: max((denied[photo_id] for denied in self._denied.values()), key=_margin)
            for photo_id in common - {*labelled}
        }
        from matir_cli.search.near_copies import read_traits

        photos = sorted(
            read_traits(gallery, sorted(worst)), key=lambda photo: (_margin(worst[photo.id]), photo.sha256)
        )
        return [worst[photo.id] for photo in photos[: self.wanted(len(labelled))]]


def _margin(item: JudgedCandidate) -> float:
    return 0.0 if item.verdict is None else item.verdict.margin

"""The cached answers of a judge about the photos of one gallery or of several.

Each answer is kept in the gallery that holds the photo.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import GalleryReader, GalleryUnion, Member
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.records import Grounding, Verdict


class AnswerCache(Protocol):
    """The cached verdicts and groundings of one judge for one query, by photo: see `VerdictCache`."""

    def verdict(self, photo_id: int) -> Verdict | None:
        """Return the cached verdict on the photo, None if there is none."""
        ...

    def remember(self, photo_id: int, verdict: Verdict) -> None:
        """Store a verdict, unless the gallery is read-only or no longer holds the photo."""
        ...

    def grounding(self, photo_id: int) -> Grounding | None:
        """Return the cached grounding in the photo, None if there is none."""
        ...

    def remember_grounding(self, photo_id: int, grounding: Grounding) -> None:
        """Store a grounding (boxes in photo pixels), under the same conditions as `remember`."""
        ...


def open_cache(gallery: GalleryReader, judge: str, query: str, *, fresh: bool = False) -> AnswerCache:
    """Open the cache of a query; arguments as for `VerdictCache`."""
    if isinstance(gallery, GalleryUnion):
        return UnionVerdictCache(gallery, judge, query, fresh=fresh)
    return VerdictCache(gallery, judge, query, fresh=fresh)


class UnionVerdictCache:
    """The cached answers of one judge for one query in the galleries of a union.

    A photo that several galleries hold has the answers of all of them; new ones are kept in the first.
    """

    def __init__(self, gallery: GalleryUnion, judge: str, query: str, *, fresh: bool = False) -> None:
        """Open the caches of `query`; arguments as for `VerdictCache`."""
        self._gallery = gallery
        self._caches = {}
        for member in gallery.members:
            with translated(member.file.path):
                self._caches[member.number] = VerdictCache(member.file, judge, query, fresh=fresh)

    def verdict(self, photo_id: int) -> Verdict | None:
        """Return the cached verdict on the photo, None if there is none; errors as in `VerdictCache`."""
        with self._gallery.locate(photo_id) as (member, own):
            return self._caches[member.number].verdict(own)

    def remember(self, photo_id: int, verdict: Verdict) -> None:
        """Store a verdict, unless the gallery is read-only or no longer holds the photo."""
        for member, own in self._places(photo_id):
            with translated(member.file.path):
                self._caches[member.number].remember(own, verdict)

    def grounding(self, photo_id: int) -> Grounding | None:
        """Return the cached grounding in the photo, None if there is none; errors as in `VerdictCache`."""
        with self._gallery.locate(photo_id) as (member, own):
            return self._caches[member.number].grounding(own)

    def remember_grounding(self, photo_id: int, grounding: Grounding) -> None:
        """Store a grounding (boxes in photo pixels), under the same conditions as `remember`."""
        for member, own in self._places(photo_id):
            with translated(member.file.path):
                self._caches[member.number].remember_grounding(own, grounding)

    def _places(self, photo_id: int) -> Iterator[tuple[Member, int]]:
        """Yield where an answer about a photo is kept: in the temporary gallery, too, if several hold it."""
        with self._gallery.locate(photo_id) as (member, own):
            pass
        yield member, own
        if member.origins and member.own_ids is not None:
            yield member.origins[int(np.searchsorted(member.own_ids, own))][0]

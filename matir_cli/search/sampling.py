"""A sample of a gallery's regions, by which cosines with different queries are brought to one scale."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.union import GalleryReader, Member, map_members, share_photos
from matir_cli.records import FloatArray
from matir_cli.search.quantisation import Int8Array, cosine_table
from matir_cli.search.vectors import stored_vectors

SAMPLE = 256
"""Regions that `sample_scores` takes: a standard deviation of that many is right to about 4%."""

MOST_REGIONS = 1 << 20
"""Regions of a photo at most, among which `sample_scores` chooses."""


def sample_scores(gallery: GalleryReader, queries: FloatArray) -> NDArray[np.float64]:
    """Return the cosines of each query with a sample of about `SAMPLE` regions of the gallery.

    The regions are those of the photos whose SHA-256 are the lowest, one of each if these are many enough. So
    the sample depends on what the gallery holds, and not on ids or on the files that hold it.

    Args:
        queries: (k, d) float32.

    Returns:
        (k, n) float64; n is 0 for a gallery without regions.
    """
    with gallery.snapshot():
        stored = _sample_vectors(gallery, queries.shape[1])
    return cosine_table(stored, queries)


def _sample_vectors(gallery: GalleryReader, dimensions: int) -> Int8Array:
    """Return the (n, dimensions) vectors of the sample."""
    found = chain.from_iterable(map_members(gallery, _first_photos))
    first = sorted(found, key=lambda photo: photo.sha256)[:SAMPLE]
    each = -(-SAMPLE // max(1, len(first)))
    wanted = [(photo, ordinal) for photo in first for ordinal in photo.some_ordinals(each)]
    stored = np.zeros((len(wanted), dimensions), np.int8)
    for share in share_photos(gallery, np.array([photo.id for photo, _ in wanted], np.int64)):
        keys = [[int(own), wanted[at][1]] for own, at in zip(share.own_ids, share.places, strict=True)]
        file = share.member.file
        with share.reading():
            rows: list[Any] = file.connection.execute(_AT_ORDINALS, (json.dumps(keys),)).fetchall()
            places = share.places[[row[0] for row in rows]] if rows else share.places[:0]
            regions = np.array([row[1] for row in rows], np.int64)
            stored[places] = stored_vectors(file, regions, dimensions)
    return stored[stored.any(axis=1)]  # a vector of zeros: the region is missing, or has no vector


@dataclass(frozen=True, slots=True)
class _SampledPhoto:
    """A photo of the sample."""

    id: int
    sha256: bytes
    regions: int
    """Number of its regions."""

    def some_ordinals(self, count: int) -> list[int]:
        """Return the ordinals of so many of the regions, or of all: evenly spread, from one by chance on."""
        if self.regions <= count:
            return [*range(self.regions)]
        start = int.from_bytes(self.sha256[-8:], "big")
        return sorted((start + place * self.regions // count) % self.regions for place in range(count))


def _first_photos(member: Member) -> list[_SampledPhoto]:
    """Return the `SAMPLE` photos of a member whose SHA-256 are the lowest, with their ids in the union."""
    rows = member.file.connection.execute(_FIRST, (json.dumps(member.hidden.tolist()), SAMPLE)).fetchall()
    checked = member.file.checked_id
    ids = member.to_union(np.array([checked(photo_id) for photo_id, *_ in rows], np.int64))
    photos = []
    for photo_id, (_, sha256, last) in zip(ids.tolist(), rows, strict=True):
        if not isinstance(sha256, bytes):
            raise GalleryDamaged(member.file.path, "the SHA-256 of a photo is invalid")
        if photo_id >= 0 and last is not None:
            photos.append(_SampledPhoto(photo_id, sha256, min(checked(last) + 1, MOST_REGIONS)))
    return photos


_FIRST = (
    "select id, sha256, (select max(ordinal) from regions where photo_id = photos.id) from photos "
    "where id not in (select value from json_each(?)) order by sha256 limit ?"
)

_AT_ORDINALS = (
    "select key, regions.id from json_each(?) "
    "cross join regions on regions.photo_id = value ->> 0 and ordinal = value ->> 1 "
    "cross join vectors on region_id = regions.id"
)

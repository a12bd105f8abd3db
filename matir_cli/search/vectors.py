"""Stored vectors of regions, read as exactly as the gallery knows them; their cosines with queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import itemgetter

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import LONGEST_VECTOR
from matir_cli.gallery.union import GalleryReader, share_regions
from matir_cli.records import FloatArray
from matir_cli.search.quantisation import (
    Int8Array,
    ResidualArray,
    level_cosines,
    query_levels,
    refine,
    restore,
    unrefined,
)

LONGEST_RESIDUALS = 1 << 26
"""Bytes of a photo's residuals at most; those of fifty regions have some twenty thousand."""

SCORED_AT_ONCE = 1024
"""Regions whose exact vectors are in memory at once: they hardly leave the cache."""


def to_vectors(
    gallery: GalleryFile, blobs: Sequence[apsw.SQLiteValue], dimensions: int | None = None
) -> Int8Array:
    """Convert stored vectors, at least one, to (n, d) int8.

    Args:
        dimensions: d; None: the length of the first vector.

    Raises:
        GalleryDamaged: one is no blob, all zeros, or of another length.
    """
    present = [blob for blob in blobs if isinstance(blob, bytes)]
    lengths = {*map(len, present)}
    length = (len(present[0]) if present else 0) if dimensions is None else dimensions
    if len(present) != len(blobs) or lengths != {length} or not 0 < length <= LONGEST_VECTOR:
        raise GalleryDamaged(gallery.path, "a stored vector has an impossible length")
    stored = np.frombuffer(b"".join(present), np.int8).reshape(-1, length)
    if not stored.any(axis=1).all():
        raise GalleryDamaged(gallery.path, "a stored vector is all zeros")
    return stored


def region_vector(gallery: GalleryReader, region_id: int) -> FloatArray:
    """Return a region's vector: (d,) float32 of unit length, as exact as int8 keeps it.

    Raises:
        GalleryDamaged: the region has no vector, or it is all zeros, no blob, or longer or shorter than the
            first region's.
    """
    (share,) = share_regions(gallery, np.array([region_id], np.int64))
    file, own = share.member.file, int(share.own_ids[0])
    with share.reading():
        row = file.connection.execute(
            f"select {VECTOR}, (select octet_length(vector) from vectors limit 1) "  # noqa: S608 - a constant
            "from vectors where region_id = ?",
            (LONGEST_VECTOR, own),
        ).fetchone()
    if row is None:
        raise GalleryDamaged(file.path, f"region {own} has no vector")
    vector, dimensions = row
    (restored,) = restore(to_vectors(file, [vector], file.checked_id(dimensions)))
    return np.asarray(restored)


VECTOR = "iif(octet_length(vector) <= ?, vector, null)"
"""SQL column: a vector, null if it has more dimensions than are bound; a hostile one is not read."""


def stored_vectors(gallery: GalleryFile, regions: NDArray[np.int64], dimensions: int) -> Int8Array:
    """Return the (n, d) int8 stored vectors of (n,) region ids, in their order.

    Raises:
        GalleryDamaged: a region has no vector, or one of another length or of zeros.
    """
    rows = gallery.connection.execute(
        f"select key, {VECTOR} from json_each(?) cross join vectors on region_id = value",  # noqa: S608
        (dimensions, json.dumps(regions.tolist())),
    ).fetchall()
    if len(rows) != regions.size:
        raise GalleryDamaged(gallery.path, "a region has no vector")
    if not rows:
        return np.zeros((0, dimensions), np.int8)
    # In practice they come in this order, but SQLite would copy them all to sort them.
    rows.sort(key=itemgetter(0))
    return to_vectors(gallery, [vector for _, vector in rows], dimensions)


def exact_vectors(gallery: GalleryFile, regions: NDArray[np.int64], dimensions: int) -> NDArray[np.int16]:
    """Return the vectors of (n,) region ids as exactly as the gallery knows them: (n, d) as `refine` does.

    Each photo's residuals are read once, if its regions follow each other.

    Raises:
        GalleryDamaged: a region has no vector, or a vector or residual has an impossible length.
    """
    stored = stored_vectors(gallery, regions, dimensions)
    length = -(-dimensions // 2)
    rows = gallery.connection.execute(_PLACES, (json.dumps(regions.tolist()),))
    try:
        places = np.sort(np.fromiter(rows, _PLACE), order="key")
    except (TypeError, ValueError, OverflowError) as error:
        raise GalleryDamaged(gallery.path, f"a region's ordinal: {error}") from error
    runs = np.flatnonzero(
        (np.diff(places["photo"], prepend=-1) != 0) | (np.diff(places["ordinal"], prepend=-1) != 1)
    )
    counts = np.diff(runs, append=places.size)
    asked = [places["photo"][runs].tolist(), places["ordinal"][runs].tolist(), counts.tolist()]
    bindings = (length, json.dumps([*zip(*asked, strict=True)]), LONGEST_RESIDUALS)
    found = gallery.connection.execute(_RESIDUALS, bindings).fetchall()
    if not found:
        return unrefined(stored)
    numbers, blobs = zip(*found, strict=True)
    known = np.array(numbers)
    residuals = to_residuals(gallery, blobs, length, counts[known].tolist())
    refined = places["key"][np.repeat(runs[known], counts[known]) + _counted(counts[known])]
    if np.array_equal(refined, np.arange(len(stored))):
        return refine(stored, residuals)
    levels = unrefined(stored)
    levels[refined] = refine(stored[refined], residuals)
    return levels


_PLACE = np.dtype([("key", np.int64), ("photo", np.int64), ("ordinal", np.int64)])

_PLACES = "select key, photo_id, ordinal from json_each(?) cross join regions on regions.id = value"

_RESIDUALS = (
    "select key, iif(octet_length(residuals) <= ?3, "
    "substr(residuals, 1 + (value ->> 1) * ?1, (value ->> 2) * ?1), null) "
    "from json_each(?2) cross join residuals on photo_id = value ->> 0"
)


def _counted(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, ..., count - 1 for each of the counts, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def to_residuals(
    gallery: GalleryFile,
    blobs: Sequence[apsw.SQLiteValue],
    length: int,
    counts: Sequence[int] | None = None,
) -> ResidualArray:
    """Convert stored residuals, at least one, to (n, length) uint8.

    Args:
        counts: number of residuals in each blob; None: one.

    Raises:
        GalleryDamaged: one is no blob, or of another length.
    """
    sizes = [length] * len(blobs) if counts is None else [length * count for count in counts]
    present = [
        blob for blob, size in zip(blobs, sizes, strict=True) if isinstance(blob, bytes) and len(blob) == size
    ]
    if len(present) != len(blobs):
        raise GalleryDamaged(gallery.path, "a vector's residual has an impossible length")
    return np.frombuffer(b"".join(present), np.uint8).reshape(-1, length)


def exact_cosines(
    gallery: GalleryReader, regions: NDArray[np.int64], vectors: FloatArray
) -> NDArray[np.float64]:
    """Return (k, n): cosines of n regions with (k, d) vectors, as exactly as the gallery knows them.

    Raises:
        GalleryDamaged: as `exact_vectors`.
    """
    levels = query_levels(vectors)
    scores = np.empty((len(vectors), regions.size))
    for share in share_regions(gallery, regions):
        for start in range(0, share.own_ids.size, SCORED_AT_ONCE):
            part = slice(start, start + SCORED_AT_ONCE)
            with share.reading():
                exact = exact_vectors(share.member.file, share.own_ids[part], vectors.shape[1])
            scores[:, share.places[part]] = level_cosines(exact, levels)
    return scores


def score_regions(
    gallery: GalleryReader, regions: NDArray[np.int64], vectors: FloatArray
) -> NDArray[np.float64]:
    """Return (k, n): inner products of n regions' unit vectors with (k, d) vectors of any length.

    Raises:
        GalleryDamaged: as `exact_vectors`.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    return np.asarray(exact_cosines(gallery, regions, vectors) * lengths[:, np.newaxis])

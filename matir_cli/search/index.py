"""Region vectors in the gallery, and the index of sign codes derived from them.

The table `vectors` holds every region's vector as int8. The table `blocks` holds sign codes, one bit per
dimension, column-wise, each block for some 16,384 regions. It is derived from `vectors` and need not be
complete: photos that are in no block yet are listed in the table `loose`, and codes of deleted regions stay
in their block, where they match no row. So searches are right in any state between two writes, with any
number of writers; `seal_index` makes them fast.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged, IndexDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import LONGEST_VECTOR
from matir_cli.records import FloatArray
from matir_cli.search.quantisation import Int8Array, cosine_table, quantise, restore
from matir_cli.search.sign_codes import encode_signs

BLOCK_REGIONS = 16_384
"""Regions per block: its codes, 1.7 MB at 768 dimensions, stay in a core's own cache while they are read."""

SEAL_SHARE = 8
"""Photos stay loose until they have a block's number of regions divided by this: scoring fewer regions takes
a few milliseconds."""

RUN = np.dtype([("photo", "<i8"), ("first", "<i8"), ("count", "<i8")])
"""Consecutive region ids of one photo: photo id, first region id and number of regions."""

_MOST_IN_RUN = 2**31
"""Regions: far more than a photo has, and few enough that sums of counts do not overflow."""


# Writing
def store_vectors(gallery: GalleryFile, photo_id: int, region_ids: Sequence[int], rows: FloatArray) -> None:
    """Store the vectors of a photo's regions; the caller holds the transaction.

    Args:
        rows: (len(region_ids), d) float32 vectors of any length but zero.

    Raises:
        ValueError: a vector is not finite or all zeros, or the numbers of vectors and regions differ.
    """
    store_quantised(gallery, photo_id, region_ids, quantise(rows))


def store_quantised(
    gallery: GalleryFile, photo_id: int, region_ids: Sequence[int], stored: Int8Array
) -> None:
    """Store vectors as `store_vectors` does, from (len(region_ids), d) int8 rows made by `quantise`."""
    gallery.connection.executemany(
        "insert into vectors (region_id, photo_id, vector) values (?, ?, ?)",
        [(region, photo_id, row.tobytes()) for region, row in zip(region_ids, stored, strict=True)],
    )
    gallery.connection.execute("insert into loose (photo_id) values (?)", (photo_id,))


def seal_index(gallery: GalleryFile, block_regions: int = BLOCK_REGIONS) -> None:
    """Put loose photos into blocks, unless they are too few to matter. Runs in a transaction of its own.

    Blocks less than half full of existing regions are dissolved, and their photos put into new blocks.
    """
    if _count_loose(gallery.connection) * SEAL_SHARE < block_regions:
        return
    with gallery.atomic():
        _dissolve(gallery, block_regions)
        _make_blocks(gallery, block_regions)


def rebuild_index(gallery: GalleryFile, block_regions: int = BLOCK_REGIONS) -> None:
    """Make all blocks anew from the stored vectors. Runs in a transaction of its own.

    Raises:
        GalleryDamaged: a stored vector is all zeros or has an impossible length.
    """
    db = gallery.connection
    with gallery.atomic():
        if db.execute(_IMPOSSIBLE_VECTOR).fetchone() is not None:
            raise GalleryDamaged(gallery.path, "a stored vector is all zeros or has an impossible length")
        db.execute("delete from blocks")
        db.execute("insert or ignore into loose (photo_id) select id from photos")
        if _count_loose(db) * SEAL_SHARE >= block_regions:
            _make_blocks(gallery, block_regions)


_IMPOSSIBLE_VECTOR = """
    select 1 from vectors where typeof(vector) <> 'blob' or vector = zeroblob(octet_length(vector))
    or octet_length(vector) <> (select octet_length(vector) from vectors limit 1) limit 1
"""


def _make_blocks(gallery: GalleryFile, block_regions: int) -> None:
    for regions, photos, stored in _loose_blocks(gallery, block_regions):
        centre, codes = encode_signs(stored)
        gallery.connection.execute(
            "insert into blocks (runs, centre, codes) values (?, ?, ?)",
            (_runs(regions, photos).tobytes(), centre.astype("<f4").tobytes(), codes.tobytes()),
        )
    gallery.connection.execute("delete from loose")


def _count_loose(db: apsw.Connection) -> int:
    count = db.execute("select count(*) from loose cross join regions using (photo_id)").get
    return int(count)


def _dissolve(gallery: GalleryFile, block_regions: int) -> None:
    """Delete blocks less than half full of existing regions, and make their photos loose again."""
    db = gallery.connection
    for block_id, blob in db.execute("select id, runs from blocks").fetchall():
        runs = read_runs(gallery, blob)
        firsts = json.dumps(runs["first"].tolist())
        owners = db.execute(
            "select region_id, photo_id from json_each(?) cross join vectors on region_id = value", (firsts,)
        )
        present = set(owners.fetchall())
        alive = [run for run in runs.tolist() if (run[1], run[0]) in present]
        if 2 * sum(count for _, _, count in alive) >= block_regions:
            continue
        db.execute("delete from blocks where id = ?", (block_id,))
        db.executemany(
            "insert or ignore into loose (photo_id) select id from photos where id = ?",
            {(run[0],) for run in alive},
        )


def _loose_blocks(
    gallery: GalleryFile, block_regions: int
) -> Iterator[tuple[list[int], list[int], Int8Array]]:
    """Yield the region ids, photo ids and (n, d) vectors of loose photos, block by block, photos unsplit.

    Raises:
        GalleryDamaged: a vector is all zeros or has an impossible length.
    """
    rows = gallery.connection.execute(
        "select region_id, loose.photo_id, vector from loose "
        "cross join regions on regions.photo_id = loose.photo_id "
        "cross join vectors on region_id = regions.id "
        "order by loose.photo_id, ordinal"
    )
    block: list[tuple[int, int, bytes]] = []
    for _, photo in groupby(rows, itemgetter(1)):
        regions = list(photo)
        if block and len(block) + len(regions) > block_regions:
            yield _columns(gallery, block)
            block = []
        block += regions
    if block:
        yield _columns(gallery, block)


def _columns(
    gallery: GalleryFile, rows: list[tuple[int, int, bytes]]
) -> tuple[list[int], list[int], Int8Array]:
    regions, photos, blobs = zip(*rows, strict=True)
    return list(regions), list(photos), to_vectors(gallery, blobs)


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
    length = (len(present[0]) if present else 0) if dimensions is None else dimensions
    if not (
        len(present) == len(blobs) and all(0 < len(blob) == length <= LONGEST_VECTOR for blob in present)
    ):
        raise GalleryDamaged(gallery.path, "a stored vector has an impossible length")
    stored = np.frombuffer(b"".join(present), np.int8).reshape(-1, length)
    if not stored.any(axis=1).all():
        raise GalleryDamaged(gallery.path, "a stored vector is all zeros")
    return stored


def _runs(regions: list[int], photos: list[int]) -> NDArray[np.void]:
    """Return (r,) `RUN`s of consecutive region ids of one photo: in practice one run per photo."""
    ids, owners = np.array(regions), np.array(photos)
    breaks = np.flatnonzero((np.diff(ids) != 1) | (np.diff(owners) != 0)) + 1
    starts = np.concatenate([[0], breaks])
    runs = np.empty(starts.size, RUN)
    runs["photo"], runs["first"] = owners[starts], ids[starts]
    runs["count"] = np.diff(starts, append=ids.size)
    return runs


def read_runs(gallery: GalleryFile, blob: apsw.SQLiteValue) -> NDArray[np.void]:
    """Read a block's (r,) `RUN`s, in the order of its codes.

    Raises:
        IndexDamaged: `blob` is not such a list, or a count is impossible.
    """
    if not isinstance(blob, bytes) or not blob or len(blob) % RUN.itemsize:
        raise IndexDamaged(gallery.path, "a block's list of photos has an impossible length")
    runs = np.frombuffer(blob, RUN)
    if runs["count"].min() < 1 or runs["count"].max() > _MOST_IN_RUN:
        raise IndexDamaged(gallery.path, "a block counts an impossible number of regions")
    return runs


def region_vector(gallery: GalleryFile, region_id: int) -> FloatArray:
    """Return a region's vector: (d,) float32 of unit length, as exact as int8 keeps it.

    Raises:
        GalleryDamaged: the region has no vector, or it is all zeros, no blob, or longer or shorter than the
            first region's.
    """
    row = gallery.connection.execute(
        f"select {VECTOR}, (select octet_length(vector) from vectors limit 1) "  # noqa: S608 - a constant
        "from vectors where region_id = ?",
        (LONGEST_VECTOR, region_id),
    ).fetchone()
    if row is None:
        raise GalleryDamaged(gallery.path, f"region {region_id} has no vector")
    vector, dimensions = row
    (restored,) = restore(to_vectors(gallery, [vector], gallery.checked_id(dimensions)))
    return np.asarray(restored)


VECTOR = "iif(octet_length(vector) <= ?, vector, null)"
"""SQL column: a vector, null if it has more dimensions than are bound; a hostile one is not read."""


def stored_vectors(gallery: GalleryFile, regions: NDArray[np.int64], dimensions: int) -> Int8Array:
    """Return the (n, d) int8 stored vectors of (n,) region ids, in their order.

    Raises:
        GalleryDamaged: a region has no vector, or one of another length or of zeros.
    """
    rows = gallery.connection.execute(
        f"select {VECTOR} from json_each(?) cross join vectors on region_id = value order by key",  # noqa: S608
        (dimensions, json.dumps(regions.tolist())),
    )
    vectors = [vector for (vector,) in rows]
    if len(vectors) != regions.size:
        raise GalleryDamaged(gallery.path, "a region has no vector")
    if not vectors:
        return np.zeros((0, dimensions), np.int8)
    return to_vectors(gallery, vectors, dimensions)


def score_regions(
    gallery: GalleryFile, regions: NDArray[np.int64], vectors: FloatArray
) -> NDArray[np.float64]:
    """Return (k, n): inner products of n regions' unit vectors with (k, d) vectors of any length.

    Raises:
        GalleryDamaged: as `stored_vectors`.
    """
    stored = stored_vectors(gallery, regions, vectors.shape[1])
    lengths = np.linalg.norm(vectors, axis=1)
    return np.asarray(cosine_table(stored, vectors) * lengths[:, np.newaxis])

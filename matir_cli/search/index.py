"""Region vectors in the gallery, and the index of codes derived from them.

The table `vectors` holds every region's vector as int8, `residuals` four more bits per dimension, which
decide near ties. The table `codes` holds blocks of codes, four bits per dimension, each block for some 16,384
regions. It is derived from `vectors` and need not be complete: photos that are in no block yet are listed in
the table `loose`, and codes of deleted regions stay in their block, where they match no row. So searches are
right in any state between two writes, with any number of writers; `seal_index` makes them fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged, IndexDamaged
from matir_cli.gallery.bound_models import confirm_models
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import GalleryReader, members_of
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import FloatArray
from matir_cli.search.codes import LAYOUT, Codes, encode_block
from matir_cli.search.quantisation import Int8Array, ResidualArray, quantise_finely
from matir_cli.search.vectors import to_vectors

BLOCK_REGIONS = 16_384
"""Regions per block: its codes have 6.4 MB at 768 dimensions. Fewer would make the number of blocks cost."""

SEAL_SHARE = 8
"""Photos stay loose until they have a block's number of regions divided by this: scoring fewer regions takes
a few milliseconds."""

RUN = np.dtype([("photo", "<i8"), ("first", "<i8"), ("count", "<i8")])
"""Consecutive region ids of one photo: photo id, first region id and number of regions."""

_MOST_IN_RUN = 2**31
"""Regions: far more than a photo has, and few enough that sums of counts do not overflow."""


def store_vectors(gallery: GalleryFile, photo_id: int, region_ids: Sequence[int], rows: FloatArray) -> None:
    """Store the vectors of a photo's regions; the caller holds the transaction.

    Args:
        rows: (len(region_ids), d) float32 vectors of any length but zero.

    Raises:
        ValueError: a vector is not finite or all zeros, or the numbers of vectors and regions differ.
        GalleryChanged: the gallery has another encoder by now.
    """
    store_quantised(gallery, photo_id, region_ids, *quantise_finely(rows))


def store_quantised(
    gallery: GalleryFile,
    photo_id: int,
    region_ids: Sequence[int],
    stored: Int8Array,
    residuals: ResidualArray | None,
) -> None:
    """Store the vectors of all regions of a photo, in order of ordinal, as `store_vectors` does.

    Args:
        stored: (len(region_ids), d), made by `quantise_finely`.
        residuals: (len(region_ids), ceil(d / 2)), made by `quantise_finely`; None: not known.

    Raises:
        GalleryChanged: the gallery has another encoder by now.
    """
    confirm_models(gallery)
    gallery.connection.executemany(
        "insert into vectors (region_id, photo_id, vector) values (?, ?, ?)",
        [(region, photo_id, row.tobytes()) for region, row in zip(region_ids, stored, strict=True)],
    )
    if residuals is not None:
        gallery.connection.execute(
            "insert into residuals (photo_id, residuals) values (?, ?)", (photo_id, residuals.tobytes())
        )
    gallery.connection.execute("insert into loose (photo_id) values (?)", (photo_id,))


def seal_index(
    gallery: GalleryFile, block_regions: int = BLOCK_REGIONS, progress: ProgressObserver = no_progress
) -> None:
    """Put loose photos into blocks, unless they are too few to matter.

    Blocks less than half full of existing regions, and those of another layout, are dissolved, and their
    photos put into new blocks. Each block is made in a transaction of its own: a process that is killed loses
    no more than that.
    """
    if _count_loose(gallery.connection) * SEAL_SHARE < block_regions and not foreign_blocks(gallery):
        return
    with gallery.atomic():
        _dissolve(gallery, block_regions)
        loose = gallery.connection.execute("select count(*) from loose").get
    with progress("making the search index", gallery.checked_id(loose), "photo") as advance:
        while sealed := _make_block(gallery, block_regions):
            advance(sealed)


def catch_up_index(
    gallery: GalleryReader, progress: ProgressObserver, block_regions: int = BLOCK_REGIONS
) -> None:
    """Make blocks if more photos are loose than writing photos leaves, or blocks have another layout: another
    version wrote the gallery, or a run was cut off. If the file cannot be written now, loose photos take
    longer, and codes of another layout cannot be searched."""
    for member in members_of(gallery):
        file, db = member.file, member.file.connection
        with translated(file.path):
            many = db.execute(
                "select 1 from loose cross join regions using (photo_id) limit 1 offset ?", (block_regions,)
            )
            if db.readonly("main") or not (many.fetchone() or foreign_blocks(file)):
                continue
            with suppress(
                apsw.BusyError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.FullError
            ):
                seal_index(file, block_regions, progress)


def rebuild_index(
    gallery: GalleryFile, block_regions: int = BLOCK_REGIONS, progress: ProgressObserver = no_progress
) -> None:
    """Make all blocks anew from the stored vectors.

    Raises:
        GalleryDamaged: a stored vector is all zeros or has an impossible length.
    """
    db = gallery.connection
    with gallery.atomic():
        if db.execute(_IMPOSSIBLE_VECTOR).fetchone() is not None:
            raise GalleryDamaged(gallery.path, "a stored vector is all zeros or has an impossible length")
        db.execute("delete from codes")
        db.execute("insert or ignore into loose (photo_id) select id from photos")
    seal_index(gallery, block_regions, progress)


_IMPOSSIBLE_VECTOR = """
    select 1 from vectors where typeof(vector) <> 'blob' or vector = zeroblob(octet_length(vector))
    or octet_length(vector) <> (select octet_length(vector) from vectors limit 1) limit 1
"""


def _make_block(gallery: GalleryFile, block_regions: int) -> int:
    """Put the next loose photos into a block and return their number; 0: no photo is loose any more."""
    db = gallery.connection
    with gallery.atomic():
        block = _next_loose(gallery, block_regions)
        if not block:
            db.execute("delete from loose")  # photos without regions
            return 0
        regions, photos, stored = _columns(gallery, block)
        centre, codes = encode_block(stored)
        db.execute(
            "insert into codes (runs, centre, codes) values (?, ?, ?)",
            (_runs(regions, photos).tobytes(), centre.astype("<f4").tobytes(), codes.tobytes()),
        )
        sealed = set(photos)
        db.executemany("delete from loose where photo_id = ?", ((photo,) for photo in sealed))
    return len(sealed)


def _count_loose(db: apsw.Connection) -> int:
    count = db.execute("select count(*) from loose cross join regions using (photo_id)").get
    return int(count)


def foreign_blocks(gallery: GalleryFile) -> set[int]:
    """Return the ids of the blocks whose codes another version has laid out in another way."""
    db = gallery.connection
    with gallery.snapshot():
        rows = db.execute("select id from codes where typeof(codes) = 'blob'")
        ids = [gallery.checked_id(row[0]) for row in rows]
        found = set()
        for block_id in ids:
            with db.blob_open("main", "codes", "codes", block_id, False) as blob:
                if blob.read(len(LAYOUT)) != LAYOUT:
                    found.add(block_id)
    return found


def _dissolve(gallery: GalleryFile, block_regions: int) -> None:
    """Delete blocks that are less than half full of existing regions, or whose codes have another layout, and
    make their photos loose again.

    Where no photo of any block is gone, only small blocks are looked at, so that a large gallery takes no
    longer.
    """
    db = gallery.connection
    foreign = foreign_blocks(gallery)
    any_gone = bool(foreign) or db.execute(_ANY_GONE, (RUN.itemsize,)).get
    dimensions = gallery.checked_id(db.execute(_DIMENSIONS).get)
    full = Codes.size(block_regions, dimensions)
    rows = db.execute(_SMALL_BLOCKS, (any_gone, full)).fetchall()
    chosen = [(block_id, read_runs(gallery, blob)) for block_id, blob in rows]
    first = min((int(runs["photo"].min()) for _, runs in chosen), default=0)
    photos = chosen and db.execute("select id from photos where id >= ? order by id", (first,))
    ids = np.fromiter((row[0] for row in photos), np.int64)
    present = np.append(ids, -1)
    for block_id, runs in chosen:
        alive = runs[present[np.searchsorted(ids, runs["photo"])] == runs["photo"]]
        if 2 * alive["count"].sum() >= block_regions and block_id not in foreign:
            continue
        db.execute("delete from codes where id = ?", (block_id,))
        db.executemany(
            "insert or ignore into loose (photo_id) values (?)",
            ((photo,) for photo in set(alive["photo"].tolist())),
        )


_ANY_GONE = (
    "select total(octet_length(runs)) > ?1 * ((select count(*) from photos where true) "
    "- (select count(*) from loose where true)) from codes"
)
"""SQL: true if blocks have more runs than there are photos in blocks; a photo has one run, in practice."""

_DIMENSIONS = "select coalesce((select octet_length(vector) from vectors limit 1), 0)"

_SMALL_BLOCKS = "select id, runs from codes where ?1 or 2 * octet_length(codes) < ?2"
"""SQL: blocks that may be less than half full; ?2 is the size of the codes of a full one."""


def _next_loose(gallery: GalleryFile, block_regions: int) -> list[tuple[int, int, bytes]]:
    """Return region id, photo id and vector of regions of the next loose photos: whole photos, no more than
    `block_regions` unless the first has more."""
    rows = gallery.connection.execute(
        "select region_id, loose.photo_id, vector from loose "
        "cross join regions on regions.photo_id = loose.photo_id "
        "cross join vectors on region_id = regions.id order by loose.photo_id, ordinal"
    )
    block: list[tuple[int, int, bytes]] = []
    for _, photo in groupby(rows, itemgetter(1)):
        regions = list(photo)
        if block and len(block) + len(regions) > block_regions:
            break
        block += regions
    return block


def _columns(
    gallery: GalleryFile, rows: list[tuple[int, int, bytes]]
) -> tuple[list[int], list[int], Int8Array]:
    regions, photos, blobs = zip(*rows, strict=True)
    return list(regions), list(photos), to_vectors(gallery, blobs)


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

"""Changes to the regions of a stored photo, together with their vectors and their places in the index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.region_rows import insert_regions
from matir_cli.gallery.rows import StoredRegion
from matir_cli.records import FloatArray, Region
from matir_cli.search.quantisation import Int8Array, ResidualArray, quantise_finely
from matir_cli.search.vectors import LONGEST_RESIDUALS, to_residuals


def replace_regions(
    gallery: GalleryFile,
    photo_id: int,
    stored: Sequence[StoredRegion],
    kept: Sequence[StoredRegion],
    added: Sequence[Region],
    vectors: FloatArray,
) -> list[int]:
    """Reduce the regions of a photo to `kept` and append `added`; the caller holds the transaction.

    Args:
        stored: all regions of the photo, as `GalleryFile.regions` has returned them in this transaction.
        kept: some of them in their order, the whole photo first.
        added: masks and boxes in working pixels.
        vectors: (len(added), d) float32 vectors of any length but zero.

    Returns:
        The ids of the new regions, in order.

    Raises:
        ValueError: a vector is not finite or all zeros, or the numbers of vectors and regions differ.
        PhotoUnknown: the gallery does not hold the photo.
        GalleryDamaged: the residuals of the photo's vectors have an impossible length.
    """
    quantised, residuals = quantise_finely(vectors)
    return replace_quantised(gallery, photo_id, stored, kept, added, quantised, residuals)


def replace_quantised(
    gallery: GalleryFile,
    photo_id: int,
    stored: Sequence[StoredRegion],
    kept: Sequence[StoredRegion],
    added: Sequence[Region],
    quantised: Int8Array,
    residuals: ResidualArray | None,
) -> list[int]:
    """Do as `replace_regions`, with vectors as they are stored.

    Args:
        quantised: (len(added), d), made by `quantise_finely`.
        residuals: (len(added), ceil(d / 2)), made by `quantise_finely`; None: not known.
    """
    db = gallery.connection
    record = gallery.photo(photo_id).record
    all_residuals = _residuals(gallery, photo_id, stored, kept, residuals, len(added))
    remaining = {region.id for region in kept}
    db.executemany(
        "delete from regions where id = ?", ((each.id,) for each in stored if each.id not in remaining)
    )
    for ordinal, region in enumerate(kept):  # ascending: no two regions have one place at any moment
        if region.ordinal != ordinal:
            db.execute("update regions set ordinal = ? where id = ?", (ordinal, region.id))
    ids = insert_regions(db, photo_id, record, added, first_ordinal=len(kept))
    db.executemany(
        "insert into vectors (region_id, photo_id, vector) values (?, ?, ?)",
        [(region, photo_id, row.tobytes()) for region, row in zip(ids, quantised, strict=True)],
    )
    db.execute("delete from residuals where photo_id = ?", (photo_id,))
    if all_residuals is not None:
        db.execute("insert into residuals values (?, ?)", (photo_id, all_residuals.tobytes()))
    db.execute("delete from next_vectors where photo_id = ?", (photo_id,))  # made for other regions
    # Codes of the regions that stay remain in their block. Until the new ones are in one, the photo is loose.
    db.execute("insert or ignore into loose (photo_id) values (?)", (photo_id,))
    return ids


def _residuals(
    gallery: GalleryFile,
    photo_id: int,
    stored: Sequence[StoredRegion],
    kept: Sequence[StoredRegion],
    added: ResidualArray | None,
    count: int,
) -> ResidualArray | None:
    """Return the residuals of the kept and the `count` added regions; None if those of some are not known."""
    row = gallery.connection.execute(
        "select iif(octet_length(residuals) <= ?, residuals, null) from residuals where photo_id = ?",
        (LONGEST_RESIDUALS, photo_id),
    ).fetchone()
    if row is None or (count and added is None):
        return None
    length = added.shape[1] if added is not None and count else _length(gallery, photo_id)
    before = to_residuals(gallery, row, len(stored) * length).reshape(len(stored), length)
    places = {region.id: place for place, region in enumerate(stored)}
    remaining = before[[places[region.id] for region in kept]]
    return remaining if added is None or not count else np.concatenate([remaining, added])


def _length(gallery: GalleryFile, photo_id: int) -> int:
    """Return the bytes of the residual of one vector of the photo."""
    row = gallery.connection.execute(
        "select octet_length(vector) from vectors where photo_id = ? limit 1", (photo_id,)
    ).fetchone()
    return -(-gallery.checked_id(0 if row is None else row[0]) // 2)

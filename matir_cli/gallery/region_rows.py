"""Regions as rows of the gallery: how they are read and written, with their origins."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from matir_cli.records import PhotoRecord, Region, RegionOrigin

SELECT_REGION = (
    "select regions.id, photo_id, ordinal, x0, y0, x1, y1, area, predicted_iou, stability, rle, "
    "width, height, mask_width, mask_height, region_origins.region_id, origin, label "
    "from regions join photos on photos.id = photo_id "
    "left join region_origins on region_origins.region_id = regions.id"
)
"""SQL whose rows `rows.read_region` reads."""


def insert_regions(
    connection: apsw.Connection,
    photo_id: int,
    record: PhotoRecord,
    regions: Sequence[Region],
    first_ordinal: int = 0,
) -> list[int]:
    """Write regions of a photo; the caller holds the transaction and stores their vectors.

    Args:
        regions: masks and boxes in working pixels.
        first_ordinal: position of the first of them in the photo.

    Returns:
        The ids of the regions, in order.
    """
    ids = []
    for ordinal, region in enumerate(regions, start=first_ordinal):
        box = record.to_photo(region.box)
        inserted = connection.execute(
            "insert into regions "
            "(photo_id, ordinal, x0, y0, x1, y1, area, predicted_iou, stability, rle) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id",
            (
                *(photo_id, ordinal, box.x0, box.y0, box.x1, box.y1),
                *(region.area, region.predicted_iou, region.stability, region.rle.counts),
            ),
        )
        ids.append(int(inserted.get))
        if region.origin is not None:
            store_origin(connection, ids[-1], region.origin)
    return ids


def store_origin(connection: apsw.Connection, region_id: int, origin: RegionOrigin) -> None:
    """Record where a region comes from, in place of what is recorded; the caller holds the transaction."""
    connection.execute(
        "insert or replace into region_origins (region_id, origin, label) values (?, ?, ?)",
        (region_id, origin.kind.value, origin.label),
    )

"""A large gallery, made of copies of a small one's rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from matir_cli.gallery.database import GalleryFile
from matir_cli.records import FileRecord, FloatArray, PhotoRecord, Region
from matir_cli.search.index import store_vectors
from matir_cli.search.vectors import region_vector

REGIONS = 4
"""Regions of a copy at most, the whole photo included."""

NOISE = 0.05
"""Length of what is added to each vector, which makes scores differ."""


def grow(gallery: GalleryFile, count: int) -> None:
    """Add copies of the photos, in folders of 500, until there are `count`; their files are missing."""
    rng = np.random.default_rng(0)
    ids = [int(row[0]) for row in gallery.connection.execute("select id from photos order by id")]
    photos = [_photo(gallery, each) for each in ids]
    with gallery.atomic():
        for number in range(gallery.count_photos(), count):
            record, regions, vectors, preview = photos[number % len(photos)]
            file = FileRecord(Path(f"/photos/{number // 500:03}/{number:05}.jpg"), 1, 1)
            taken = f"{2005 + 20 * number // count}-{1 + number % 12:02}-{1 + number % 28:02}T12:00:00"
            copy = replace(record, sha256=number.to_bytes(32, "big"), taken_at=taken)
            noisy = vectors + NOISE * rng.standard_normal(vectors.shape) / np.sqrt(vectors.shape[1])
            noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
            photo_id, stored = gallery.add_photo(file, copy, regions, preview)
            store_vectors(gallery, photo_id, stored, noisy.astype(np.float32))


def _photo(gallery: GalleryFile, photo_id: int) -> tuple[PhotoRecord, list[Region], FloatArray, bytes | None]:
    """The rows of a photo: its record, its first regions, their vectors and its preview."""
    regions = gallery.regions(photo_id)[:REGIONS]
    vectors: FloatArray = np.stack([region_vector(gallery, each.id) for each in regions])
    record = gallery.photo(photo_id).record
    return record, [each.region for each in regions], vectors, gallery.preview(photo_id)

"""Galleries of made-up vectors without photos, and the ranking of them by brute force."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Candidate, FileRecord, FloatArray, PhotoRecord, Region
from matir_cli.search.index import store_vectors
from matir_cli.search.quantisation import cosines, refine
from tests.search.vectors import unit

RLE = masks.whole(4, 4)


REGION = Region(RLE, masks.box(RLE), 16, 0.9, 0.95)


@contextmanager
def open_vectors(folder: Path) -> Iterator[GalleryFile]:
    """An empty gallery in `folder`, fast to write."""
    with GalleryFile.open(folder / "gallery.db", create=True) as opened:
        opened.connection.pragma("synchronous", "off")
        yield opened


def file(name: str) -> FileRecord:
    return FileRecord(Path(f"/photos/{name}"), 1, 1)


def put(gallery: GalleryFile, name: str, rows: FloatArray) -> int:
    """A photo whose regions have these vectors; the caller holds the transaction."""
    record = PhotoRecord(name.encode().ljust(32), 4, 4, 4, 4, 1)
    photo_id, regions = gallery.add_photo(file(name), record, [REGION] * len(rows), None)
    store_vectors(gallery, photo_id, regions, rows)
    return photo_id


def put_all(gallery: GalleryFile, photos: Sequence[FloatArray]) -> list[int]:
    with gallery.atomic():
        start = gallery.count_photos()
        return [put(gallery, str(start + number), rows) for number, rows in enumerate(photos)]


def forget(gallery: GalleryFile, name: str) -> None:
    """Remove the photo of this name."""
    gallery.remember_skipped(file(name), "gone")


def clustered(photos: int, regions: int, dimensions: int = 64, seed: int = 0) -> list[FloatArray]:
    """Photos of (regions, d) unit vectors around 20 concepts and a direction common to all."""
    rng = np.random.default_rng(seed)
    common = 8 * unit(np.random.default_rng(0).standard_normal(dimensions))
    concepts = np.random.default_rng(1).standard_normal((20, dimensions))
    mixed = concepts[rng.integers(0, 20, (photos, regions))] + rng.standard_normal(
        (photos, regions, dimensions)
    )
    return list(unit(common + mixed))


def question(seed: int, dimensions: int = 64) -> FloatArray:
    rng = np.random.default_rng(seed + 1000)
    concepts = np.random.default_rng(1).standard_normal((20, dimensions))
    return unit(concepts[rng.integers(20)] + rng.standard_normal(dimensions))


def brute_force(gallery: GalleryFile, query: FloatArray) -> list[Candidate]:
    """All photos, ranked by comparing every stored vector."""
    rows: list[Any] = gallery.connection.execute(
        "select regions.photo_id, regions.id, ordinal, vector, residuals from vectors "
        "join regions on regions.id = region_id join residuals on residuals.photo_id = regions.photo_id"
    ).fetchall()
    if not rows:
        return []
    ids = [(photo, region) for photo, region, *_ in rows]
    stored = np.frombuffer(b"".join(row[3] for row in rows), np.int8).reshape(len(ids), -1)
    length = -(-stored.shape[1] // 2)
    parts = [blob[ordinal * length : (ordinal + 1) * length] for _, _, ordinal, _, blob in rows]
    residuals = np.frombuffer(b"".join(parts), np.uint8).reshape(len(ids), length)
    scores = cosines(refine(stored, residuals), query)
    best: dict[int, Candidate] = {}
    for (photo, region), score in zip(ids, scores.tolist(), strict=True):
        found = Candidate(photo, region, score)
        best[photo] = min(best.get(photo, found), found, key=lambda c: (-c.score, c.region_id))
    return sorted(best.values(), key=lambda c: (-c.score, c.photo_id))


def blocks(gallery: GalleryFile) -> list[int]:
    """The number of regions in each block."""
    rows = gallery.connection.execute("select runs from codes order by id")
    return [int(np.frombuffer(row[0], "<i8").reshape(-1, 3)[:, 2].sum()) for row in rows]


def loose(gallery: GalleryFile) -> int:
    """The number of loose photos."""
    return int(gallery.connection.execute("select count(*) from loose").get)

"""Galleries written without models; photos of one name are the same in each."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.photos.preview import encode_preview
from matir_cli.records import FileRecord, FloatArray, MaskArray, ModelIdentity, Note, PhotoRecord, Region
from matir_cli.search.index import store_vectors
from matir_cli.search.rank import rank_photos

WIDTH, HEIGHT = 40, 30
"""Working size, pixels; the photo is twice as wide and high."""

DIMENSIONS = 64
REGIONS = 4
"""Regions per photo: the whole photo and three others."""

MODELS = {
    role: ModelIdentity(f"a {role}", digit * 64) for role, digit in (("proposer", "1"), ("encoder", "2"))
}


def craft(path: Path, names: Sequence[str], *, previews: bool = True) -> GalleryFile:
    """Make a gallery with photos of these names, in /photos; it is returned open."""
    gallery = GalleryFile.open(path, create=True)
    gallery.connection.pragma("synchronous", "off")
    for role, identity in MODELS.items():
        gallery.bind_model(role, identity, "crafted")
    with gallery.atomic():
        for name in names:
            put(gallery, name, previews=previews)
    return gallery


def put(
    gallery: GalleryFile,
    name: str,
    *,
    file: FileRecord | None = None,
    previews: bool = True,
    notes: tuple[Note, ...] = (),
) -> int:
    """Add a photo that depends only on `name`; return its id. The caller holds the transaction."""
    whole = masks.whole(HEIGHT, WIDTH)
    regions = [Region(whole, masks.box(whole), HEIGHT * WIDTH, 1.0, 1.0)]
    for mask in objects(name):
        rle = masks.encode(mask)
        regions.append(Region(rle, masks.box(rle), masks.area(rle), 0.75, 0.5))
    image = np.full((HEIGHT, WIDTH, 3), digest(name)[0], dtype=np.uint8)
    preview = encode_preview(image) if previews else None
    record = PhotoRecord(digest(name), 2 * WIDTH, 2 * HEIGHT, WIDTH, HEIGHT, 1, "2024-05-06T07:08:09", "ACME")
    photo_id, ids = gallery.add_photo(
        file or FileRecord(place(name), 10, 20), record, regions, preview, notes
    )
    store_vectors(gallery, photo_id, ids, vectors(name))
    return photo_id


def place(name: str) -> Path:
    """Path of the photo's file, which does not exist."""
    return Path("/photos") / name


def digest(name: str) -> bytes:
    """SHA-256 that stands for the photo's bytes."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def objects(name: str) -> list[MaskArray]:
    """(HEIGHT, WIDTH) bool masks of the photo's regions, without the whole photo: rectangles."""
    rng = np.random.default_rng(digest(name)[0])
    rectangles = []
    for _ in range(REGIONS - 1):
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
        y, x = rng.integers(0, HEIGHT - 8), rng.integers(0, WIDTH - 8)
        mask[y : y + 8, x : x + 6] = True
        rectangles.append(mask)
    return rectangles


def vectors(name: str) -> FloatArray:
    """(REGIONS, DIMENSIONS) unit vectors around a direction common to all photos."""
    rng = np.random.default_rng(int.from_bytes(digest(name)[:4], "big"))
    return unit(2.0 + rng.standard_normal((REGIONS, DIMENSIONS)))


def query(seed: int) -> FloatArray:
    """(DIMENSIONS,) a random unit vector."""
    return unit(np.random.default_rng(seed).standard_normal(DIMENSIONS))


def unit(rows: NDArray[np.float64]) -> FloatArray:
    """`rows` scaled to length 1, float32."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def ranking(
    gallery: GalleryFile, seeds: range = range(8), limit: int = 15
) -> list[list[tuple[str, int, float]]]:
    """The results of some random queries: file, ordinal of the region and score."""
    results = [rank_photos(gallery, query(seed), limit) for seed in seeds]
    return [
        [
            (str(gallery.paths(item.photo_id)[0]), gallery.region(item.region_id).ordinal, item.score)
            for item in items
        ]
        for items in results
    ]

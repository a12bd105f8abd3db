"""Galleries of photos that resemble each other: pictures, vectors, times and cameras are given."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.photos.preview import encode_preview
from matir_cli.records import FileRecord, FloatArray, PhotoRecord, Region
from matir_cli.search.index import store_vectors

DIMENSIONS = 64

SIZE = 96, 72
"""Width and height of the pictures, which are stored at true size."""


@dataclass(frozen=True)
class Shot:
    """A photo to put into a gallery."""

    name: str
    picture: int = 0
    """Seed of its picture."""
    direction: int = 0
    """Photos with the same one have nearly the same vector; with others, cosines are near 0."""
    taken_at: str | None = None
    camera: str | None = None
    scale: int = 1
    """Factor of its size."""
    preview: bool = True


def landscape(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture with structure at all scales, as photos have; different seeds have nothing in common."""
    rng = np.random.default_rng(seed)
    levels = np.zeros((size[1], size[0], 3))
    for cells in (2, 4, 8, 16):
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        levels += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), float) / cells
    levels = (levels - levels.min()) / (levels.max() - levels.min())
    return Image.fromarray((20 + 210 * levels).astype(np.uint8))


def recompressed(picture: Image.Image, quality: int = 50) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def vector(direction: int, noise: int = 0) -> FloatArray:
    """(DIMENSIONS,) of unit length; those of one direction have cosines of some 0.99."""
    base = np.random.default_rng(direction).standard_normal(DIMENSIONS)
    base /= np.linalg.norm(base)
    small = np.random.default_rng(10_000 + noise).standard_normal(DIMENSIONS)
    mixed = base + 0.05 * small / np.linalg.norm(small)
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def put_shots(gallery: GalleryFile, shots: Sequence[Shot]) -> list[int]:
    """Add the photos; return their ids. Their files, in /photos, do not exist."""
    whole = masks.whole(SIZE[1], SIZE[0])
    region = Region(whole, masks.box(whole), SIZE[0] * SIZE[1], 1.0, 1.0)
    ids = []
    with gallery.atomic():
        for shot in shots:
            digest = hashlib.sha256(shot.name.encode()).digest()
            width, height = SIZE[0] * shot.scale, SIZE[1] * shot.scale
            record = PhotoRecord(digest, width, height, *SIZE, 1, shot.taken_at, shot.camera)
            picture = recompressed(landscape(shot.picture), 50 + digest[0] % 40)
            preview = encode_preview(np.asarray(picture)) if shot.preview else None
            file = FileRecord(Path("/photos") / shot.name, 1000 + digest[1], 1)
            photo_id, regions = gallery.add_photo(file, record, [region], preview)
            store_vectors(gallery, photo_id, regions, vector(shot.direction, digest[2])[np.newaxis])
            ids.append(photo_id)
    return ids

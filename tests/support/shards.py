"""Several galleries with photos in common, and the gallery that a merge makes of them."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata
from matir_cli.gallery.read_only import open_read_only
from matir_cli.maintenance.merge import merge_gallery
from matir_cli.photos.preview import encode_preview
from matir_cli.records import (
    FileMetadata,
    FileRecord,
    FloatArray,
    ModelIdentity,
    OriginKind,
    PhotoRecord,
    Region,
    RegionOrigin,
)
from matir_cli.search.index import seal_index, store_vectors
from matir_cli.search.region_update import replace_regions
from tests.support.fakes import COLOURS, ColourEncoder

WIDTH, HEIGHT = 32, 24
"""Working size, pixels; the photo has the same."""

MODELS = {role: ModelIdentity(role, digit * 64) for role, digit in (("proposer", "1"), ("encoder", "2"))}


@dataclass(frozen=True)
class ShardPhoto:
    """A photo as one gallery has it."""

    content: int
    """Decides over its bytes, and so over pixels and regions."""
    place: int
    """Number in the name of its file."""
    rating: int | None = None
    keywords: tuple[str, ...] = ()
    drawn: int | None = None
    """Column at which a person has drawn a region."""
    preview: bool = True


def make_shard(
    path: Path, photos: Sequence[ShardPhoto], forgotten: Sequence[int] = (), block: int = 0
) -> None:
    """Write a gallery with these photos, in order, without those at the indices `forgotten`.

    Args:
        block: regions in a block of the index; 0: no blocks.
    """
    with closing_gallery(path) as gallery, gallery.atomic():
        for role, identity in MODELS.items():
            gallery.bind_model(role, identity, "crafted")
        for number, photo in enumerate(photos):
            put(gallery, photo)
            if number in forgotten:
                gallery.unlink(file_of(photo).path)
    if block:
        with closing_gallery(path) as gallery:
            seal_index(gallery, block)


def closing_gallery(path: Path) -> GalleryFile:
    """Open a gallery, fast to write."""
    gallery = GalleryFile.open(path, create=True)
    gallery.connection.pragma("synchronous", "off")
    return gallery


def merge_shards(path: Path, shards: Sequence[Path]) -> GalleryFile:
    """Merge galleries in their order into a new one, which is returned open."""
    merged = closing_gallery(path)
    for shard in shards:
        source = open_read_only(shard)
        with closing(source.connection):
            for _ in merge_gallery(merged, source, dry_run=False):
                pass
    return merged


def file_of(photo: ShardPhoto) -> FileRecord:
    """The photo's file, which does not exist."""
    return FileRecord(Path(f"/photos/{photo.place % 3}/{photo.place:02}.jpg"), 10 + photo.content, 20)


def put(gallery: GalleryFile, photo: ShardPhoto) -> None:
    rng = np.random.default_rng(photo.content)
    digest = hashlib.sha256(bytes([photo.content])).digest()
    if gallery.photo_with(digest) is not None:
        gallery.link(file_of(photo), gallery.photo_with(digest) or 0)
        _describe(gallery, photo)
        return
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    whole = masks.whole(HEIGHT, WIDTH)
    regions = [Region(whole, masks.box(whole), HEIGHT * WIDTH, 1.0, 1.0)]
    for _ in range(rng.integers(0, 4)):
        y, x = int(rng.integers(0, HEIGHT - 8)), int(rng.integers(0, WIDTH - 8))
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[y : y + 8, x : x + int(rng.integers(3, 9))] = True
        image[mask] = COLOURS[["red", "green", "blue"][rng.integers(3)]]
        rle = masks.encode(mask)
        regions.append(Region(rle, masks.box(rle), masks.area(rle), float(rng.integers(1, 4)) / 4, 0.5))
    record = PhotoRecord(
        *(digest, WIDTH, HEIGHT, WIDTH, HEIGHT, 1),
        f"2024-0{1 + photo.content % 9}-05T07:08:09" if photo.content % 4 else None,
        "ACME One" if photo.content % 2 else "Other",
        *((50.0 + photo.content / 100, 10.0) if photo.content % 3 else (None, None)),
    )
    photo_id, ids = gallery.add_photo(
        file_of(photo), record, regions, encode_preview(image) if photo.preview else None
    )
    store_vectors(gallery, photo_id, ids, _vectors(rng, len(regions)))
    if photo.drawn is not None:
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[4:12, photo.drawn : photo.drawn + 9] = True
        rle = masks.encode(mask)
        drawn = Region(
            rle, masks.box(rle), masks.area(rle), 1.0, 1.0, RegionOrigin(OriginKind.HUMAN, "drawn")
        )
        stored = gallery.regions(photo_id)
        replace_regions(gallery, photo_id, stored, stored, [drawn], _vectors(rng, 1))
    _describe(gallery, photo)


def _describe(gallery: GalleryFile, photo: ShardPhoto) -> None:
    metadata = FileMetadata(photo.rating, photo.keywords)
    store_metadata(gallery.connection, file_of(photo).path, metadata, None)


def _vectors(rng: np.random.Generator, count: int) -> FloatArray:
    """Vectors of a few directions, so that many regions score alike, in the space of `ColourText`."""
    vectors = np.zeros((count, ColourEncoder.dimensions), np.float32)
    vectors[np.arange(count), rng.integers(0, 3, count)] = 1.0
    vectors[:, 3] = rng.integers(1, 4, count) / 2
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

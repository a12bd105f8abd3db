"""Photos of a red block on green, stored with the block as their one region, and results for them."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredRegion
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.photos.preview import encode_preview
from matir_cli.records import Box, Candidate, Region
from matir_cli.search.results import GroundedObject, SearchResult

RED, GREEN = (220, 30, 30), (30, 160, 60)


def picture(width: int = 1600, height: int = 1200) -> Image.Image:
    """Green, with a red block from a quarter to a half of each side."""
    made = Image.new("RGB", (width, height), GREEN)
    made.paste(RED, (width // 4, height // 4, width // 2, height // 2))
    return made


def block(height: int, width: int) -> Region:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    rle = masks.encode(mask)
    return Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.9)


def put(gallery: GalleryFile, path: Path, *, preview: bool = True) -> int:
    """Store the photo at `path` as `matir add` does, with the block as its one region."""
    file = stat_file(path)
    decoded = decode_photo(file, hashlib.sha256(path.read_bytes()).digest())
    jpeg = encode_preview(decoded.image) if preview else None
    region = block(*decoded.image.shape[:2])
    with gallery.atomic():
        return gallery.add_photo(decoded.file, decoded.record, [region], jpeg)[0]


def make_result(
    gallery: GalleryFile, photo_id: int, *, rank: int = 1, others: int = 0, masked: bool = True
) -> SearchResult:
    """A result whose first answer is the block, followed by `others` without a mask."""
    (stored,) = gallery.regions(photo_id)
    region = StoredRegion(stored.id, photo_id, 1, stored.box, stored.region)
    answer = GroundedObject(region.box, region, None, region.region.rle if masked else None)
    nothing = GroundedObject(Box(0, 0, 9, 9), None, None, None)
    return SearchResult(
        rank, gallery.photo(photo_id), Candidate(photo_id, stored.id, 0.5), (answer, *[nothing] * others)
    )


def make_pixels(gallery: GalleryFile, path: Path, *, preview: bool = True) -> ResultPixels:
    return ResultPixels(
        gallery, make_result(gallery, put(gallery, path, preview=preview)), all_instances=False
    )

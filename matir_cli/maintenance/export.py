"""`matir export`: all regions as COCO annotations, and all vectors as one array."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import numpy as np

from matir_cli import masks
from matir_cli.errors import GalleryDamaged, GalleryEmpty, PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import photo_ids
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.records import FloatArray
from matir_cli.search.quantisation import restore

CATEGORY = {"id": 1, "name": "region", "supercategory": "region"}

IMAGES_IN_MEMORY = 1 << 20
"""Bytes of the list of images, which follows the annotations; beyond, it waits in a temporary file."""

VECTORS_AT_ONCE = 4096
"""Rows read and restored together: 12 MB at 768 dimensions."""

_HEADER_BYTES = 128
"""Of a .npy file of two dimensions: numpy pads it so that the row count fits in afterwards."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How the regions are written."""

    working_size: bool = False
    """In working pixels, as they are stored, instead of photo pixels: much faster and smaller."""
    relative_to: Path | None = None
    """The folder that file names start from; None: they are absolute."""


# COCO
def export_coco(gallery: GalleryFile, stream: IO[str], shape: ExportOptions) -> Iterator[int]:
    """Write COCO's instances JSON, in ASCII, photo by photo; yields the id of each photo written.

    Image ids are photo ids and annotation ids region ids. The whole photo, region 0 of each, is
    left out. A box is COCO's x, y, width, height; `score` is the predicted IoU.

    Raises:
        GalleryEmpty: there is no photo.
        GalleryDamaged: a photo or a mask cannot be what is stored; the JSON is then not finished.
    """
    if not gallery.count_photos():
        raise GalleryEmpty(gallery.path)
    info = {"description": "regions of a MaTIR gallery", "version": "1.0"}
    stream.write(f'{{"info": {json.dumps(info)},\n"categories": [{json.dumps(CATEGORY)}],\n"annotations": [')
    # Images come last: each photo is read once, so that both lists agree while others write.
    with SpooledTemporaryFile(IMAGES_IN_MEMORY, "w+", encoding="ascii") as images:
        image_separator = separator = "\n"
        for photo_id in photo_ids(gallery):
            found = _read(gallery, photo_id)
            if found is None:
                continue
            photo, regions = found
            images.write(f"{image_separator}{json.dumps(_image(photo, shape))}")
            image_separator = ",\n"
            for region in regions:
                stream.write(f"{separator}{json.dumps(_annotation(photo, region, shape))}")
                separator = ",\n"
            yield photo_id
        stream.write('\n],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, stream)
    stream.write("\n]}\n")


def _read(gallery: GalleryFile, photo_id: int) -> tuple[StoredPhoto, list[StoredRegion]] | None:
    """The photo and its regions but for the whole photo, in one state of the file; None if it is gone."""
    with gallery.connection:
        try:
            photo = gallery.photo(photo_id)
        except PhotoUnknown:
            return None
        regions = gallery.regions(photo_id)
    return photo, [region for region in regions if region.ordinal > 0]


def _image(photo: StoredPhoto, shape: ExportOptions) -> dict[str, object]:
    record = photo.record
    size = (record.mask_width, record.mask_height) if shape.working_size else (record.width, record.height)
    image: dict[str, object] = {"id": photo.id, "file_name": _file_name(photo, shape.relative_to)}
    image |= {"width": size[0], "height": size[1]}
    return image if record.taken_at is None else image | {"date_captured": record.taken_at}


def _file_name(photo: StoredPhoto, relative_to: Path | None) -> str:
    path = str(photo.paths[0])
    return path if relative_to is None else os.path.relpath(path, relative_to)


def _annotation(photo: StoredPhoto, stored: StoredRegion, shape: ExportOptions) -> dict[str, object]:
    rle = stored.region.rle
    if not shape.working_size:
        rle = masks.encode(photo.at_true_size(rle))
    box = masks.box(rle)
    return {
        "id": stored.id,
        "image_id": photo.id,
        "category_id": CATEGORY["id"],
        "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")},
        "bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0],
        "area": masks.area(rle),
        "iscrowd": 0,
        "score": stored.region.predicted_iou,
        "stability": stored.region.stability,
    }


# Vectors
def export_vectors(
    gallery: GalleryFile, array: IO[bytes], ids: IO[str], shape: ExportOptions
) -> Iterator[int]:
    """Write all vectors as a .npy file of (n, d) float32 of unit length, in the encoder's own space.

    `ids` gets a line of JSON for each row, in order: `region` and `photo` (ids), `path` and
    `ordinal` (0 is the whole photo). Yields the number of rows of each part written.

    Args:
        array: can seek; its header is written last, when n is known.

    Raises:
        GalleryEmpty: there is no vector.
        GalleryDamaged: a stored vector cannot be one.
    """
    array.write(bytes(_HEADER_BYTES))
    total, last = 0, -1
    dimensions: int | None = None
    while rows := _rows_after(gallery, last):
        last = rows[-1].region
        restored = _restored(gallery, [row.vector for row in rows], dimensions)
        dimensions = restored.shape[1]
        array.write(restored.astype("<f4").tobytes())
        for row in rows:
            path = row.path if shape.relative_to is None else os.path.relpath(row.path, shape.relative_to)
            line = {"region": row.region, "photo": row.photo, "path": path, "ordinal": row.ordinal}
            ids.write(f"{json.dumps(line)}\n")
        total += len(rows)
        yield len(rows)
    if dimensions is None:
        raise GalleryEmpty(gallery.path)
    array.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (total, dimensions)}
    np.lib.format.write_array_header_1_0(array, header)


def _restored(gallery: GalleryFile, blobs: list[bytes], dimensions: int | None) -> FloatArray:
    """(len(blobs), d) of stored vectors that all have the length `dimensions`, or the first one's."""
    if not all(isinstance(blob, bytes) and len(blob) == (dimensions or len(blobs[0])) > 0 for blob in blobs):
        raise GalleryDamaged(gallery.path, "a stored vector has an impossible length")
    try:
        return restore(np.frombuffer(b"".join(blobs), np.int8).reshape(len(blobs), -1))
    except ValueError as error:
        raise GalleryDamaged(gallery.path, str(error)) from error


@dataclass(frozen=True, slots=True)
class _Row:
    """A vector and whose it is."""

    region: int
    photo: int
    ordinal: int
    vector: bytes
    path: str


def _rows_after(gallery: GalleryFile, last: int) -> list[_Row]:
    """The next vectors in order of region, in one state of the file."""
    with gallery.connection:
        rows = gallery.connection.execute(
            "select region_id, regions.photo_id, ordinal, vector from vectors "
            "join regions on regions.id = region_id where region_id > ? order by region_id limit ?",
            (last, VECTORS_AT_ONCE),
        )
        found = [(int(region), int(photo), int(ordinal), vector) for region, photo, ordinal, vector in rows]
        names = {photo: gallery.paths(photo) for photo in {row[1] for row in found}}
    return [_Row(*row, str(names[row[1]][0]) if names[row[1]] else "") for row in found]

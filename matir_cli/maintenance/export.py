"""`matir export`: all regions as COCO annotations or Label Studio's tasks, all vectors as one array."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import apsw
import numpy as np

from matir_cli.errors import GalleryDamaged, GalleryEmpty, PhotoUnknown
from matir_cli.gallery.coco_annotation import coco_annotation
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.label_studio import PROPOSED_LABEL, REGION_ID, Prediction, TaskFile
from matir_cli.gallery.read_only import photo_ids
from matir_cli.gallery.rows import LONGEST_VECTOR, StoredPhoto, StoredRegion
from matir_cli.records import RegionOrigin
from matir_cli.search.quantisation import restore
from matir_cli.search.vectors import VECTOR, to_vectors

CATEGORY_ID = 1

CATEGORY = {"id": CATEGORY_ID, "name": "region", "supercategory": "region"}
"""The only COCO category: regions have no classes."""

IMAGES_IN_MEMORY = 1 << 20
"""Bytes of the list of images kept in memory; a longer one is kept in a temporary file until the end."""

VECTORS_AT_ONCE = 4096
"""Number of vectors read and restored at a time: 12 MB at 768 dimensions."""

_HEADER_BYTES = 128
"""Bytes of the header of a two-dimensional .npy file: numpy pads it, so it can be rewritten in place."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export."""

    working_size: bool = False
    """Write masks in working pixels, as stored, instead of photo pixels: much faster and smaller."""
    relative_to: Path | None = None
    """Folder that file names are relative to; None for absolute names."""


# COCO
def export_coco(gallery: GalleryFile, stream: IO[str], options: ExportOptions) -> Iterator[int]:
    """Write COCO instances JSON, in ASCII, photo by photo; yields the id of each photo written.

    Image ids are photo ids, and annotation ids are region ids. The whole photo, region 0 of each
    photo, is left out. Boxes are x, y, width, height; `score` is the predicted IoU. Regions that the proposer
    did not propose have an `origin`, and perhaps a `label`.

    Raises:
        GalleryEmpty: the gallery holds no photo.
        GalleryDamaged: a stored photo or mask is impossible; the JSON is then incomplete.
    """
    if not gallery.count_photos():
        raise GalleryEmpty(gallery.path)
    info = {"description": "regions of a MaTIR gallery", "version": "1.0"}
    stream.write(f'{{"info": {json.dumps(info)},\n"categories": [{json.dumps(CATEGORY)}],\n"annotations": [')
    # Images come last: each photo is read once, so that both lists agree while other commands write.
    with SpooledTemporaryFile(IMAGES_IN_MEMORY, "w+", encoding="ascii") as images:
        image_separator = separator = "\n"
        for photo_id in photo_ids(gallery):
            stored = _read_photo(gallery, photo_id)
            if stored is None:
                continue
            photo, regions = stored
            images.write(f"{image_separator}{json.dumps(_image(photo, options))}")
            image_separator = ",\n"
            for region in regions:
                stream.write(f"{separator}{json.dumps(_annotation(photo, region, options))}")
                separator = ",\n"
            yield photo_id
        stream.write('\n],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, stream)
    stream.write("\n]}\n")


def _read_photo(gallery: GalleryFile, photo_id: int) -> tuple[StoredPhoto, list[StoredRegion]] | None:
    """Read a photo and its regions, without the whole photo, in one transaction; None if it was deleted."""
    with gallery.snapshot():
        try:
            photo = gallery.photo(photo_id)
        except PhotoUnknown:
            return None
        regions = gallery.regions(photo_id)
    return photo, [region for region in regions if region.ordinal > 0]


def _image(photo: StoredPhoto, options: ExportOptions) -> dict[str, object]:
    """Make the COCO image of a photo."""
    record = photo.record
    size = (record.mask_width, record.mask_height) if options.working_size else (record.width, record.height)
    image: dict[str, object] = {"id": photo.id, "file_name": _file_name(str(photo.paths[0]), options)}
    image |= {"width": size[0], "height": size[1]}
    return image if record.taken_at is None else image | {"date_captured": record.taken_at}


def _file_name(path: str, options: ExportOptions) -> str:
    """Return the file name to write for an absolute path."""
    return path if options.relative_to is None else os.path.relpath(path, options.relative_to)


def _annotation(photo: StoredPhoto, stored: StoredRegion, options: ExportOptions) -> dict[str, object]:
    """Make the COCO annotation of a region, with its scores."""
    region = stored.region
    annotation = coco_annotation(
        photo,
        region.rle,
        annotation_id=stored.id,
        category_id=CATEGORY_ID,
        working_size=options.working_size,
    )
    annotation |= {"score": region.predicted_iou, "stability": region.stability}
    return annotation if region.origin is None else annotation | _origin(region.origin)


def _origin(origin: RegionOrigin) -> dict[str, object]:
    """Describe where a region comes from; its label is not a category, since most regions have none."""
    fields: dict[str, object] = {"origin": origin.kind.value}
    return fields if origin.label is None else fields | {"label": origin.label}


# Label Studio
def export_tasks(gallery: GalleryFile, file: TaskFile) -> Iterator[int]:
    """Write each photo as a task, with all regions but the whole photo; yields the id of each photo.

    Raises:
        GalleryEmpty: the gallery holds no photo.
        GalleryDamaged: a stored photo or mask is impossible; the file is then incomplete.
    """
    if not gallery.count_photos():
        raise GalleryEmpty(gallery.path)
    for photo_id in photo_ids(gallery):
        stored = _read_photo(gallery, photo_id)
        if stored is None:
            continue
        photo, regions = stored
        predictions = [
            Prediction(
                f"{REGION_ID}{each.id}",
                (each.region.origin and each.region.origin.label) or PROPOSED_LABEL,
                each.box,
                each.region.rle,
                round(each.region.predicted_iou, 6),
            )
            for each in regions
        ]
        file.add(photo, photo.paths[0], None, predictions)
        yield photo_id


# Vectors


@dataclass(frozen=True, slots=True)
class VectorId:
    """One row of the exported array, as a line of the file beside it."""

    region: int
    """Id of the region."""
    photo: int
    """Id of the photo."""
    path: str
    """A file that holds the photo."""
    ordinal: int
    """Position of the region in its photo; 0 is the whole photo."""


def export_vectors(
    gallery: GalleryFile, array: IO[bytes], ids: IO[str], options: ExportOptions
) -> Iterator[int]:
    """Write all vectors as a .npy file: (n, d) float32 of unit length, in the encoder's own space.

    `ids` receives one line of JSON per row, in order: `region` and `photo` (ids), `path` and `ordinal`
    (0 is the whole photo). Yields the number of rows of each chunk written.

    Args:
        array: must be seekable; its header is written last, when n is known.

    Raises:
        GalleryEmpty: the gallery holds no vector.
        GalleryDamaged: a stored vector is impossible.
    """
    array.write(bytes(_HEADER_BYTES))
    total, last = 0, -1
    dimensions: int | None = None
    while rows := _rows_after(gallery, last):
        last = rows[-1].region
        restored = restore(to_vectors(gallery, [row.vector for row in rows], dimensions))
        dimensions = restored.shape[1]
        array.write(restored.astype("<f4").tobytes())
        for row in rows:
            path = _file_name(row.path, options)
            ids.write(f"{json.dumps(asdict(VectorId(row.region, row.photo, path, row.ordinal)))}\n")
        total += len(rows)
        yield len(rows)
    if dimensions is None:
        raise GalleryEmpty(gallery.path)
    array.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (total, dimensions)}
    np.lib.format.write_array_header_1_0(array, header)


@dataclass(frozen=True, slots=True)
class _VectorRow:
    """A stored vector with its region and photo."""

    region: int
    photo: int
    ordinal: int
    vector: apsw.SQLiteValue
    path: str


_SELECT_VECTORS = (
    f"select region_id, regions.photo_id, ordinal, {VECTOR} from vectors "  # noqa: S608 - a constant
    "join regions on regions.id = region_id where region_id > ? order by region_id limit ?"
)


def _rows_after(gallery: GalleryFile, last: int) -> list[_VectorRow]:
    """Read the next `VECTORS_AT_ONCE` vectors in order of region, in one transaction."""
    with gallery.snapshot():
        cursor = gallery.connection.execute(
            _SELECT_VECTORS,
            (LONGEST_VECTOR, last, VECTORS_AT_ONCE),
        )
        rows = [
            (int(region), gallery.checked_id(photo), gallery.checked_id(ordinal), vector)
            for region, photo, ordinal, vector in cursor
        ]
        paths = {photo: gallery.paths(photo) for photo in {row[1] for row in rows}}
    if any(following <= before for before, following in pairwise([last, *(row[0] for row in rows)])):
        raise GalleryDamaged(gallery.path, "its vectors are not in order")
    return [_VectorRow(*row, str(paths[row[1]][0]) if paths[row[1]] else "") for row in rows]

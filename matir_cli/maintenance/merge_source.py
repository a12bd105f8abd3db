"""Another gallery, read for a merge: nothing in it is believed before it was checked.

It may come from a stranger. What is checked is what this tool relies on elsewhere, or would never
have written: kinds and bounds of values, masks, vectors, names of files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import msgspec
import numpy as np

from matir_cli import errors, masks
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile, translated
from matir_cli.gallery.paths import decode_path
from matir_cli.gallery.read_only import photo_ids, schema_faults
from matir_cli.model_sets.session import INDEXING_PARTS
from matir_cli.records import FileRecord, ModelIdentity, PhotoRecord, Region
from matir_cli.search.quantisation import Int8Array

LONGEST_TEXT = 100_000
"""Characters of a query, an answer or a camera's name."""

_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model that the other gallery was made with."""

    role: str
    identity: ModelIdentity
    model_set: str


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """A row of `verdicts` or `groundings`, with its question's words in place of ids."""

    judge: str
    query: str
    values: tuple[apsw.SQLiteValue, ...]
    """z_true, z_false; or boxes, answer, readable."""


@dataclass(frozen=True, slots=True)
class SourcePhoto:
    """A photo of the other gallery, checked."""

    record: PhotoRecord
    files: tuple[FileRecord, ...]
    preview: bytes | None
    regions: list[Region]
    vectors: Int8Array
    """(len(regions), d)."""
    verdicts: list[JudgeAnswer]
    groundings: list[JudgeAnswer]


def check_mergeable(path: Path, other: GalleryFile) -> None:
    """Make sure that `other` is a gallery of this schema, and not the one at `path`, which need not exist.

    Raises:
        MergeIntoItself, NotAGallery, GalleryTooNew, GalleryTooOld, GalleryDamaged: it is not.
    """
    if path.exists() and path.samefile(other.path):
        raise errors.MergeIntoItself(path)
    with translated(other.path):
        if not schema.is_gallery(other.connection):
            raise errors.NotAGallery(other.path)
        found = schema.version_of(other.connection)
        if found > schema.VERSION:
            raise errors.GalleryTooNew(other.path, found, schema.VERSION)
        if found < schema.VERSION:
            raise errors.GalleryTooOld(other.path, found, schema.VERSION)
        if faults := schema_faults(other.connection):
            raise errors.GalleryDamaged(other.path, f"its schema is not as it must be: {', '.join(faults)}")


def source_photo_ids(other: GalleryFile) -> Iterator[int]:
    """The ids of its photos, in order."""
    with translated(other.path):
        yield from photo_ids(other)


def source_models(other: GalleryFile) -> list[BoundModel]:
    """What it was made with: both models, or none where it holds no photo."""
    with translated(other.path):
        rows = other.connection.execute("select role, name, weight_hash, model_set from models").fetchall()
        holds_photos = other.count_photos() > 0
    bound = [BoundModel(str(row[0]), ModelIdentity(str(row[1]), str(row[2])), str(row[3])) for row in rows]
    if holds_photos and {model.role for model in bound} != set(INDEXING_PARTS):
        raise errors.GalleryDamaged(other.path, "it does not say which models it was made with")
    if not all(_HASH.fullmatch(model.identity.weight_hash) for model in bound):
        raise errors.GalleryDamaged(other.path, "the hash of a model is none")
    return bound


def read_source_photo(gallery: GalleryFile, other: GalleryFile, photo_id: int) -> SourcePhoto | None:
    """The photo, in one state of the file, checked; None if it has just been deleted.

    Raises:
        GalleryDamaged: it holds what this tool would not have written.
    """
    try:
        photo = None
        with translated(other.path), other.connection:
            known = other.connection.execute("select 1 from photos where id = ?", (photo_id,)).fetchone()
            if known is not None:
                photo = _read_checked(gallery, other, photo_id)
        return photo
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        raise errors.GalleryDamaged(other.path, f"photo {photo_id}: {error}") from error


def _read_checked(gallery: GalleryFile, other: GalleryFile, photo_id: int) -> SourcePhoto:
    record = other.photo(photo_id).record
    rows = other.connection.execute(
        "select path, bytes, mtime_ns from files where photo_id = ? order by path", (photo_id,)
    )
    preview = other.preview(photo_id)
    if preview is not None and not preview.startswith(b"\xff\xd8"):
        raise ValueError("its preview is no JPEG")
    regions = [
        replace(region, box=masks.box(region.rle), area=masks.area(region.rle))
        for region in (stored.region for stored in other.regions(photo_id))
    ]
    return SourcePhoto(
        record,
        tuple(_checked_file(*row) for row in rows),
        preview,
        regions,
        _checked_vectors(gallery, other, photo_id, len(regions)),
        _verdicts(other, photo_id),
        _groundings(other, photo_id),
    )


def _checked_file(path: apsw.SQLiteValue, size: apsw.SQLiteValue, mtime_ns: apsw.SQLiteValue) -> FileRecord:
    if not (isinstance(path, str | bytes) and isinstance(size, int) and isinstance(mtime_ns, int)):
        raise ValueError("an impossible file")
    read = decode_path(path)
    if not read.is_absolute() or "\0" in str(read):
        raise ValueError("an impossible file name")
    return FileRecord(read, size, mtime_ns)


def _checked_vectors(gallery: GalleryFile, other: GalleryFile, photo_id: int, count: int) -> Int8Array:
    """(count, d) stored vectors of the photo's regions, of the length that they have here."""
    rows = other.connection.execute(
        "select vector from regions join vectors on region_id = regions.id "
        "where regions.photo_id = ? order by ordinal",
        (photo_id,),
    )
    blobs = [vector for (vector,) in rows]
    if not blobs or len(blobs) != count:
        raise ValueError(f"{len(blobs)} vectors for {count} regions")
    here = gallery.connection.execute("select octet_length(vector) from vectors limit 1").fetchone()
    length = len(blobs[0]) if here is None else int(here[0])
    if not all(isinstance(blob, bytes) and len(blob) == length > 0 for blob in blobs):
        raise ValueError("a vector has an impossible length")
    stored = np.frombuffer(b"".join(blobs), np.int8).reshape(count, length)
    if not stored.any(axis=1).all():
        raise ValueError("a vector is all zeros")
    return stored


def _verdicts(other: GalleryFile, photo_id: int) -> list[JudgeAnswer]:
    rows = other.connection.execute(
        "select judge, query, z_true, z_false from verdicts join questions on id = question_id "
        "where photo_id = ? order by id",
        (photo_id,),
    )
    said = [_said(judge, query, values) for judge, query, *values in rows]
    if not all(isinstance(z, float) and math.isfinite(z) for item in said for z in item.values):
        raise ValueError("a verdict is not a number")
    return said


def _groundings(other: GalleryFile, photo_id: int) -> list[JudgeAnswer]:
    rows = other.connection.execute(
        "select judge, query, boxes, answer, readable from groundings join questions on id = question_id "
        "where photo_id = ? order by id",
        (photo_id,),
    )
    said = [_said(judge, query, values) for judge, query, *values in rows]
    for item in said:
        boxes, answer, readable = item.values
        corners = msgspec.json.decode(str(boxes), type=list[tuple[float, float, float, float]])
        if not all(math.isfinite(corner) for box in corners for corner in box):
            raise ValueError("a judge's box is not of numbers")
        if not isinstance(boxes, str) or not isinstance(answer, str) or readable not in (0, 1):
            raise ValueError("a judge's answer is no text")
        if len(boxes) + len(answer) > LONGEST_TEXT:
            raise ValueError("an endless answer")
    return said


def _said(judge: apsw.SQLiteValue, query: apsw.SQLiteValue, values: list[apsw.SQLiteValue]) -> JudgeAnswer:
    if not isinstance(judge, str) or not _HASH.fullmatch(judge):
        raise ValueError("the name of a judge is no hash")
    if not isinstance(query, str) or len(query) > LONGEST_TEXT:
        raise ValueError("an impossible query")
    return JudgeAnswer(judge, query, tuple(values))

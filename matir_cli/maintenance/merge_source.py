"""The source gallery of a merge, read with every value checked.

The file may be a stranger's. Everything is checked that this tool relies on elsewhere or would never
have written: types and ranges of values, masks, vectors, file names.
"""

from __future__ import annotations

import math
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
from matir_cli.model_sets.catalogue import SHA256_HEX
from matir_cli.model_sets.session import INDEXING_PARTS
from matir_cli.records import FileRecord, ModelIdentity, PhotoRecord, Region
from matir_cli.search.quantisation import Int8Array

LONGEST_TEXT = 100_000
"""Characters of a query, or of an answer with its boxes, at most."""


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model that the source gallery is bound to."""

    role: str
    identity: ModelIdentity
    model_set: str


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """A row of `verdicts` or `groundings`, with judge and query in place of the question's id."""

    judge: str
    query: str
    values: tuple[apsw.SQLiteValue, ...]
    """z_true and z_false; or boxes, answer and readable."""


@dataclass(frozen=True, slots=True)
class SourcePhoto:
    """A photo of the source gallery with everything known of it, checked."""

    record: PhotoRecord
    files: tuple[FileRecord, ...]
    preview: bytes | None
    regions: list[Region]
    vectors: Int8Array
    """(len(regions), d), as stored."""
    verdicts: list[JudgeAnswer]
    groundings: list[JudgeAnswer]


def check_mergeable(path: Path, source: GalleryFile) -> None:
    """Check that `source` is a gallery of this version's schema and not the file at `path`.

    Args:
        path: the gallery to merge into; it need not exist.

    Raises:
        MergeIntoItself: `source` is the gallery at `path`.
        NotAGallery, GalleryTooNew, GalleryTooOld, GalleryDamaged: `source` has another schema.
    """
    if path.exists() and path.samefile(source.path):
        raise errors.MergeIntoItself(path)
    with translated(source.path):
        if not schema.is_gallery(source.connection):
            raise errors.NotAGallery(source.path)
        version = schema.version_of(source.connection)
        if version > schema.VERSION:
            raise errors.GalleryTooNew(source.path, version, schema.VERSION)
        if version < schema.VERSION:
            raise errors.GalleryTooOld(source.path, version, schema.VERSION)
        if faults := schema_faults(source.connection):
            listed = ", ".join(faults)
            raise errors.GalleryDamaged(source.path, f"its schema has missing or changed parts: {listed}")


def source_photo_ids(source: GalleryFile) -> Iterator[int]:
    """Yield the ids of the source's photos, in order."""
    with translated(source.path):
        yield from photo_ids(source)


def source_models(source: GalleryFile) -> list[BoundModel]:
    """Return the models that the source is bound to: both, or perhaps none if it holds no photo.

    Raises:
        GalleryDamaged: it holds photos without both models, or a model's hash is invalid.
    """
    with translated(source.path):
        rows = source.connection.execute("select role, name, weight_hash, model_set from models").fetchall()
        holds_photos = source.count_photos() > 0
    bound = [BoundModel(str(row[0]), ModelIdentity(str(row[1]), str(row[2])), str(row[3])) for row in rows]
    if holds_photos and {model.role for model in bound} != set(INDEXING_PARTS):
        raise errors.GalleryDamaged(source.path, "it does not say which models it was made with")
    if not all(SHA256_HEX.fullmatch(model.identity.weight_hash) for model in bound):
        raise errors.GalleryDamaged(source.path, "the hash of a model is invalid")
    return bound


def read_source_photo(gallery: GalleryFile, source: GalleryFile, photo_id: int) -> SourcePhoto | None:
    """Read and check a photo in one transaction; None if it was deleted meanwhile.

    Args:
        gallery: the gallery to merge into, which gives the length of vectors.

    Raises:
        GalleryDamaged: a value is one that this tool would not have written.
    """
    try:
        photo = None
        with translated(source.path), source.connection:
            known = source.connection.execute("select 1 from photos where id = ?", (photo_id,)).fetchone()
            if known is not None:
                photo = _read_checked(gallery, source, photo_id)
        return photo
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        raise errors.GalleryDamaged(source.path, f"photo {photo_id}: {error}") from error


def _read_checked(gallery: GalleryFile, source: GalleryFile, photo_id: int) -> SourcePhoto:
    """Read a photo that exists; box and area of each region are computed from its mask."""
    record = source.photo(photo_id).record
    rows = source.connection.execute(
        "select path, bytes, mtime_ns from files where photo_id = ? order by path", (photo_id,)
    )
    preview = source.preview(photo_id)
    if preview is not None and not preview.startswith(b"\xff\xd8"):
        raise ValueError("its preview is not a JPEG")
    regions = [
        replace(region, box=masks.box(region.rle), area=masks.area(region.rle))
        for region in (stored.region for stored in source.regions(photo_id))
    ]
    return SourcePhoto(
        record,
        tuple(_checked_file(*row) for row in rows),
        preview,
        regions,
        _checked_vectors(gallery, source, photo_id, len(regions)),
        _verdicts(source, photo_id),
        _groundings(source, photo_id),
    )


def _checked_file(path: apsw.SQLiteValue, size: apsw.SQLiteValue, mtime_ns: apsw.SQLiteValue) -> FileRecord:
    if not (isinstance(path, str | bytes) and isinstance(size, int) and isinstance(mtime_ns, int)):
        raise ValueError("a file has values of the wrong type")
    decoded = decode_path(path)
    if not decoded.is_absolute() or "\0" in str(decoded):
        raise ValueError("a file name is not an absolute path")
    return FileRecord(decoded, size, mtime_ns)


def _checked_vectors(gallery: GalleryFile, source: GalleryFile, photo_id: int, count: int) -> Int8Array:
    """Read the photo's vectors, (count, d), checking that d is the same as in `gallery`."""
    rows = source.connection.execute(
        "select vector from regions join vectors on region_id = regions.id "
        "where regions.photo_id = ? order by ordinal",
        (photo_id,),
    )
    blobs = [vector for (vector,) in rows]
    if not blobs or len(blobs) != count:
        raise ValueError(f"{len(blobs)} vectors for {count} regions")
    present = gallery.connection.execute("select octet_length(vector) from vectors limit 1").fetchone()
    length = len(blobs[0]) if present is None else int(present[0])
    if not all(isinstance(blob, bytes) and len(blob) == length > 0 for blob in blobs):
        raise ValueError("a vector has an impossible length")
    stored = np.frombuffer(b"".join(blobs), np.int8).reshape(count, length)
    if not stored.any(axis=1).all():
        raise ValueError("a vector is all zeros")
    return stored


def _verdicts(source: GalleryFile, photo_id: int) -> list[JudgeAnswer]:
    """Read and check the verdicts on the photo."""
    answers = _answers(source, photo_id, "z_true, z_false from verdicts")
    if not all(isinstance(z, float) and math.isfinite(z) for answer in answers for z in answer.values):
        raise ValueError("a verdict is not a number")
    return answers


def _groundings(source: GalleryFile, photo_id: int) -> list[JudgeAnswer]:
    """Read and check the groundings in the photo."""
    answers = _answers(source, photo_id, "boxes, answer, readable from groundings")
    for answer in answers:
        boxes, text, readable = answer.values
        corners = msgspec.json.decode(str(boxes), type=list[tuple[float, float, float, float]])
        if not all(math.isfinite(corner) for box in corners for corner in box):
            raise ValueError("a judge's box is not finite")
        if not isinstance(boxes, str) or not isinstance(text, str) or readable not in (0, 1):
            raise ValueError("a judge's answer is not text")
        if len(boxes) + len(text) > LONGEST_TEXT:
            raise ValueError("a judge's answer is too long")
    return answers


def _answers(source: GalleryFile, photo_id: int, columns_from: str) -> list[JudgeAnswer]:
    """Read the answers about a photo, in order of question.

    Args:
        columns_from: the columns of `JudgeAnswer.values` and their table, as in "a, b from table".
    """
    rows = source.connection.execute(
        f"select judge, query, {columns_from} join questions on id = question_id "
        "where photo_id = ? order by id",
        (photo_id,),
    )
    return [_checked_answer(judge, query, values) for judge, query, *values in rows]


def _checked_answer(
    judge: apsw.SQLiteValue, query: apsw.SQLiteValue, values: list[apsw.SQLiteValue]
) -> JudgeAnswer:
    if not isinstance(judge, str) or not SHA256_HEX.fullmatch(judge):
        raise ValueError("the identity of a judge is not a hash")
    if not isinstance(query, str) or len(query) > LONGEST_TEXT:
        raise ValueError("a query is not text, or too long")
    return JudgeAnswer(judge, query, tuple(values))

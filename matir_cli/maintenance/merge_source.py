"""The source gallery of a merge, read with every value checked.

The file may be a stranger's. Everything is checked that this tool relies on elsewhere or would never
have written: types and ranges of values, masks, vectors, file names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import msgspec

from matir_cli import errors, masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import StoredMetadata, stored_metadata
from matir_cli.gallery.notes import stored_notes
from matir_cli.gallery.paths import decode_path
from matir_cli.gallery.read_only import photo_ids
from matir_cli.gallery.rows import LONGEST_VECTOR, check_text, read_boxes
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.model_sets.catalogue import SHA256_HEX
from matir_cli.model_sets.session import INDEXING_PARTS
from matir_cli.photos.descriptive import clean_keywords
from matir_cli.records import FileRecord, ModelIdentity, Note, PhotoRecord, Region
from matir_cli.search.quantisation import Int8Array, ResidualArray
from matir_cli.search.vectors import VECTOR, to_residuals, to_vectors


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
    residuals: ResidualArray | None
    """(len(regions), ceil(d / 2)), as stored; None: not known."""
    verdicts: list[JudgeAnswer]
    groundings: list[JudgeAnswer]
    notes: tuple[Note, ...]
    metadata: dict[Path, StoredMetadata]
    """Metadata of those of the files of which it has been read."""


def check_mergeable(path: Path, source: GalleryFile) -> None:
    """Check that `source` is not the gallery at `path`, which need not exist.

    Raises:
        MergeIntoItself: it is.
    """
    if path.exists() and path.samefile(source.path):
        raise errors.MergeIntoItself(path)


def source_photo_ids(source: GalleryFile) -> Iterator[int]:
    """Yield the ids of the source's photos, in order."""
    with translated(source.path):
        yield from photo_ids(source)


def source_models(source: GalleryFile) -> list[BoundModel]:
    """Return the models that the source is bound to: both, or perhaps none if it holds no photo.

    Raises:
        GalleryDamaged: it holds photos without both models, another kind of model, or an invalid hash.
    """
    with translated(source.path), source.snapshot():
        rows = source.connection.execute("select role, name, weight_hash, model_set from models").fetchall()
        holds_photos = source.count_photos() > 0
    texts = [[source.checked_text(text, "a model") for text in row] for row in rows]
    bound = [
        BoundModel(role, ModelIdentity(name, digest), model_set) for role, name, digest, model_set in texts
    ]
    roles = {model.role for model in bound}
    if not roles <= set(INDEXING_PARTS) or (holds_photos and roles != set(INDEXING_PARTS)):
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
    vectors = _checked_vectors(gallery, source, photo_id, len(regions))
    files = tuple(_checked_file(*row) for row in rows)
    return SourcePhoto(
        record,
        files,
        preview,
        regions,
        vectors,
        _checked_residuals(source, photo_id, vectors),
        _verdicts(source, photo_id),
        _groundings(source, photo_id, record),
        stored_notes(source.connection, source.path, photo_id),
        dict(_metadata(source, files)),
    )


def _metadata(source: GalleryFile, files: Iterable[FileRecord]) -> Iterator[tuple[Path, StoredMetadata]]:
    """Yield the metadata of files; keywords are cleaned as those of a photo are."""
    for file in files:
        stored = stored_metadata(source.connection, file.path)
        if stored is not None:
            keywords = clean_keywords(stored.metadata.keywords)
            yield file.path, replace(stored, metadata=replace(stored.metadata, keywords=keywords))


def _checked_file(path: apsw.SQLiteValue, size: apsw.SQLiteValue, mtime_ns: apsw.SQLiteValue) -> FileRecord:
    if not (isinstance(path, str | bytes) and isinstance(size, int) and isinstance(mtime_ns, int)):
        raise ValueError("a file has values of the wrong type")
    return FileRecord(decode_path(path), size, mtime_ns)


def _checked_vectors(gallery: GalleryFile, source: GalleryFile, photo_id: int, count: int) -> Int8Array:
    """Read the photo's vectors, (count, d), checking that d is the same as in `gallery`."""
    rows = source.connection.execute(
        f"select {VECTOR} from regions join vectors on region_id = regions.id "  # noqa: S608 - a constant
        "where regions.photo_id = ? order by ordinal",
        (LONGEST_VECTOR, photo_id),
    )
    blobs = [vector for (vector,) in rows]
    if not blobs or len(blobs) != count:
        raise ValueError(f"{len(blobs)} vectors for {count} regions")
    present = gallery.connection.execute("select octet_length(vector) from vectors limit 1").fetchone()
    return to_vectors(source, blobs, None if present is None else int(present[0]))


def _checked_residuals(source: GalleryFile, photo_id: int, vectors: Int8Array) -> ResidualArray | None:
    """Read the residuals of the photo's (n, d) `vectors`; None if it has none."""
    count, length = len(vectors), -(-vectors.shape[1] // 2)
    row = source.connection.execute(
        "select iif(octet_length(residuals) = ?, residuals, null) from residuals where photo_id = ?",
        (count * length, photo_id),
    ).fetchone()
    if row is None:
        return None
    return to_residuals(source, row, count * length).reshape(count, length)


def _verdicts(source: GalleryFile, photo_id: int) -> list[JudgeAnswer]:
    """Read and check the verdicts on the photo."""
    answers = _answers(source, photo_id, "z_true, z_false from verdicts")
    if not all(isinstance(z, float) and math.isfinite(z) for answer in answers for z in answer.values):
        raise ValueError("a verdict is not a number")
    return answers


def _groundings(source: GalleryFile, photo_id: int, record: PhotoRecord) -> list[JudgeAnswer]:
    """Read and check the groundings in the photo."""
    answers = _answers(source, photo_id, "boxes, answer, readable from groundings")
    for answer in answers:
        boxes, text, readable = answer.values
        read_boxes(boxes, record.width, record.height)
        check_text(text, "a judge's answer")
        if readable not in (0, 1):
            raise ValueError("a judge's answer is neither readable nor unreadable")
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
    return JudgeAnswer(judge, check_text(query, "a query"), tuple(values))

"""`matir merge`: copy another gallery's photos, with everything known of them.

The source gallery is only read and is not trusted: everything is checked before it is copied. Two
photos are the same if the SHA-256 of their files are equal.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from matir_cli import errors
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata, stored_sidecar
from matir_cli.gallery.files import photo_in_file
from matir_cli.gallery.notes import store_notes, stored_notes
from matir_cli.gallery.paths import encode_path
from matir_cli.gallery.raw_pairs import join_raw_files, shared_photo
from matir_cli.gallery.region_rows import store_origin
from matir_cli.maintenance.merge_source import (
    JudgeAnswer,
    SourcePhoto,
    read_source_photo,
    source_models,
    source_photo_ids,
)
from matir_cli.model_sets.presets import naming_presets
from matir_cli.photos.discover import stat_file
from matir_cli.photos.raw_pairs import is_raw
from matir_cli.records import FileRecord
from matir_cli.search.index import seal_index, store_quantised
from matir_cli.search.region_update import replace_quantised

PHOTOS_AT_ONCE = 32
"""Number of photos per transaction: few enough that other commands get their turn, and memory stays small."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A photo of the source that was added to the gallery."""

    path: Path


@dataclass(frozen=True, slots=True)
class Combined:
    """A photo present in both: unknown files, judge's answers, given regions, and a missing preview or notes
    were added."""

    path: Path


@dataclass(frozen=True, slots=True)
class Joined:
    """A raw file that is the same photo as a picture of its name in this gallery."""

    path: Path


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A photo not added, since all of its files hold other photos by now."""

    sha256: bytes


Outcome = TakenOver | Combined | Joined | LeftOut


def merge_gallery(
    gallery: GalleryFile, source: GalleryFile, *, dry_run: bool
) -> Generator[Outcome, None, None]:
    """Merge the photos of `source` into `gallery`; yields one outcome per photo.

    `PHOTOS_AT_ONCE` photos are committed together. A stopped run leaves the gallery sound, and the next
    run continues from there. Records of files that could not be indexed are not copied.

    Args:
        source: a gallery that `check_mergeable` has passed.
        dry_run: write nothing, and yield the outcomes that a run would have.

    Raises:
        ModelMismatch: the galleries were made with different models.
        GalleryDamaged: a value in `source` is impossible; photos committed before are kept.
    """
    bound = source_models(source)
    for model in bound:
        with naming_presets(gallery.model_set(), model.model_set):
            gallery.check_model(model.role, model.identity)
    if dry_run:
        for photo_id in source_photo_ids(source):
            if (photo := read_source_photo(gallery, source, photo_id)) is not None:
                yield _plan(gallery, photo)[0]
        return
    known = {str(role) for (role,) in gallery.connection.execute("select role from models")}
    for model in bound:
        if model.role not in known:
            gallery.bind_model(model.role, model.identity, model.model_set)
    yield from copy_photos(gallery, source, source_photo_ids(source))
    seal_index(gallery)


def copy_photos(
    gallery: GalleryFile, source: GalleryFile, photo_ids: Iterable[int]
) -> Generator[Outcome, None, None]:
    """Copy these photos of `source`, `PHOTOS_AT_ONCE` in a transaction; errors as in `merge_gallery`.

    The caller has compared the models, and calls `seal_index` at the end.
    """
    remaining = iter(photo_ids)
    while batch := list(islice(remaining, PHOTOS_AT_ONCE)):
        with gallery.atomic():
            copied = [copy_photo(gallery, source, photo_id) for photo_id in batch]
        yield from (outcome for outcome in copied if outcome is not None)


def copy_photo(
    gallery: GalleryFile, source: GalleryFile, photo_id: int, *, preview: bool = True
) -> Outcome | None:
    """Copy a photo of `source`, None if it is deleted by now; the caller holds the transaction.

    Args:
        preview: copy its preview, too.
    """
    photo = read_source_photo(gallery, source, photo_id)
    if photo is None:
        return None
    return _merge_photo(gallery, photo if preview else replace(photo, preview=None))


def _plan(gallery: GalleryFile, photo: SourcePhoto) -> tuple[Outcome, list[FileRecord]]:
    """Decide the outcome for a photo, and which of its files to link."""
    present = gallery.photo_with(photo.record.sha256)
    files = [file for file in photo.files if _is_wanted(gallery, file, present)]
    if present is not None:
        return Combined((*gallery.paths(present), Path())[0]), files
    if files and all(_picture_of(gallery, file) is not None for file in files):
        return Joined(files[0].path), files
    return (TakenOver(files[0].path) if files else LeftOut(photo.record.sha256)), files


def _picture_of(gallery: GalleryFile, file: FileRecord) -> int | None:
    """Return the photo that a raw file would share here; None if it is none, or has no picture."""
    return shared_photo(gallery.connection, file.path) if is_raw(file.path) else None


def _is_wanted(gallery: GalleryFile, file: FileRecord, photo_id: int | None) -> bool:
    """Return True if `file` should be linked to the photo.

    It should if the gallery does not know the file, or if it knows it with other content and the file
    on disk is the one that the source knows.
    """
    row = gallery.connection.execute(
        "select photo_id from files where path = ?1 union all select null from skipped where path = ?1",
        (encode_path(file.path),),
    ).fetchone()
    if row is None:
        return True
    if row[0] is not None and row[0] == photo_id:
        return False
    try:
        return stat_file(file.path) == file and not gallery.is_unchanged(file)
    except errors.PhotoUnreadable:
        return False


def _merge_photo(gallery: GalleryFile, photo: SourcePhoto) -> Outcome:
    """Write what is new of a photo; the caller holds the transaction."""
    db = gallery.connection
    outcome, files = _plan(gallery, photo)
    match outcome:
        case LeftOut():
            return outcome
        case Joined():
            for file in files:
                if (picture := _picture_of(gallery, file)) is not None:
                    gallery.link(file, picture)
                    _store_metadata(gallery, photo, picture)
            return outcome
        case TakenOver():
            photo_id, ids = gallery.add_photo(
                files[0], photo.record, photo.regions, photo.preview, photo.notes
            )
            store_quantised(gallery, photo_id, ids, photo.vectors, photo.residuals)
        case Combined():
            present = gallery.photo_with(photo.record.sha256)
            assert present is not None  # `_plan` has seen it in this transaction
            photo_id = present
            if photo.preview is not None:
                db.execute("insert or ignore into previews values (?, ?)", (photo_id, photo.preview))
            _combine_regions(gallery, photo_id, photo)
            if not stored_notes(db, gallery.path, photo_id):
                # Beside those of another version, they might say the same in other words.
                store_notes(db, photo_id, photo.notes)
    for file in files:
        gallery.link(file, photo_id)
    _store_metadata(gallery, photo, photo_id)
    for table, answers in (("verdicts", photo.verdicts), ("groundings", photo.groundings)):
        for answer in answers:
            _store_answer(gallery, table, photo_id, answer)
    for file in files:
        if is_raw(file.path):  # its picture may be in this gallery alone
            join_raw_files(db, file.path)
    return outcome


def _store_metadata(gallery: GalleryFile, photo: SourcePhoto, photo_id: int) -> None:
    """Store the metadata of the source's files that hold the photo here, unless they have some."""
    db = gallery.connection
    for path, stored in photo.metadata.items():
        if photo_in_file(gallery, path) == photo_id and not stored_sidecar(db, gallery.path, path)[0]:
            store_metadata(db, path, stored.metadata, stored.sidecar)


def _combine_regions(gallery: GalleryFile, photo_id: int, photo: SourcePhoto) -> None:
    """Add what a person or a data set has given to the photo in the source, unless it is there already."""
    stored = gallery.regions(photo_id)
    present = {(each.region.rle, each.region.origin) for each in stored}
    proposed = {e.region.rle: e.id for e in stored if e.region.origin is None and e.ordinal > 0}
    missing = []
    for place, region in enumerate(photo.regions):
        if region.origin is None or place == 0 or (region.rle, region.origin) in present:
            continue
        if region.is_human and region.rle in proposed:  # a person has confirmed the proposer's mask
            store_origin(gallery.connection, proposed.pop(region.rle), region.origin)
        else:
            missing.append(place)
    if missing:
        residuals = None if photo.residuals is None else photo.residuals[missing]
        added = [photo.regions[place] for place in missing]
        replace_quantised(gallery, photo_id, stored, stored, added, photo.vectors[missing], residuals)


def _store_answer(gallery: GalleryFile, table: str, photo_id: int, answer: JudgeAnswer) -> None:
    """Store a judge's answer, unless the gallery has one to the same question already."""
    db, question = gallery.connection, (answer.judge, answer.query)
    db.execute("insert or ignore into questions (judge, query) values (?, ?)", question)
    question_id = db.execute("select id from questions where judge = ? and query = ?", question).get
    row = (question_id, photo_id, *answer.values)
    marks = ", ".join("?" * len(row))
    db.execute(f"insert or ignore into {table} values ({marks})", row)  # noqa: S608 - constant

"""`matir merge`: another gallery's photos, with what is known of them, are taken over into this one.

The other gallery is only read, and nothing in it is believed: whatever is taken over is checked
first. Photos are the same when their files' SHA-256 are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from matir_cli import errors
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import encode_path
from matir_cli.maintenance.merge_source import (
    JudgeAnswer,
    SourcePhoto,
    read_source_photo,
    source_models,
    source_photo_ids,
)
from matir_cli.photos.discover import stat_file
from matir_cli.records import FileRecord
from matir_cli.search.index import seal_index, store_quantised

PHOTOS_AT_ONCE = 32
"""Photos to a transaction: few enough that other commands get their turn, and memory stays small."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A photo that was not here is here now."""

    path: Path


@dataclass(frozen=True, slots=True)
class Combined:
    """A photo that is here already: files, verdicts and a preview that were not known here were added."""

    path: Path


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A photo of which the other gallery knows no file but such as hold something else by now."""

    sha256: bytes


Outcome = TakenOver | Combined | LeftOut


def merge_gallery(gallery: GalleryFile, other: GalleryFile, *, dry_run: bool) -> Iterator[Outcome]:
    """Take over the photos of `other`, which `foreign.check_mergeable` has passed; one outcome a photo.

    `PHOTOS_AT_ONCE` photos are committed together. A run that is stopped leaves the gallery sound;
    running again goes on from there. Files that could not be indexed are not taken over.

    Args:
        dry_run: write nothing.

    Raises:
        ModelMismatch: the galleries were made with different models.
        GalleryDamaged: something in `other` cannot be right; what was committed before stays.
    """
    bound = source_models(other)
    for model in bound:
        gallery.check_model(model.role, model.identity)
    if dry_run:
        for photo_id in source_photo_ids(other):
            if (photo := read_source_photo(gallery, other, photo_id)) is not None:
                yield _plan(gallery, photo)[0]
        return
    known = {str(role) for (role,) in gallery.connection.execute("select role from models")}
    for model in bound:
        if model.role not in known:
            gallery.bind_model(model.role, model.identity, model.model_set)
    waiting = source_photo_ids(other)
    while together := list(islice(waiting, PHOTOS_AT_ONCE)):
        with gallery.atomic():
            read = (read_source_photo(gallery, other, photo_id) for photo_id in together)
            outcomes = [_take(gallery, photo) for photo in read if photo is not None]
        yield from outcomes
    seal_index(gallery)


def _plan(gallery: GalleryFile, photo: SourcePhoto) -> tuple[Outcome, list[FileRecord]]:
    """What is to become of the photo, and which of its files are new here."""
    here = gallery.photo_with(photo.record.sha256)
    files = [file for file in photo.files if _is_wanted(gallery, file, here)]
    if here is not None:
        return Combined((*gallery.paths(here), Path())[0]), files
    return (TakenOver(files[0].path) if files else LeftOut(photo.record.sha256)), files


def _is_wanted(gallery: GalleryFile, file: FileRecord, photo_id: int | None) -> bool:
    """Whether `file` is not known here; or it is, as holding something else, and the disk says otherwise."""
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


def _take(gallery: GalleryFile, photo: SourcePhoto) -> Outcome:
    """Write what is new of a photo; the caller holds the transaction."""
    outcome, files = _plan(gallery, photo)
    match outcome:
        case LeftOut():
            return outcome
        case TakenOver():
            photo_id, ids = gallery.add_photo(files[0], photo.record, photo.regions, photo.preview)
            store_quantised(gallery, photo_id, ids, photo.vectors)
        case Combined():
            found = gallery.photo_with(photo.record.sha256)
            assert found is not None  # `_plan` saw it in this transaction
            photo_id = found
            if photo.preview is not None:
                gallery.connection.execute(
                    "insert or ignore into previews values (?, ?)", (photo_id, photo.preview)
                )
    for file in files:
        gallery.link(file, photo_id)
    for table, said in (("verdicts", photo.verdicts), ("groundings", photo.groundings)):
        for item in said:
            _remember(gallery, table, photo_id, item)
    return outcome


def _remember(gallery: GalleryFile, table: str, photo_id: int, said: JudgeAnswer) -> None:
    """What a judge said here before stays as it is."""
    db, question = gallery.connection, (said.judge, said.query)
    db.execute("insert or ignore into questions (judge, query) values (?, ?)", question)
    question_id = db.execute("select id from questions where judge = ? and query = ?", question).get
    row = (question_id, photo_id, *said.values)
    marks = ", ".join("?" * len(row))
    db.execute(f"insert or ignore into {table} values ({marks})", row)  # noqa: S608 - constant

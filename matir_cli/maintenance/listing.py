"""`matir ls`: a gallery's photo files, and files that could not be indexed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import msgspec

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import stored_metadata
from matir_cli.gallery.files import merged_by_path, paged_rows
from matir_cli.gallery.notes import stored_notes
from matir_cli.gallery.paths import decode_path, is_gone
from matir_cli.gallery.union import GalleryReader, Member
from matir_cli.records import FileMetadata, Note


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that holds a photo."""

    path: Path
    id: int
    """Id of the photo; files with the same bytes share it."""
    width: int
    """Photo pixels."""
    height: int
    regions: int
    """Number of proposed regions; the whole photo is not counted."""
    bytes: int
    """Size of the file when it was indexed."""
    taken_at: str | None
    """ISO 8601, the camera's local time."""
    camera: str | None
    latitude: float | None
    """Degrees, north positive: as the file's sidecar says, else as the photo does."""
    longitude: float | None
    """Degrees, east positive; likewise."""
    rating: int | None
    """-1 (rejected) to 5; None: it has none, or has not been read."""
    keywords: tuple[str, ...]
    """Of the file and its sidecar."""
    notes: tuple[Note, ...] = ()
    """What could not be read of the file when it was indexed; usually nothing."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that could not be indexed."""

    path: Path
    reason: str
    bytes: int
    """Size of the file at the last attempt."""
    seen_at: str
    """Time of the last attempt: ISO 8601, UTC."""


Listed = TypeVar("Listed", ListedFile, SkippedFile)

_SELECT_FILES = (
    "select path, photo_id, width, height, "
    "(select count(*) from regions where regions.photo_id = photos.id and ordinal > 0), "
    "bytes, taken_at, camera, latitude, longitude from files join photos on photos.id = photo_id"
)

_JOIN_INCOMPLETE = "join (select distinct photo_id as noted from notes) on noted = photos.id"

_SELECT_SKIPPED = "select path, reason, bytes, seen_at from skipped"


def list_photo_files(
    gallery: GalleryReader, within: Path | None = None, *, missing: bool = False, incomplete: bool = False
) -> Iterator[ListedFile]:
    """Yield the files that hold photos, in order of path.

    Args:
        within: only files at or below this absolute path; None for all.
        missing: only files that no longer exist on disk.
        incomplete: only files of which a part could not be read.

    Raises:
        GalleryDamaged: a stored value has the wrong type.
    """
    select = f"{_SELECT_FILES} {_JOIN_INCOMPLETE}" if incomplete else _SELECT_FILES

    def read(member: Member) -> Iterator[ListedFile]:
        file = member.file
        for stored, photo_id, *rest, y, x in paged_rows(file, select, within):
            number = member.photo_to_union(file.checked_id(photo_id))
            if number is None:
                continue
            path = decode_path(stored)
            notes = stored_notes(file.connection, file.path, file.checked_id(photo_id))
            metadata = _metadata(file, path)
            position = (y, x) if metadata.latitude is None else (metadata.latitude, metadata.longitude)
            described = (*position, metadata.rating, metadata.keywords)
            listed = _checked(file, ListedFile, path, number, *rest, *described, notes)
            if not missing or is_gone(listed.path):
                yield listed

    return merged_by_path(gallery, read, lambda listed: listed.path)


def list_skipped_files(
    gallery: GalleryReader, within: Path | None = None, *, missing: bool = False
) -> Iterator[SkippedFile]:
    """Yield the files that could not be indexed, in order of path, each as the first gallery knows it.

    Arguments and errors as in `list_photo_files`.
    """

    def read(member: Member) -> Iterator[SkippedFile]:
        for path, *rest in paged_rows(member.file, _SELECT_SKIPPED, within):
            file = _checked(member.file, SkippedFile, decode_path(path), *rest)
            if not missing or is_gone(file.path):
                yield file

    last: Path | None = None
    for file in merged_by_path(gallery, read, lambda skipped: skipped.path):
        if file.path != last:
            last = file.path
            yield file


def _metadata(gallery: GalleryFile, path: Path) -> FileMetadata:
    try:
        stored = stored_metadata(gallery.connection, path)
    except ValueError as error:
        raise GalleryDamaged(gallery.path, f"{path}: {error}") from error
    return FileMetadata() if stored is None else stored.metadata


def _checked(gallery: GalleryFile, kind: type[Listed], path: Path, *rest: object) -> Listed:
    """Convert a row to a record, checking its types: the gallery may be untrusted."""
    names = (field.name for field in fields(kind))
    try:
        return msgspec.convert(dict(zip(names, (path, *rest), strict=True)), kind)
    except msgspec.ValidationError as error:
        raise GalleryDamaged(gallery.path, f"{path}: {error}") from error

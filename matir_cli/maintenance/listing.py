"""`matir ls`: a gallery's photo files, and files that could not be indexed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import msgspec

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import HAS_KEYWORDS, JOINED, listed_metadata
from matir_cli.gallery.files import KnownFile, known_files, merged_by_path, paged_rows
from matir_cli.gallery.notes import stored_notes
from matir_cli.gallery.paths import decode_path, is_gone
from matir_cli.gallery.union import GalleryReader, Member
from matir_cli.records import Note


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
    "select path, photo_id, width, height, "  # noqa: S608 - constants
    "(select count(*) from regions where regions.photo_id = photos.id and ordinal > 0), "
    "bytes, taken_at, camera, latitude, longitude, rating, own_latitude, own_longitude, "
    f"{HAS_KEYWORDS}, exists(select 1 from notes where notes.photo_id = photos.id) "
    f"from files join photos on photos.id = photo_id {JOINED}"
)

_JOIN_INCOMPLETE = "join (select distinct photo_id as noted from notes) on noted = photos.id"

_SELECT_SKIPPED = "select path, reason, bytes, seen_at from skipped"


_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in (ListedFile, SkippedFile)}


def list_paths(
    gallery: GalleryReader, within: Path | None = None, *, missing: bool = False
) -> Iterator[KnownFile]:
    """Yield the files that `list_photo_files` does, without what is known of them."""
    return (file for file in known_files(gallery, within) if not missing or is_gone(file.path))


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
        for stored, photo_id, *rest, y, x, rating, own_y, own_x, has_keywords, has_notes in paged_rows(
            file, select, within
        ):
            own_id = file.checked_id(photo_id)
            number = member.photo_to_union(own_id)
            if number is None:
                continue
            path = decode_path(stored)
            notes = stored_notes(file.connection, file.path, own_id) if has_notes else ()
            try:
                metadata = listed_metadata(
                    file.connection, stored, rating, own_y, own_x, has_keywords=bool(has_keywords)
                )
            except ValueError as error:
                raise GalleryDamaged(file.path, f"{path}: {error}") from error
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


def _checked(gallery: GalleryFile, kind: type[Listed], path: Path, *rest: object) -> Listed:
    """Convert a row to a record, checking its types: the gallery may be untrusted."""
    try:
        return msgspec.convert(dict(zip(_NAMES[kind], (path, *rest), strict=True)), kind)
    except msgspec.ValidationError as error:
        raise GalleryDamaged(gallery.path, f"{path}: {error}") from error

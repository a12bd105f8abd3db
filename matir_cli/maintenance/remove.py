"""`matir rm`: select the files to remove from a gallery, never from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.absence import AbsentFolder, missing_files, missing_skipped_files
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import (
    find_photo,
    is_photo_id,
    known_files,
    photo_in_file,
    skip_reason,
    skipped_files,
)
from matir_cli.gallery.raw_pairs import raw_files_of
from matir_cli.photos.discover import absolute_path


def files_of_photo(gallery: GalleryFile, name: str, *, all_copies: bool) -> tuple[Path, ...]:
    """Return the files to forget for `name`: a file, or all files of a photo given by id.

    With a picture go the raw files that share its photo.

    Args:
        name: id of a photo in digits, or a path, also of a file that could not be indexed.
        all_copies: for a path, select all files that hold the same photo.

    Raises:
        PhotoUnknown: the gallery knows no such photo or file.
    """
    path = absolute_path(Path(name))
    known = is_photo_id(name) or photo_in_file(gallery, path) is not None
    if not known and skip_reason(gallery, path) is not None:
        return (path,)
    photo_id = find_photo(gallery, name)
    if is_photo_id(name) or all_copies:
        return gallery.paths(photo_id)
    return (path, *raw_files_of(gallery.connection, path))


def files_below(gallery: GalleryFile, path: Path) -> Iterator[Path]:
    """Yield all files at or below the absolute `path` that the gallery knows.

    Files that hold photos come first, then files that could not be indexed.

    Raises:
        PhotoUnknown: there are none; raised at the end of the iteration.
    """
    is_empty = True
    for file in known_files(gallery, path):
        is_empty = False
        yield file.path
    for skipped in skipped_files(gallery, path):
        is_empty = False
        if photo_in_file(gallery, skipped) is None:
            yield skipped
    if is_empty:
        raise PhotoUnknown(gallery.path, str(path))


def missing_below(
    gallery: GalleryFile, path: Path | None, *, drop_all: bool
) -> Iterator[Path | AbsentFolder]:
    """Yield the deleted files at or below the absolute `path`, None for all, and the absent folders.

    Files that hold photos come first, then files that could not be indexed.

    Args:
        drop_all: yield the files in absent folders instead of these folders.
    """
    yield from missing_files(gallery, path, all_files=drop_all)
    for item in missing_skipped_files(gallery, path, all_files=drop_all):
        if isinstance(item, Path) and photo_in_file(gallery, item) is None:
            yield item

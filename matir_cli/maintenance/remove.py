"""`matir rm`: files, photos and what was noted of unreadable files leave the gallery, never the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import find_photo, is_photo_id, known_files, skip_reason, skipped_files
from matir_cli.photos.discover import absolute_path


def files_of_photo(gallery: GalleryFile, name: str, *, all_copies: bool) -> tuple[Path, ...]:
    """The files to forget for `name`: of a photo's id all that hold it, of a file itself alone.

    Args:
        all_copies: of a file, all that hold the same photo.

    Raises:
        PhotoUnknown: the gallery knows no such photo or file.
    """
    path = absolute_path(Path(name))
    if not is_photo_id(name) and skip_reason(gallery, path) is not None:
        return (path,)
    photo_id = find_photo(gallery, name)
    if is_photo_id(name) or all_copies:
        return gallery.paths(photo_id)
    return (path,)


def files_below(gallery: GalleryFile, path: Path) -> Iterator[Path]:
    """All files at or below the absolute `path` that the gallery knows anything of.

    Raises:
        PhotoUnknown: there is none.
    """
    found = False
    for file in known_files(gallery, path):
        found = True
        yield file.path
    for skipped in skipped_files(gallery, path):
        found = True
        yield skipped
    if not found:
        raise PhotoUnknown(gallery.path, str(path))

"""`matir rm`: files, photos and what was noted of unreadable files leave the gallery, never the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matir_cli import files
from matir_cli.errors import PhotoUnknown
from matir_cli.gallery import GalleryFile


def named(gallery: GalleryFile, name: str, *, all_copies: bool) -> tuple[Path, ...]:
    """The files to forget for `name`: of a photo's id all that hold it, of a file itself alone.

    Args:
        all_copies: of a file, all that hold the same photo.

    Raises:
        PhotoUnknown: the gallery knows no such photo or file.
    """
    path = files.absolute(Path(name))
    if not files.is_id(name) and files.skip_reason(gallery, path) is not None:
        return (path,)
    photo_id = files.photo_named(gallery, name)
    if files.is_id(name) or all_copies:
        return gallery.paths(photo_id)
    return (path,)


def below(gallery: GalleryFile, path: Path) -> Iterator[Path]:
    """All files at or below the absolute `path` that the gallery knows anything of.

    Raises:
        PhotoUnknown: there is none.
    """
    found = False
    for file in files.known(gallery, path):
        found = True
        yield file.path
    for skipped in files.skipped(gallery, path):
        found = True
        yield skipped
    if not found:
        raise PhotoUnknown(gallery.path, str(path))

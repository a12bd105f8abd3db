"""Missing files: deleted ones, and those whose volume may not be mounted.

A volume that is not mounted leaves an empty folder, another volume in its place or a link to nothing, and
every file that was on it seems to be deleted. So a folder is taken as absent, and not its files as
deleted, if the gallery knows at least `LEAST_FILES` files in it and none of them exists. A folder that is a
link to nothing, or the root of a volume, is taken as absent with its only file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import count_files_below, known_files, skipped_files
from matir_cli.gallery.paths import is_gone

Item = TypeVar("Item")

LEAST_FILES = 2
"""Number of known files from which on a folder without any of them is absent; one is a deleted file."""


@dataclass(frozen=True, slots=True)
class AbsentFolder:
    """A folder of whose known files none exists: they may be deleted, or their volume not mounted."""

    path: Path
    """The deepest folder that holds all of these files."""
    files: int
    """Number of files that the gallery knows in it."""


class AbsenceCheck:
    """Decides for missing files, which come in order of path, if a folder that holds them is absent.

    Only the decisions about the folders of the current file are kept, so memory does not grow with the
    number of files.
    """

    def __init__(self, gallery: GalleryFile, top: Path) -> None:
        """Look at folders at or below the absolute `top`; if that is a file, at its folder."""
        self._gallery = gallery
        self._top = top
        self._decided: list[tuple[Path, AbsentFolder | None]] = []

    def absent_folder(self, path: Path) -> AbsentFolder | None:
        """Return the topmost absent folder that holds the missing file at `path`, None if there is none."""
        while self._decided and not path.is_relative_to(self._decided[-1][0]):
            self._decided.pop()
        for folder in _folders(path, self._top)[len(self._decided) :]:
            if self._decided and self._decided[-1][1] is not None:
                break
            self._decided.append((folder, self._examine(folder)))
        return self._decided[-1][1] if self._decided else None

    def _examine(self, folder: Path) -> AbsentFolder | None:
        """Return `folder` as absent, None if it is not."""
        count = 0
        common = ""
        for known in known_files(self._gallery, folder):
            if not is_gone(known.path):
                return None
            parent = os.fspath(known.path.parent)
            common = os.path.commonpath([common, parent]) if count else parent
            count += 1
        if count >= LEAST_FILES or (count and self._is_replaced(folder)):
            return AbsentFolder(Path(common), count)
        return None

    def _is_replaced(self, folder: Path) -> bool:
        """Return True if a folder without known files is a link to nothing, or a volume below the top.

        The volume that holds all files is none of these: that it is mounted says nothing.
        """
        try:
            if folder.is_symlink():
                return not folder.exists()
            mounted = folder.stat().st_dev != folder.parent.stat().st_dev
        except OSError:
            return False
        return mounted and count_files_below(self._gallery, self._top) > count_files_below(
            self._gallery, folder
        )


def absent_folders(gallery: GalleryFile, within: Path) -> Iterator[AbsentFolder]:
    """Yield the absent folders at or below the absolute path `within`, in order of path.

    Hardly more than one file per folder is looked for on disk if most of them exist.
    """
    check = AbsenceCheck(gallery, within)
    last: AbsentFolder | None = None
    alive: Path | None = None
    for known in known_files(gallery, within):
        if known.path.parent == alive:
            continue
        if not is_gone(known.path):
            alive = known.path.parent
            continue
        absent = check.absent_folder(known.path)
        if absent is not None and absent != last:
            last = absent
            yield absent


def missing_files(
    gallery: GalleryFile, within: Path | None = None, *, all_files: bool = False
) -> Iterator[Path | AbsentFolder]:
    """Return the photo files that were deleted, in order of path, and once each folder that is absent.

    Args:
        within: only files at or below this absolute path; None for all.
        all_files: yield the files in absent folders instead of these folders.
    """
    return _missing(gallery, (file.path for file in known_files(gallery, within)), within, all_files)


def missing_skipped_files(
    gallery: GalleryFile, within: Path | None = None, *, all_files: bool = False
) -> Iterator[Path | AbsentFolder]:
    """Return the files that could not be indexed and were deleted; arguments as in `missing_files`."""
    return _missing(gallery, skipped_files(gallery, within), within, all_files)


def _missing(
    gallery: GalleryFile, paths: Iterable[Path], within: Path | None, all_files: bool
) -> Iterator[Path | AbsentFolder]:
    missing = filter(is_gone, paths)
    if all_files:
        yield from missing
    else:
        yield from without_absent(gallery, missing, Path, within)


def without_absent(
    gallery: GalleryFile, missing: Iterable[Item], path_of: Callable[[Item], Path], within: Path | None
) -> Iterator[Item | AbsentFolder]:
    """Yield missing files, replacing those in an absent folder by that folder, once.

    Args:
        missing: values that stand for files that do not exist, in order of path.
        path_of: returns the path of such a file.
        within: the folder at or below which all of them are; None for any.
    """
    check = AbsenceCheck(gallery, Path(os.sep) if within is None else within)
    last: AbsentFolder | None = None
    for item in missing:
        absent = check.absent_folder(path_of(item))
        if absent is None:
            yield item
        elif absent != last:
            last = absent
            yield absent


def _folders(path: Path, top: Path) -> list[Path]:
    """Return the folders that hold `path`, from `top` downwards; the parent alone if `path` is `top`."""
    above = [folder for folder in path.parents if folder.is_relative_to(top)]
    return above[::-1] or [path.parent]

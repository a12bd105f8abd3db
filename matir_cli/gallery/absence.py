"""Missing files: deleted ones, and those whose volume may not be mounted.

A volume that is not mounted leaves an empty folder, another volume in its place or a link to nothing, and
every file that was on it seems to be deleted. So a folder is taken as absent, and not its files as
deleted, if the gallery knows at least `LEAST_FILES` files in it and none of them exists. A folder that is a
link to nothing, or the root of a volume, is taken as absent with its only file.

Another volume may stay in the place of the first one, and files of it be added, so that some files of the
folder exist from then on. Hence a folder that was found absent is remembered in the table `skipped`, and its
missing files are kept until the user drops them, or until none of its files is missing. (Numbers of devices
would not tell volumes apart: removable ones have others after each start of the system.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import (
    count_files_below,
    forget_skipped,
    known_files,
    remember_inaccessible,
    skipped_files,
)
from matir_cli.gallery.paths import decode_path, is_gone
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import GalleryReader, files_of

Item = TypeVar("Item")

WAS_ABSENT = "none of its known files existed: its volume may not have been mounted"
"""Reason in the table `skipped` by which an absent folder is remembered."""

LEAST_FILES = 2
"""Number of known files from which on a folder without any of them is absent; one is a deleted file."""


@dataclass(frozen=True, slots=True)
class AbsentFolder:
    """A folder of whose known files none exists: they may be deleted, or their volume not mounted."""

    path: Path
    """The deepest folder that holds all of these files."""
    files: int
    """Number of files that the gallery knows in it and that do not exist."""
    others: int = 0
    """Number of files that exist in a folder that was absent before, perhaps on another volume."""


class AbsenceCheck:
    """Decides for missing files, which come in order of path, if a folder that holds them is absent.

    Only the decisions about the folders of the current file are kept, so memory does not grow with the
    number of files.
    """

    def __init__(self, gallery: GalleryReader, top: Path) -> None:
        """Look at folders at or below the absolute `top`; if that is a file, at its folder."""
        self._gallery = gallery
        self._top = top
        self._decided: list[tuple[Path, AbsentFolder | None]] = []
        self._remembered = remembered_absent(gallery)
        above = [folder for folder in top.parents if folder in self._remembered]
        self._above = self._examine(above[-1]) if above else None

    def absent_folder(self, path: Path) -> AbsentFolder | None:
        """Return the topmost absent folder that holds the missing file at `path`, None if there is none."""
        if self._above is not None:
            return self._above
        while self._decided and not path.is_relative_to(self._decided[-1][0]):
            self._decided.pop()
        for folder in _folders(path, self._top)[len(self._decided) :]:
            if self._decided and self._decided[-1][1] is not None:
                break
            self._decided.append((folder, self._examine(folder)))
        return self._decided[-1][1] if self._decided else None

    def _examine(self, folder: Path) -> AbsentFolder | None:
        """Return `folder` as absent, None if it is not."""
        count = others = 0
        common = ""
        for known in known_files(self._gallery, folder):
            if not is_gone(known.path):
                if folder not in self._remembered:
                    return None
                others += 1
                continue
            parent = os.fspath(known.path.parent)
            common = os.path.commonpath([common, parent]) if count else parent
            count += 1
        if count and others:
            return AbsentFolder(folder, count, others)
        is_remembered = folder in self._remembered
        if count >= LEAST_FILES or (count and (is_remembered or self._is_replaced(folder))):
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


def remembered_absent(gallery: GalleryReader) -> set[Path]:
    """Return the folders that were found absent and are not complete again."""
    found = set[Path]()
    for file in files_of(gallery):
        try:
            with translated(file.path):
                rows = file.connection.execute("select path from skipped where reason = ?", (WAS_ABSENT,))
                found |= {decode_path(path) for (path,) in rows}
        except ValueError as error:
            raise GalleryDamaged(file.path, str(error)) from error
    return found


def remember_absent(gallery: GalleryFile, folders: Iterable[Path], roots: Sequence[Path] = ()) -> None:
    """Remember the folders that were found absent, and forget that others were.

    Args:
        folders: absolute paths.
        roots: absolute paths at or below which `folders` are all; only there others are forgotten.
    """
    found = set(folders)
    with gallery.atomic():
        before = remembered_absent(gallery)
        forget_skipped(
            gallery,
            (path for path in before - found if any(path.is_relative_to(root) for root in roots)),
        )
        for path in sorted(found - before):
            remember_inaccessible(gallery, path, WAS_ABSENT)


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
    remembered = remembered_absent(gallery)
    paths = (path for path in skipped_files(gallery, within) if path not in remembered)
    return _missing(gallery, paths, within, all_files)


def _missing(
    gallery: GalleryFile, paths: Iterable[Path], within: Path | None, all_files: bool
) -> Iterator[Path | AbsentFolder]:
    missing = filter(is_gone, paths)
    if all_files:
        yield from missing
    else:
        yield from without_absent(gallery, missing, Path, within)


def without_absent(
    gallery: GalleryReader, missing: Iterable[Item], path_of: Callable[[Item], Path], within: Path | None
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


def still_missing(
    gallery: GalleryFile, roots: Sequence[Path] = (Path(os.sep),), *, all_files: bool = False
) -> Callable[[Sequence[Path]], list[Path]]:
    """Return a function that decides anew which of some files are deleted: `forget_files` asks it.

    Since the files were found missing, they may have come back, another command may have added them, or
    their volume may have been unmounted. The answer holds as long as the caller's write transaction.

    Args:
        roots: absolute paths at or below which the files are.
        all_files: files in absent folders count as deleted.
    """

    def confirm(batch: Sequence[Path]) -> list[Path]:
        gone = [path for path in batch if is_gone(path)]
        if all_files:
            return gone
        # Folders are looked at after the files: one that still has a file was there all the time.
        checks = {root: AbsenceCheck(gallery, root) for root in roots}
        return [
            path
            for path in gone
            if all(
                check.absent_folder(path) is None
                for root, check in checks.items()
                if path.is_relative_to(root)
            )
        ]

    return confirm


def _folders(path: Path, top: Path) -> list[Path]:
    """Return the folders that hold `path`, from `top` downwards; the parent alone if `path` is `top`."""
    above = [folder for folder in path.parents if folder.is_relative_to(top)]
    return above[::-1] or [path.parent]

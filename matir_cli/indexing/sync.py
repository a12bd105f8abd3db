"""`matir sync`: bring a gallery up to date with folders on disk.

New and changed files are indexed as by `add`, then files that no longer exist are removed. In this
order a renamed file is recognised, and its photo never leaves the gallery. Files in a folder that may
be on a volume that is not mounted are kept (`gallery.absence`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path

from matir_cli.errors import FolderVanished, PhotoUnreadable
from matir_cli.gallery.absence import (
    AbsentFolder,
    absent_folders,
    missing_files,
    missing_skipped_files,
    remember_absent,
    still_missing,
)
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import count_files_below, forget_files, known_files, photo_in_file, skip_reason
from matir_cli.gallery.paths import is_gone
from matir_cli.indexing.file_state import FileCounts
from matir_cli.indexing.outcomes import Outcome, Skipped
from matir_cli.indexing.pipeline import IndexingModels, add_photos, pending_files
from matir_cli.photos.discover import ALL_FILES, FolderRules, absolute_path, stat_file
from matir_cli.search.index import seal_index


class ChangeKind(Enum):
    """Kind of a difference between disk and gallery; the value marks it in listings."""

    NEW = "+"
    CHANGED = "~"
    GONE = "-"
    UNREADABLE = "!"
    METADATA = "*"
    """The file has not changed, but its sidecar has, or its rating and keywords have not been read."""
    RETRIED = "?"
    """The file could not be indexed before and will be tried again."""
    KEPT = "="
    """No known file of this folder exists, or none did before: its missing files are kept."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file, or an absent folder, whose state on disk differs from the gallery's."""

    mark: ChangeKind
    path: Path
    reason: str | None = None
    """Reason why the file cannot be read, or could not be; None if it can."""
    absent: AbsentFolder | None = None
    """The folder that is kept."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The file no longer exists on disk and was removed from the gallery."""

    path: Path


SyncOutcome = Outcome | Dropped | AbsentFolder
"""An absent folder is kept with its files."""


def folder_roots(paths: Iterable[Path]) -> list[Path]:
    """Return `paths` as absolute paths, sorted, without those that lie below another one."""
    roots: list[Path] = []
    for path in sorted({absolute_path(path) for path in paths}):  # a folder sorts before its content
        if not any(path.is_relative_to(root) for root in roots):
            roots.append(path)
    return roots


def check_folders(gallery: GalleryFile, roots: Sequence[Path], *, drop_all: bool) -> None:
    """Check that some of the known files below each root exist; otherwise its volume may be missing.

    A file that is itself a root may be missing as long as its folder exists.

    Args:
        roots: as returned by `folder_roots`.
        drop_all: accept folders of which no known file is left.

    Raises:
        FolderVanished: none of the files known below a root exists, or the root itself is unknown
            and does not exist.
    """
    for path in roots:
        if not is_gone(path) and path.is_file():
            continue
        if photo_in_file(gallery, path) is not None and path.parent.is_dir():
            continue
        known = known_files(gallery, path)
        if all(is_gone(file.path) for file in known):
            count = count_files_below(gallery, path)
            if (count and not drop_all) or (not count and is_gone(path)):
                raise FolderVanished(path, count)


def list_changes(
    gallery: GalleryFile,
    roots: Sequence[Path],
    passed_over: Counter[str] | None = None,
    *,
    drop_all: bool = False,
    rules: FolderRules = ALL_FILES,
    fill_metadata: bool = False,
) -> Iterator[FileChange]:
    """Yield the changes that `sync_folders` would make, new and changed files first.

    Only names, sizes and times are read. A renamed file is therefore listed as gone and as new, and a
    renamed folder as new files and as a folder that is kept.

    Args:
        roots: as returned by `folder_roots`.
        passed_over: as in `find_photo_files`.
        drop_all: as in `sync_folders`.
        rules: as in `find_photo_files`.
        fill_metadata: as in `add_photos`.
    """
    for item in pending_files(gallery, roots, passed_over, rules, fill_metadata=fill_metadata):
        if isinstance(item, Skipped):
            if not is_gone(item.path):
                yield FileChange(ChangeKind.UNREADABLE, item.path, item.reason)
        elif (reason := skip_reason(gallery, item)) is not None:
            yield FileChange(ChangeKind.RETRIED, item, reason)
        elif photo_in_file(gallery, item) is not None:
            kind = ChangeKind.METADATA if _is_unchanged(gallery, item) else ChangeKind.CHANGED
            yield FileChange(kind, item)
        else:
            yield FileChange(ChangeKind.NEW, item)
    for gone in gone_files(gallery, roots, drop_all=drop_all):
        if isinstance(gone, AbsentFolder):
            yield FileChange(ChangeKind.KEPT, gone.path, absent=gone)
        else:
            yield FileChange(ChangeKind.GONE, gone)


def _is_unchanged(gallery: GalleryFile, path: Path) -> bool:
    try:
        return gallery.is_unchanged(stat_file(path))
    except PhotoUnreadable:
        return False


def gone_files(
    gallery: GalleryFile, roots: Iterable[Path], *, drop_all: bool
) -> Iterator[Path | AbsentFolder]:
    """Yield the photo files known at or below `roots` that were deleted, and the folders that are absent.

    Args:
        drop_all: yield the files in absent folders instead of these folders.
    """
    for path in roots:
        yield from missing_files(gallery, path, all_files=drop_all)


def sync_folders(
    gallery: GalleryFile,
    roots: Sequence[Path],
    models: IndexingModels,
    *,
    previews: bool,
    drop_all: bool = False,
    passed_over: Counter[str] | None = None,
    rules: FolderRules = ALL_FILES,
    fill_metadata: bool = False,
    expected: FileCounts | None = None,
) -> Generator[SyncOutcome, None, None]:
    """Add new files, update changed ones and drop missing ones; yields one outcome per file.

    A folder of whose known files none exists is kept with all its files, and yielded once. So are missing
    files of a folder that was kept by an earlier run, until `drop_all`, or until no file of it is missing.

    Args:
        roots: as returned by `folder_roots`, and passed by `check_folders`.
        previews: store a preview of each added photo.
        drop_all: drop the files in such folders as well.
        passed_over: as in `find_photo_files`.
        rules: as in `find_photo_files`. Files that are left out stay in the gallery as they are, as long
            as they exist.
        fill_metadata: as in `add_photos`.
        expected: as in `add_photos`; files that are dropped are not counted.

    Raises:
        MatirError: an error that ends the run, as in `add_photos`; the next run continues from there.
    """
    present = [path for path in roots if not is_gone(path)]
    # Before new files are added: those of another volume, mounted in its place, do not make it present.
    kept = _KeptFolders(() if drop_all else chain.from_iterable(absent_folders(gallery, r) for r in roots))
    yield from add_photos(
        gallery,
        present,
        models,
        previews=previews,
        passed_over=passed_over,
        rules=rules,
        fill_metadata=fill_metadata,
        expected=expected,
    )
    dropped = False
    confirm = still_missing(gallery, roots, all_files=drop_all)
    gone = kept.leave_out(gone_files(gallery, roots, drop_all=drop_all))
    for path in forget_files(gallery, gone, confirm):
        dropped = True
        yield Dropped(path)
    yield from kept.met
    for root in roots:
        skipped = kept.leave_out(missing_skipped_files(gallery, root, all_files=drop_all))
        for _ in forget_files(gallery, skipped, confirm):
            pass  # forgetting a file that held no photo is not an outcome
    remember_absent(gallery, (folder.path for folder in kept.met), roots)
    if dropped:
        seal_index(gallery)


class _KeptFolders:
    """Folders that were absent when a run began, or that are found absent at its end."""

    def __init__(self, absent: Iterable[AbsentFolder]) -> None:
        self._absent = {folder.path: folder for folder in absent}
        self._met: dict[Path, AbsentFolder] = {}

    @property
    def met(self) -> list[AbsentFolder]:
        """Those with files that `leave_out` has met; a renamed folder has none left."""
        return [*self._met.values()]

    def leave_out(self, missing: Iterable[Path | AbsentFolder]) -> Iterator[Path]:
        """Yield the missing files that are in none of the folders."""
        for item in missing:
            if isinstance(item, AbsentFolder):
                folder = self._folder_of(item.path / "file") or item
                self._met.setdefault(folder.path, folder)
            elif (absent := self._folder_of(item)) is not None:
                self._met.setdefault(absent.path, absent)
            else:
                yield item

    def _folder_of(self, path: Path) -> AbsentFolder | None:
        found = (self._absent.get(folder) for folder in path.parents)
        return next((folder for folder in found if folder is not None), None)

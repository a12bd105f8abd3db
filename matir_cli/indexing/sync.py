"""`matir sync`: bring a gallery up to date with folders on disk.

New and changed files are indexed as by `add`, then files that no longer exist are removed. In this
order a renamed file is recognised, and its photo never leaves the gallery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from matir_cli.errors import FolderVanished
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import (
    count_files_below,
    forget_files,
    known_files,
    photo_in_file,
    skip_reason,
    skipped_files,
)
from matir_cli.gallery.paths import is_gone
from matir_cli.indexing.pipeline import IndexingModels, Outcome, Skipped, add_photos, pending_files
from matir_cli.photos.discover import absolute_path
from matir_cli.search.index import seal_index


class ChangeKind(Enum):
    """Kind of a difference between disk and gallery; the value marks it in listings."""

    NEW = "+"
    CHANGED = "~"
    GONE = "-"
    UNREADABLE = "!"
    RETRIED = "?"
    """The file could not be indexed before and will be tried again."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file whose state on disk differs from the gallery's."""

    mark: ChangeKind
    path: Path
    reason: str | None = None
    """Reason why the file cannot be read, or could not be; None if it can."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The file no longer exists on disk and was removed from the gallery."""

    path: Path


SyncOutcome = Outcome | Dropped


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
    gallery: GalleryFile, roots: Sequence[Path], passed_over: Counter[str] | None = None
) -> Iterator[FileChange]:
    """Yield the changes that `sync_folders` would make, new and changed files first.

    Only names, sizes and times are read. A renamed file is therefore listed as gone and as new.

    Args:
        roots: as returned by `folder_roots`.
        passed_over: as in `find_photo_files`.
    """
    for item in pending_files(gallery, roots, passed_over):
        if isinstance(item, Skipped):
            if not is_gone(item.path):
                yield FileChange(ChangeKind.UNREADABLE, item.path, item.reason)
        elif photo_in_file(gallery, item) is not None:
            yield FileChange(ChangeKind.CHANGED, item)
        elif (reason := skip_reason(gallery, item)) is not None:
            yield FileChange(ChangeKind.RETRIED, item, reason)
        else:
            yield FileChange(ChangeKind.NEW, item)
    for path in gone_files(gallery, roots):
        yield FileChange(ChangeKind.GONE, path)


def gone_files(gallery: GalleryFile, roots: Iterable[Path]) -> Iterator[Path]:
    """Yield the photo files that the gallery knows at or below `roots` and that no longer exist."""
    for path in roots:
        yield from (file.path for file in known_files(gallery, path) if is_gone(file.path))


def sync_folders(
    gallery: GalleryFile,
    roots: Sequence[Path],
    models: IndexingModels,
    *,
    previews: bool,
    passed_over: Counter[str] | None = None,
) -> Generator[SyncOutcome, None, None]:
    """Add new files, update changed ones and drop missing ones; yields one outcome per file.

    Args:
        roots: as returned by `folder_roots`, and passed by `check_folders`.
        previews: store a preview of each added photo.
        passed_over: as in `find_photo_files`.

    Raises:
        MatirError: an error that ends the run, as in `add_photos`; the next run continues from there.
    """
    present = [path for path in roots if not is_gone(path)]
    yield from add_photos(gallery, present, models, previews=previews, passed_over=passed_over)
    dropped = False
    for path in forget_files(gallery, gone_files(gallery, roots)):
        dropped = True
        yield Dropped(path)
    for path in roots:
        missing = (skipped for skipped in skipped_files(gallery, path) if is_gone(skipped))
        for _ in forget_files(gallery, missing):
            pass  # forgetting a file that held no photo is not an outcome
    if dropped:
        seal_index(gallery)

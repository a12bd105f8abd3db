"""`matir sync`: a gallery is brought to what some folders hold now.

New and changed files are indexed as `add` does it, then files that are gone are taken out.
In this order a renamed file is recognised, and its photo never leaves the gallery.
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
    """What becomes of a file."""

    NEW = "+"
    CHANGED = "~"
    GONE = "-"
    UNREADABLE = "!"
    RETRIED = "?"
    """It could not be indexed before."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that is not in the gallery as it is on disk."""

    mark: ChangeKind
    path: Path
    reason: str | None = None
    """Why it cannot be read, or could not be; None where it can."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The file is gone from disk, and now from the gallery."""

    path: Path


SyncOutcome = Outcome | Dropped


def folder_roots(given: Iterable[Path]) -> list[Path]:
    """The absolute paths of `given`, without those that lie below another one."""
    kept: list[Path] = []
    for path in sorted({absolute_path(path) for path in given}):  # a folder comes before what is in it
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def check_folders(gallery: GalleryFile, within: Sequence[Path], *, drop_all: bool) -> None:
    """Make sure that what is gone below each path is a part of it, not all: then its volume is away.

    A file that is named itself may be gone as long as its folder is there.

    Args:
        drop_all: let folders pass that hold none of their files any more.

    Raises:
        FolderVanished: none of the files known below a path is there, or there is no such path.
    """
    for path in within:
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
    gallery: GalleryFile, within: Sequence[Path], passed_over: Counter[str] | None = None
) -> Iterator[FileChange]:
    """What `sync` would do, new and changed files first; nothing is read but names, sizes and times.

    A renamed file is both gone and new here: only its bytes tell.
    """
    for item in pending_files(gallery, within, passed_over):
        if isinstance(item, Skipped):
            if not is_gone(item.path):
                yield FileChange(ChangeKind.UNREADABLE, item.path, item.reason)
        elif photo_in_file(gallery, item) is not None:
            yield FileChange(ChangeKind.CHANGED, item)
        elif (reason := skip_reason(gallery, item)) is not None:
            yield FileChange(ChangeKind.RETRIED, item, reason)
        else:
            yield FileChange(ChangeKind.NEW, item)
    for path in gone_files(gallery, within):
        yield FileChange(ChangeKind.GONE, path)


def gone_files(gallery: GalleryFile, within: Iterable[Path]) -> Iterator[Path]:
    """The files at or below the paths that hold photos of the gallery and are no longer on disk."""
    for path in within:
        yield from (file.path for file in known_files(gallery, path) if is_gone(file.path))


def sync_folders(
    gallery: GalleryFile,
    within: Sequence[Path],
    models: IndexingModels,
    *,
    previews: bool,
    passed_over: Counter[str] | None = None,
) -> Generator[SyncOutcome, None, None]:
    """Add, update and drop; one outcome a file. The paths are those of `roots`, and were `check`ed.

    Raises:
        MatirError: what ends the run, as in `add`; running again goes on from there.
    """
    there = [path for path in within if not is_gone(path)]
    yield from add_photos(gallery, there, models, previews=previews, passed_over=passed_over)
    dropped = False
    for path in forget_files(gallery, gone_files(gallery, within)):
        dropped = True
        yield Dropped(path)
    for path in within:
        noted = (note for note in skipped_files(gallery, path) if is_gone(note))
        for _ in forget_files(gallery, noted):
            pass  # what was remembered of a file that could not be read is no photo, and no outcome
    if dropped:
        seal_index(gallery)

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

from matir_cli import add as pipeline
from matir_cli import files, paths, search
from matir_cli.errors import FolderVanished
from matir_cli.gallery import GalleryFile


class Mark(Enum):
    """What becomes of a file."""

    NEW = "+"
    CHANGED = "~"
    GONE = "-"
    UNREADABLE = "!"
    RETRIED = "?"
    """It could not be indexed before."""


@dataclass(frozen=True, slots=True)
class Change:
    """A file that is not in the gallery as it is on disk."""

    mark: Mark
    path: Path
    reason: str | None = None
    """Why it cannot be read, or could not be; None where it can."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The file is gone from disk, and now from the gallery."""

    path: Path


Outcome = pipeline.Outcome | Dropped


def roots(given: Iterable[Path]) -> list[Path]:
    """The absolute paths of `given`, without those that lie below another one."""
    kept: list[Path] = []
    for path in sorted({files.absolute(path) for path in given}):  # a folder comes before what is in it
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def check(gallery: GalleryFile, within: Sequence[Path], *, drop_all: bool) -> None:
    """Make sure that what is gone below each path is a part of it, not all: then its volume is away.

    A file that is named itself may be gone as long as its folder is there.

    Args:
        drop_all: let folders pass that hold none of their files any more.

    Raises:
        FolderVanished: none of the files known below a path is there, or there is no such path.
    """
    for path in within:
        if not paths.is_gone(path) and path.is_file():
            continue
        if files.photo_at(gallery, path) is not None and path.parent.is_dir():
            continue
        known = files.known(gallery, path)
        if all(paths.is_gone(file.path) for file in known):
            count = files.count_below(gallery, path)
            if (count and not drop_all) or (not count and paths.is_gone(path)):
                raise FolderVanished(path, count)


def changes(
    gallery: GalleryFile, within: Sequence[Path], passed_over: Counter[str] | None = None
) -> Iterator[Change]:
    """What `sync` would do, new and changed files first; nothing is read but names, sizes and times.

    A renamed file is both gone and new here: only its bytes tell.
    """
    for item in pipeline.pending(gallery, within, passed_over):
        if isinstance(item, pipeline.Skipped):
            if not paths.is_gone(item.path):
                yield Change(Mark.UNREADABLE, item.path, item.reason)
        elif files.photo_at(gallery, item) is not None:
            yield Change(Mark.CHANGED, item)
        elif (reason := files.skip_reason(gallery, item)) is not None:
            yield Change(Mark.RETRIED, item, reason)
        else:
            yield Change(Mark.NEW, item)
    for path in gone(gallery, within):
        yield Change(Mark.GONE, path)


def gone(gallery: GalleryFile, within: Iterable[Path]) -> Iterator[Path]:
    """The files at or below the paths that hold photos of the gallery and are no longer on disk."""
    for path in within:
        yield from (file.path for file in files.known(gallery, path) if paths.is_gone(file.path))


def sync(
    gallery: GalleryFile,
    within: Sequence[Path],
    models: pipeline.Models,
    *,
    previews: bool,
    passed_over: Counter[str] | None = None,
) -> Generator[Outcome, None, None]:
    """Add, update and drop; one outcome a file. The paths are those of `roots`, and were `check`ed.

    Raises:
        MatirError: what ends the run, as in `add`; running again goes on from there.
    """
    there = [path for path in within if not paths.is_gone(path)]
    yield from pipeline.add(gallery, there, models, previews=previews, passed_over=passed_over)
    dropped = False
    for path in files.forget(gallery, gone(gallery, within)):
        dropped = True
        yield Dropped(path)
    for path in within:
        noted = (note for note in files.skipped(gallery, path) if paths.is_gone(note))
        for _ in files.forget(gallery, noted):
            pass  # what was remembered of a file that could not be read is no photo, and no outcome
    if dropped:
        search.seal(gallery)

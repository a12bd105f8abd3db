"""`matir split`: a gallery's photos, with everything known of them, divided among several new galleries.

It is the way back from `matir merge`, whose code copies the photos.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeAlias

from matir_cli.atomic_write import atomic_write
from matir_cli.errors import GalleryDamaged, GalleryEmpty, OutputExists, RoomTooSmall
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import decode_path, path_order
from matir_cli.gallery.read_only import photo_ids
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.maintenance.many import PATTERN
from matir_cli.maintenance.merge import copy_photos
from matir_cli.maintenance.merge_saved import merge_saved_searches
from matir_cli.maintenance.merge_source import source_models
from matir_cli.progress import Advance, ProgressObserver, no_progress
from matir_cli.search.index import seal_index

SplitKey: TypeAlias = Literal["order", "date", "folder"]
"""Property that photos of one part share: they were added or taken one after the other, or share folders."""


@dataclass(frozen=True, slots=True)
class Part:
    """A new gallery."""

    path: Path
    photos: int


def split_gallery(
    source: GalleryFile,
    folder: Path,
    count: int,
    key: SplitKey,
    *,
    force: bool = False,
    progress: ProgressObserver = no_progress,
) -> list[Part]:
    """Divide the photos of `source` among `count` galleries of about the same number of photos in `folder`.

    Each has the models, the saved searches with those of its photos that they have returned, and the cached
    answers about its photos. Records of files that could not be indexed are not copied. The galleries get
    their names when all are complete. A part that would be empty is not written.

    Args:
        source: a gallery that is only read.
        folder: is created if it does not exist.
        force: replace galleries of the same names.

    Returns:
        The new galleries, in order of name.

    Raises:
        GalleryEmpty: there is no photo.
        OutputExists: the folder holds galleries, or others than those to replace.
        RoomTooSmall: the disk lacks the room; nothing was written.
        OutputError: a file cannot be written.
        GalleryDamaged: a stored value is impossible.
    """
    with translated(source.path):
        parts = [ids for ids in _divide(_ordered(source, key), count, whole_groups=key == "folder") if ids]
    if not parts:
        raise GalleryEmpty(source.path)
    width = len(str(len(parts)))
    names = [folder / f"{source.path.stem}-{number:0{width}}.db" for number in range(1, len(parts) + 1)]
    # Others would be searched together with the new ones.
    if existing := sorted({*folder.glob(PATTERN)} - {*(names if force else ())}):
        raise OutputExists(existing[0])
    _check_room(source, folder)
    with ExitStack() as stack, progress("splitting", sum(map(len, parts)), "photo") as advance:
        temporary = [stack.enter_context(atomic_write(name, force=force)) for name in names]
        for path, ids in zip(temporary, parts, strict=True):
            _write_part(source, path, sorted(ids), advance)
    return [Part(name, len(ids)) for name, ids in zip(names, parts, strict=True)]


def _ordered(source: GalleryFile, key: SplitKey) -> list[tuple[object, int]]:
    """Return the group and the id of each photo, in the order in which they are divided."""
    if key == "order":
        return [(photo_id, photo_id) for photo_id in photo_ids(source)]
    if key == "date":
        rows = source.connection.execute(
            "select id, taken_at from photos order by taken_at is null, taken_at, id"
        )
        return [(photo_id, source.checked_id(photo_id)) for photo_id, _ in rows]
    rows = source.connection.execute("select photo_id, min(path) from files group by photo_id")
    try:
        found = [
            (path_order(path), decode_path(path), source.checked_id(photo_id)) for photo_id, path in rows
        ]
    except ValueError as error:
        raise GalleryDamaged(source.path, str(error)) from error
    return [(path.parent, photo_id) for _, path, photo_id in sorted(found)]


def _divide(ordered: Sequence[tuple[object, int]], count: int, *, whole_groups: bool) -> list[list[int]]:
    """Divide photos in their order among `count` parts.

    Args:
        whole_groups: photos of a group stay together; a part then ends with the group in which it is full.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    groups = groupby(ordered, key=lambda photo: photo[0])
    done = 0
    for ids in ([photo_id for _, photo_id in group] for _, group in groups):
        # The middle of a group decides: parts differ from equal ones by half a group at most.
        middle = done + (len(ids) - 1) / 2 if whole_groups else done
        parts[int(middle * count // len(ordered))] += ids
        done += len(ids)
    return parts


def _check_room(source: GalleryFile, folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    needed, free = source.file_bytes - source.free_bytes, shutil.disk_usage(there).free
    if free < needed:
        raise RoomTooSmall(folder, needed, free)


def _write_part(source: GalleryFile, path: Path, ids: Sequence[int], advance: Advance) -> None:
    """Write a gallery with these photos into the empty file at `path`."""
    with GalleryFile.open(path, create=True) as part:
        # What is interrupted is deleted, so nothing needs to be rolled back.
        part.connection.pragma("journal_mode", "memory")
        part.connection.pragma("synchronous", "off")
        for model in source_models(source):
            part.bind_model(model.role, model.identity, model.model_set)
        for _ in copy_photos(part, source, ids):
            advance()
        merge_saved_searches(part, source, dry_run=False)
        seal_index(part)
    with path.open("rb+") as file:
        os.fsync(file.fileno())

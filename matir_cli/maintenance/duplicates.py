"""`matir duplicates`: groups of files that hold the same picture, for cleaning up.

Only files count that are on disk as they were indexed: who deletes the copies must still have the original.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import decode_path
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import FileRecord
from matir_cli.search.near_copies import (
    PhotoComparison,
    Relative,
    Traits,
    estimate_seconds,
    group_near_copies,
    read_traits,
)

Relation: TypeAlias = Literal["original", "same bytes", "copy", "burst"]
"""How a file relates to the group: the original, one with the same bytes as a file above it, the same picture
saved anew, or another photo of the original's burst."""


@dataclass(frozen=True, slots=True)
class DuplicateFile:
    """A file of a group."""

    path: Path
    relation: Relation
    id: int
    """Id of the photo; files with the same bytes share it."""
    width: int
    """Photo pixels."""
    height: int
    bytes: int
    """Size of the file."""
    taken_at: str | None
    """ISO 8601, the camera's local time."""
    cosine: float | None
    """Cosine of the vectors of this photo and the original; None for the original."""


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Files that hold the same picture, two or more: the original, then the others, the largest first."""

    files: tuple[DuplicateFile, ...]

    @property
    def others(self) -> tuple[DuplicateFile, ...]:
        """The files that the original stands for."""
        return tuple(file for file in self.files if file.relation != "original")


def find_duplicates(
    gallery: GalleryFile,
    within: Path | None = None,
    *,
    bursts: bool = False,
    progress: ProgressObserver = no_progress,
) -> list[DuplicateGroup]:
    """Return the groups of files that hold the same picture, in order of their original's path.

    The original is the file with most pixels, then the one with most bytes.

    Args:
        within: only files at or below this absolute path; None for all.
        bursts: photos of one burst are a group, too.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """
    files = _files_on_disk(gallery, within)
    photos = [photo for photo in read_traits(gallery) if photo.id in files]
    photos.sort(key=lambda photo: photo.size_order)
    led = group_near_copies(gallery, photos, PhotoComparison(gallery), bursts=bursts, progress=progress)
    groups = [_group(photos[index], relatives, files) for index, relatives in led.items()]
    return sorted(
        (group for group in groups if group.others), key=lambda group: os.fsencode(group.files[0].path)
    )


def estimate_duration(gallery: GalleryFile) -> float:
    """Estimate the seconds that comparing all photos' vectors takes; comparing pixels comes on top."""
    row = gallery.connection.execute("select octet_length(vector) from vectors limit 1").fetchone()
    return 0.0 if row is None else estimate_seconds(gallery.count_photos(), gallery.checked_id(row[0]))


def _files_on_disk(gallery: GalleryFile, within: Path | None) -> dict[int, list[FileRecord]]:
    """Return, by photo, the files that are as they were when they were indexed, in order of path."""
    files: dict[int, list[FileRecord]] = {}
    rows = gallery.connection.execute("select path, photo_id, bytes, mtime_ns from files order by path")
    for stored, photo_id, size, mtime_ns in rows:
        try:
            path = decode_path(stored)
        except ValueError as error:
            raise GalleryDamaged(gallery.path, f"a file: {error}") from error
        if within is not None and not path.is_relative_to(within):
            continue
        try:
            status = path.lstat()
        except (OSError, ValueError):
            continue
        if (status.st_size, status.st_mtime_ns) == (size, mtime_ns):
            record = FileRecord(path, status.st_size, status.st_mtime_ns)
            files.setdefault(gallery.checked_id(photo_id), []).append(record)
    return files


def _group(
    original: Traits, relatives: Sequence[Relative], files: dict[int, list[FileRecord]]
) -> DuplicateGroup:
    listed = _listed(original, "original", files[original.id], None)
    for relative in sorted(relatives, key=lambda each: each.photo.size_order):
        others = files[relative.photo.id]
        listed += _listed(relative.photo, relative.kinship.value, others, round(relative.cosine, 4))
    return DuplicateGroup(tuple(listed))


def _listed(
    photo: Traits, relation: Relation, files: Sequence[FileRecord], cosine: float | None
) -> list[DuplicateFile]:
    """List the files of one photo, the largest first."""
    listed: list[DuplicateFile] = []
    for file in sorted(files, key=lambda each: (-each.bytes, os.fsencode(each.path))):
        # The files of a photo may differ: a raw file and the JPEG that its camera wrote beside it.
        again = any(other.bytes == file.bytes for other in listed)
        own: Relation = "same bytes" if again and relation == "original" else relation
        facts = photo.id, photo.width, photo.height, file.bytes, photo.taken_at, cosine
        listed.append(DuplicateFile(file.path, own, *facts))
    return listed

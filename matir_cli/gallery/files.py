"""The files that a gallery knows: listing, looking up and forgetting them.

Listings are read page by page: no lock is held and little memory used while the consumer waits, as
a pager does, and another command may write in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice, pairwise
from pathlib import Path
from typing import TypeVar

import apsw

from matir_cli.errors import GalleryDamaged, PhotoUnknown
from matir_cli.gallery.database import GalleryFile, current_time
from matir_cli.gallery.paths import BELOW, below_bindings, check_path, decode_path, encode_path, path_order
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import GalleryReader, Member, files_of, members_of
from matir_cli.photos.discover import absolute_path

PAGE = 1000
"""Number of rows read at a time."""

FORGET_AT_ONCE = 256
"""Number of files per transaction: few enough that other commands get their turn."""

Row = TypeVar("Row")

_LONGEST_ID = 18
"""Digits of an id at most: a longer number may not fit SQLite's integers, and no gallery gets there."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that holds a photo of the gallery."""

    path: Path
    photo_id: int


def paged_rows(
    gallery: GalleryFile, select: str, within: Path | None = None
) -> Iterator[tuple[apsw.SQLiteValue, ...]]:
    """Yield the rows of `select` in order of path, reading `PAGE` rows at a time.

    Args:
        select: an SQL query up to its `where`, whose first column is `path`.
        within: yield only rows at or below this absolute path; None for all.

    Raises:
        GalleryDamaged: a path is not one, or the paths are not in order, so that the listing might not end.
    """
    condition = "true" if within is None else BELOW
    page = f"{select} where {condition} and path > :after order by path limit {PAGE}"
    bound: dict[str, apsw.SQLiteValue] = {"after": "", **({} if within is None else below_bindings(within))}
    while True:
        rows = gallery.connection.execute(page, bound).fetchall()
        try:
            keys = [path_order(value) for value in (bound["after"], *(check_path(row[0]) for row in rows))]
        except ValueError as error:
            raise GalleryDamaged(gallery.path, str(error)) from error
        if any(following <= before for before, following in pairwise(keys)):
            raise GalleryDamaged(gallery.path, "its files are not in order")
        yield from rows
        if len(rows) < PAGE:
            return
        bound["after"] = rows[-1][0]


def merged_by_path(
    gallery: GalleryReader, read: Callable[[Member], Iterator[Row]], path_of: Callable[[Row], Path]
) -> Iterator[Row]:
    """Merge what `read` yields of each member in order of path; of one path, the first member's is first."""

    def translating(member: Member) -> Iterator[Row]:
        with translated(member.file.path):
            yield from read(member)

    each = [translating(member) for member in members_of(gallery)]
    return each[0] if len(each) == 1 else merge(*each, key=lambda row: path_order(encode_path(path_of(row))))


def known_files(gallery: GalleryReader, within: Path | None = None) -> Iterator[KnownFile]:
    """Yield the files that hold photos, in order of path; `within` as in `paged_rows`."""

    def read(member: Member) -> Iterator[KnownFile]:
        for path, photo_id in paged_rows(member.file, "select path, photo_id from files", within):
            number = member.photo_to_union(member.file.checked_id(photo_id))
            if number is not None:
                yield KnownFile(decode_path(path), number)

    return merged_by_path(gallery, read, lambda known: known.path)


def skipped_files(gallery: GalleryFile, within: Path | None = None) -> Iterator[Path]:
    """Yield the files that could not be indexed, in order of path; `within` as in `paged_rows`."""
    for (path,) in paged_rows(gallery, "select path from skipped", within):
        yield decode_path(path)


def count_files_below(gallery: GalleryReader, path: Path) -> int:
    """Return the number of files at or below the absolute `path` that hold photos, in each gallery."""
    select = f"select count(*) from files where {BELOW}"  # noqa: S608 - constant
    return sum(int(file.connection.execute(select, below_bindings(path)).get) for file in files_of(gallery))


def photo_in_file(gallery: GalleryReader, path: Path) -> int | None:
    """Return the id of the photo that the file at the absolute `path` holds, None if it holds none."""
    for member in members_of(gallery):
        with translated(member.file.path):
            select = "select photo_id from files where path = ?"
            row = member.file.connection.execute(select, (encode_path(path),)).fetchone()
        if row is not None and (number := member.photo_to_union(member.file.checked_id(row[0]))) is not None:
            return number
    return None


def skip_reason(gallery: GalleryFile, path: Path) -> str | None:
    """Return the reason why the file at the absolute `path` could not be indexed.

    None if the gallery has not recorded one.
    """
    row = gallery.connection.execute(
        "select reason from skipped where path = ?", (encode_path(path),)
    ).fetchone()
    return None if row is None else str(row[0])


def remember_inaccessible(gallery: GalleryFile, path: Path, reason: str) -> None:
    """Record that the system did not let the file or folder at the absolute `path` be read.

    Unlike `GalleryFile.remember_skipped`, this keeps the photo that the file held before. It does nothing
    for a path with NUL, which no file has.
    """
    if "\0" not in str(path):
        gallery.connection.execute(
            "insert or replace into skipped values (?, ?, 0, 0, ?)",
            (encode_path(path), reason, current_time()),
        )


def forget_skipped(gallery: GalleryFile, paths: Iterable[Path]) -> None:
    """Delete the records that these files or folders could not be indexed; their photos are kept."""
    with gallery.atomic():
        for path in paths:
            gallery.connection.execute("delete from skipped where path = ?", (encode_path(path),))


def find_photo(gallery: GalleryReader, name: str) -> int:
    """Return the id of the photo that `name` denotes: its id in digits, or a file that holds it.

    Raises:
        PhotoUnknown: the gallery holds no such photo or file.
    """
    if is_photo_id(name):
        number = int(name) if len(name) <= _LONGEST_ID else -1
        photo_id = number if gallery.holds(number) else None
    else:
        photo_id = photo_in_file(gallery, absolute_path(Path(name)))
    if photo_id is None:
        raise PhotoUnknown(gallery.path, name)
    return photo_id


def is_photo_id(name: str) -> bool:
    """Return True if `name` is taken as a photo's id; a file of such a name is written ./12."""
    return name.isascii() and name.isdecimal()


def forget_files(
    gallery: GalleryFile,
    paths: Iterable[Path],
    confirm: Callable[[Sequence[Path]], Sequence[Path]] = lambda batch: batch,
) -> Iterator[Path]:
    """Remove files from the gallery, and each photo with the last file that holds it.

    Yields the files that the gallery knew. Records of files that could not be indexed are removed
    as well; files on disk are not touched. Each transaction covers `FORGET_AT_ONCE` files, which are
    yielded after its commit.

    Args:
        confirm: called in each transaction, returns those of its files that are still to be removed.
    """
    remaining = iter(paths)
    while batch := list(islice(remaining, FORGET_AT_ONCE)):
        with gallery.atomic():
            forgotten = [path for path in confirm(batch) if gallery.unlink(path)]
        yield from forgotten

"""Ratings, keywords and positions of photos' files and their sidecars: stored per file, read per photo.

A photo in several files has the highest of their ratings, the keywords of all, and the first position that
a sidecar states, in order of path, or else its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.paths import decode_path, encode_path
from matir_cli.gallery.rows import check_id, check_number, check_text
from matir_cli.photos.descriptive import HIGHEST, MOST_KEYWORDS, REJECTED
from matir_cli.records import FileMetadata, FileRecord

MOST_FILES = 1000
"""Files of a photo whose keywords are read."""


@dataclass(frozen=True, slots=True)
class StoredMetadata:
    """What is stored of the metadata of one file."""

    metadata: FileMetadata
    sidecar: FileRecord | None
    """State of the sidecar that was read; None if there was none."""


def store_metadata(
    connection: apsw.Connection, path: Path, metadata: FileMetadata, sidecar: FileRecord | None
) -> None:
    """Write the metadata of a file in place of an older one; the caller holds the transaction.

    Args:
        path: of a file that the gallery holds.
        sidecar: the one that was read.
    """
    stored = encode_path(path)
    found = (None,) * 3 if sidecar is None else (encode_path(sidecar.path), sidecar.bytes, sidecar.mtime_ns)
    connection.execute("delete from file_metadata where path = ?", (stored,))
    connection.execute(
        "insert into file_metadata values (?, ?, ?, ?, ?, ?, ?)",
        (stored, metadata.rating, metadata.latitude, metadata.longitude, *found),
    )
    connection.executemany(
        "insert or ignore into file_keywords values (?, ?)",
        [(stored, keyword) for keyword in metadata.keywords],
    )


def stored_sidecar(connection: apsw.Connection, gallery: Path, path: Path) -> tuple[bool, FileRecord | None]:
    """Return True if the metadata of a file has been read, and the sidecar that was read with it.

    Args:
        gallery: path of the gallery, for errors.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """
    row: Any = connection.execute(
        "select sidecar_path, sidecar_bytes, sidecar_mtime_ns from file_metadata where path = ?",
        (encode_path(path),),
    ).fetchone()
    if row is None:
        return False, None
    try:
        return True, _sidecar(*row)
    except ValueError as error:
        raise GalleryDamaged(gallery, f"{path}: {error}") from error


def stored_metadata(connection: apsw.Connection, path: Path) -> StoredMetadata | None:
    """Return the metadata of a file, None if it has not been read; ValueError if a value is impossible."""
    stored = encode_path(path)
    row: Any = connection.execute(
        "select rating, latitude, longitude, sidecar_path, sidecar_bytes, sidecar_mtime_ns "
        "from file_metadata where path = ?",
        (stored,),
    ).fetchone()
    if row is None:
        return None
    rating, latitude, longitude, *sidecar = row
    metadata = listed_metadata(connection, stored, rating, latitude, longitude, has_keywords=True)
    return StoredMetadata(metadata, _sidecar(*sidecar))


JOINED = (
    "left join (select path as described, rating, latitude as own_latitude, longitude as own_longitude "
    "from file_metadata) on described = files.path"
)
"""SQL: joins to `files` what `listed_metadata` takes, without a second column `path`."""

HAS_KEYWORDS = "exists(select 1 from file_keywords where file_keywords.path = described)"
"""SQL: true if a file that is joined so has keywords."""


def listed_metadata(
    connection: apsw.Connection,
    stored: apsw.SQLiteValue,
    rating: object,
    latitude: object,
    longitude: object,
    *,
    has_keywords: bool,
) -> FileMetadata:
    """Return a file's metadata from its stored values; ValueError if one is impossible.

    Args:
        stored: its path, as it is stored.
        has_keywords: False: it has none, so that none are looked up.
    """
    rows: Any = (
        connection.execute(
            "select keyword from file_keywords where path = ? order by keyword limit ?",
            (stored, MOST_KEYWORDS + 1),
        ).fetchall()
        if has_keywords
        else []
    )
    position = _position(latitude, longitude) or (None, None)
    return FileMetadata(_rating(rating), _keywords(rows), *position)


def photo_metadata(connection: apsw.Connection, photo_id: int) -> FileMetadata:
    """Return the metadata of a photo's files together; ValueError if a stored value is impossible."""
    rows: Any = connection.execute(_FILES, (photo_id, MOST_FILES)).fetchall()
    if not rows:
        return FileMetadata()
    ratings = [_rating(rating) for rating, *_ in rows]
    positions = [_position(latitude, longitude) for _, latitude, longitude in rows]
    keywords: Any = connection.execute(_KEYWORDS, (photo_id, MOST_KEYWORDS + 1)).fetchall()
    return FileMetadata(
        max((rating for rating in ratings if rating is not None), default=None),
        _keywords(keywords),
        *next((position for position in positions if position is not None), (None, None)),
    )


def count_unread(connection: apsw.Connection) -> int:
    """Return the number of files whose metadata has not been read: an older version has added them."""
    unread = "not exists (select 1 from file_metadata where file_metadata.path = files.path)"
    return int(connection.execute(f"select count(*) from files where {unread}").get)  # noqa: S608 - constant


_FILES = (
    "select rating, latitude, longitude from files "
    "cross join file_metadata on file_metadata.path = files.path "
    "where photo_id = ? order by files.path limit ?"
)

_KEYWORDS = (
    "select distinct keyword from files cross join file_keywords on file_keywords.path = files.path "
    "where photo_id = ? order by keyword limit ?"
)


def _rating(value: object) -> int | None:
    if value is not None and not REJECTED <= check_id(value, "a rating") <= HIGHEST:
        raise ValueError("a rating is impossible")
    return None if value is None else check_id(value, "a rating")


def _keywords(rows: list[tuple[object]]) -> tuple[str, ...]:
    """Return the keywords, at most `MOST_KEYWORDS`."""
    return tuple(check_text(keyword, "a keyword") for (keyword,) in rows[:MOST_KEYWORDS])


def _position(latitude: object, longitude: object) -> tuple[float, float] | None:
    if latitude is None or longitude is None:
        return None
    position = check_number(latitude, "a latitude"), check_number(longitude, "a longitude")
    if not (-90 <= position[0] <= 90 and -180 <= position[1] <= 180):
        raise ValueError("a position is impossible")
    return position


def _sidecar(path: Any, size: object, mtime_ns: object) -> FileRecord | None:
    if path is None:
        return None
    return FileRecord(
        decode_path(path), check_id(size, "a sidecar's size"), check_id(mtime_ns, "a sidecar's time")
    )

"""Galleries read from end to end without being changed, and trusted in nothing: they may come from
a stranger, or be damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from matir_cli.errors import GalleryMissing, GalleryReadOnly
from matir_cli.gallery import schema
from matir_cli.gallery.database import BUSY_TIMEOUT_MS, GalleryFile

LONGEST_VALUE = 1 << 26
"""Bytes; a preview has a few hundred thousand, a block's codes some two million."""

PAGE = 256
"""Photos whose ids are read at a time, so that no lock is held between them."""

STEPS_BETWEEN_SIGNALS = 100_000
"""SQLite's own steps between two looks at whether Ctrl-C was pressed; a fraction of a second."""


def open_read_only(path: Path) -> GalleryFile:
    """Open the file at `path` so that nothing can change it; what it holds is not looked at yet.

    Unlike `GalleryFile.open` this brings no schema up to date.

    Raises:
        GalleryMissing: no file there.
        GalleryReadOnly: it cannot be opened.
    """
    if not path.exists():
        raise GalleryMissing(path)
    try:
        db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    except (apsw.CantOpenError, apsw.PermissionsError, UnicodeEncodeError) as error:
        raise GalleryReadOnly(path) from error
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    db.limit(apsw.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    return GalleryFile(path, db)


def schema_faults(db: apsw.Connection) -> list[str]:
    """The tables and indexes that are missing from the file, or are not what this version makes."""
    fresh = apsw.Connection(":memory:")
    try:
        schema.migrate(fresh)
        expected = _objects(fresh)
    finally:
        fresh.close()
    found = _objects(db)
    return sorted(name for name, made in expected.items() if found.get(name) != made)


def _objects(db: apsw.Connection) -> dict[str, tuple[str, str]]:
    """Name to kind and SQL; the indexes that SQLite makes for itself have no SQL."""
    rows = db.execute("select name, type, sql from sqlite_schema where sql is not null")
    return {str(name): (str(kind), str(sql)) for name, kind, sql in rows}


def photo_ids(gallery: GalleryFile) -> Iterator[int]:
    """The ids of all photos in order; one that is deleted meanwhile may be among them."""
    last = -1
    while True:
        rows = gallery.connection.execute(
            "select id from photos where id > ? order by id limit ?", (last, PAGE)
        )
        ids = [int(row[0]) for row in rows]
        yield from ids
        if len(ids) < PAGE:
            return
        last = ids[-1]


@contextmanager
def interruptible(db: apsw.Connection) -> Iterator[None]:
    """Let Python see Ctrl-C within a statement that runs for minutes; it is then rolled back."""
    db.set_progress_handler(lambda: False, STEPS_BETWEEN_SIGNALS)
    try:
        yield
    finally:
        db.set_progress_handler(None)

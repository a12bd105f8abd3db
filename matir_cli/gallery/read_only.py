"""Galleries opened for reading only, with no trust in their content.

Such a gallery may come from a stranger, or be damaged; it is read from end to end and never changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from matir_cli.errors import GalleryMissing, GalleryNameInvalid, GalleryReadOnly
from matir_cli.gallery import schema
from matir_cli.gallery.connection import open_defensively
from matir_cli.gallery.database import GalleryFile

LONGEST_VALUE = 1 << 26
"""Bytes of a value at most; a preview has a few hundred thousand, the codes of a block some two million."""

PAGE = 256
"""Number of photo ids read at a time, so that no lock is held between pages."""

STEPS_BETWEEN_SIGNALS = 100_000
"""Steps of SQLite's virtual machine between two checks for Ctrl-C; they take a fraction of a second."""


def open_read_only(path: Path) -> GalleryFile:
    """Open the file at `path` so that nothing can change it; its content is not checked yet.

    Unlike `GalleryFile.open`, this does not migrate an older schema.

    Raises:
        GalleryMissing: there is no file at `path`.
        GalleryNameInvalid: the path is not UTF-8.
        GalleryReadOnly: the file cannot be opened.
    """
    if not path.exists():
        raise GalleryMissing(path)
    try:
        db = open_defensively(os.fspath(path), apsw.SQLITE_OPEN_READONLY)
    except UnicodeEncodeError as error:
        raise GalleryNameInvalid(path) from error
    except (apsw.CantOpenError, apsw.PermissionsError, apsw.IOError) as error:
        raise GalleryReadOnly(path) from error
    db.limit(apsw.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    return GalleryFile(path, db)


def schema_faults(db: apsw.Connection) -> list[str]:
    """Return the names of tables and indexes that are missing or differ from this version's, sorted."""
    fresh = apsw.Connection(":memory:")
    try:
        schema.migrate(fresh)
        expected = _schema_objects(fresh)
    finally:
        fresh.close()
    actual = _schema_objects(db)
    return sorted(name for name, definition in expected.items() if actual.get(name) != definition)


def _schema_objects(db: apsw.Connection) -> dict[str, tuple[str, str]]:
    """Map each name to its kind and SQL, leaving out SQLite's automatic indexes, which have no SQL."""
    rows = db.execute("select name, type, sql from sqlite_schema where sql is not null")
    return {str(name): (str(kind), str(sql)) for name, kind, sql in rows}


def photo_ids(gallery: GalleryFile) -> Iterator[int]:
    """Yield the ids of all photos in ascending order; a photo deleted meanwhile may be among them."""
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
    """Let Ctrl-C interrupt a statement that runs for minutes; the statement is then rolled back."""
    db.set_progress_handler(lambda: False, STEPS_BETWEEN_SIGNALS)
    try:
        yield
    finally:
        db.set_progress_handler(None)

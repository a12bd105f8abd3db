"""SQLite connections opened defensively: the file may come from a stranger."""

from __future__ import annotations

import apsw

BUSY_TIMEOUT_MS = 60_000
"""Milliseconds that a command waits for another one's transaction."""

READ_WRITE_CREATE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


def open_defensively(filename: str, flags: int = READ_WRITE_CREATE) -> apsw.Connection:
    """Open a connection on which nothing in the file's schema can reach beyond the file.

    SQLite opens lazily: the content of the file is not read yet.

    Args:
        filename: a path, or a URI if `flags` include SQLITE_OPEN_URI.
        flags: SQLite's SQLITE_OPEN_* bits; by default the file is created if it is missing.

    Raises:
        apsw.CantOpenError, apsw.PermissionsError: the file cannot be opened.
        apsw.IOError: the system fails to read it, as for a folder that is opened for reading only.
        UnicodeEncodeError: the name is not valid UTF-8.
    """
    connection = apsw.Connection(filename, flags=flags)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    return connection

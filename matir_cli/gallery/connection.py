"""SQLite connections opened defensively: the file may come from a stranger."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apsw

BUSY_SECONDS = 60.0
"""Time that a command waits for another one's transaction."""

WAITS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.025, 0.025, 0.05, 0.05, 0.1)
"""Seconds between two attempts to lock the file, as in SQLite's own time-out; the last one repeats."""

READ_WRITE_CREATE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE

LONGEST_VALUE = 1 << 28
"""Bytes of a stored or bound value at most. The codes of a block have some two million; lists of ids that are
bound as JSON have ten bytes per region."""

MAPPED_BYTES = 1 << 40
"""Bytes of a gallery at most that are read by mapping the file, which takes a third of the time. The pages
are the system's cache; they count as no memory of the process."""

STEPS_BETWEEN_CALLS = 100_000
"""Steps of SQLite's virtual machine between two checks of Ctrl-C and the step limit: milliseconds."""

STEPS = 300_000_000
"""Steps that a statement may take on a file of any size: seconds."""

STEPS_PER_BYTE = 10
"""Steps that a statement may take for each byte of the file."""


def open_defensively(filename: str, flags: int = READ_WRITE_CREATE) -> apsw.Connection:
    """Open a connection on which nothing in the file can reach beyond the file, or hold up the process.

    Views and triggers are switched off. Ctrl-C ends any statement with KeyboardInterrupt, also while it
    waits for another process's lock, for at most `BUSY_SECONDS`. A statement that takes more steps than the
    size of the file explains ends with InterruptError: pages of a crafted file can refer to each other so
    that a scan never ends. SQLite opens lazily: the content of the file is not read yet.

    Args:
        filename: a path, or a URI if `flags` include SQLITE_OPEN_URI.
        flags: SQLite's SQLITE_OPEN_* bits; by default the file is created if it is missing.

    Raises:
        apsw.CantOpenError, apsw.PermissionsError: the file cannot be opened.
        apsw.IOError: the system fails to read it, as for a folder that is opened for reading only.
        UnicodeEncodeError: the name is not valid UTF-8.
    """
    connection = apsw.Connection(filename, flags=flags)
    connection.set_busy_handler(_Patience().wait)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    for forbidden in (
        apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER,  # foreign keys work without
        apsw.SQLITE_DBCONFIG_ENABLE_VIEW,
    ):
        connection.config(forbidden, 0)
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    limit = _StepLimit(filename)
    connection.trace_v2(apsw.SQLITE_TRACE_STMT, limit.start)
    connection.set_progress_handler(limit.is_exceeded, STEPS_BETWEEN_CALLS)
    return connection


class _Patience:
    """Waits for another process's transaction; SQLite's own time-out would not let Ctrl-C through."""

    def __init__(self) -> None:
        self._end = 0.0

    def wait(self, attempts: int) -> bool:
        """Wait before the next attempt to lock the file; False if the time is up.

        Args:
            attempts: number of waits before, for the same lock.
        """
        now = time.monotonic()
        if attempts == 0:
            self._end = now + BUSY_SECONDS
        if now >= self._end:
            return False
        time.sleep(WAITS[min(attempts, len(WAITS) - 1)])
        return True


class _StepLimit:
    """Counts the steps of the running statement."""

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._calls = 0

    def start(self, event: dict[str, Any]) -> None:
        """Start the count anew: a statement begins. Cascades of foreign keys count as a part of theirs."""
        if not event["trigger"]:
            self._calls = 0

    def is_exceeded(self) -> bool:
        """Count another `STEPS_BETWEEN_CALLS`; SQLite ends the statement if they are too many.

        Python raises KeyboardInterrupt here after Ctrl-C.
        """
        self._calls += 1
        steps = self._calls * STEPS_BETWEEN_CALLS
        return steps > STEPS and steps > STEPS + STEPS_PER_BYTE * self._bytes()

    def _bytes(self) -> int:
        try:
            return Path(self._filename).stat().st_size
        except (OSError, ValueError):  # in memory, or deleted by now
            return 0

"""The gallery file as a file: opening, checking and migrating it; transactions; size.

Durability: the file is in rollback-journal mode. After a commit only the one file remains, and it
can be opened from read-only media; a process killed at any moment leaves a journal that the next
opening rolls back. Each photo is written in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw
import sqlite_vec

from matir_cli.gallery import schema
from matir_cli.gallery.connection import MAPPED_BYTES, READ_WRITE_CREATE, open_defensively
from matir_cli.gallery.sqlite_errors import connect, gallery_error, translated


class OpenGallery:
    """An open gallery file.

    As a context manager it closes the file on leaving, and turns errors that SQLite raised inside
    into the matching `GalleryError`.
    """

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self.connection = connection
        self.relied_models: dict[str, str] = {}  # role to hash: see `bound_models.confirm_models`
        self._second: apsw.Connection | None = None

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Self:
        """Open the gallery at `path` and migrate an older schema.

        A gallery of an older schema that cannot be written is opened as it is, for reading only: the tables
        that it lacks are empty.

        Args:
            create: create the file and its folder if they do not exist.

        Raises:
            GalleryMissing: there is no file at `path`, and `create` is false.
            NotAGallery: the file is of another kind; it is left unchanged.
            GalleryTooNew: a later version of this tool wrote the file.
            GalleryDamaged: the file's schema is not that of its version, word by word.
            GalleryNameInvalid: the path is not UTF-8.
            GalleryReadOnly: the file cannot be opened, or the file or its folder cannot be created.
            GalleryUnrecovered: the file may only be read, and an interrupted write is not rolled back.
            GalleryIOFailed: the system fails to read or write the file.
        """
        # SQLite itself falls back to read-only access if the file cannot be written.
        with translated(path):
            try:
                return cls._open(path, READ_WRITE_CREATE if create else apsw.SQLITE_OPEN_READWRITE)
            except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError):
                # The file can be written, but not its folder, where SQLite keeps the journal of a migration.
                if create:
                    raise
                return cls._open(path, apsw.SQLITE_OPEN_READONLY)

    @classmethod
    def open_temporary(cls, path: Path) -> Self:
        """Create an empty gallery in a file without a name, which SQLite deletes when the gallery is closed.

        Args:
            path: of the gallery that it stands for, for messages.
        """
        with translated(path):
            return cls._checked(path, open_defensively(""))

    @classmethod
    def _open(cls, path: Path, flags: int) -> Self:
        """Open and check the gallery, with these SQLITE_OPEN_* bits; raises SQLite's errors as they are."""
        return cls._checked(path, connect(path, flags))

    @classmethod
    def _checked(cls, path: Path, connection: apsw.Connection) -> Self:
        """Check the gallery that a connection is open to; close it if that fails."""
        gallery = cls(path, connection)
        try:
            gallery._prepare()
        except BaseException:
            gallery.connection.close()
            raise
        return gallery

    def _prepare(self) -> None:
        """Check that the file is a gallery before anything is written to it, then migrate."""
        db = self.connection
        if schema.is_empty(db):
            db.pragma("page_size", schema.PAGE_SIZE)
        version = schema.check_schema(db, self.path)
        db.pragma("foreign_keys", True)
        db.pragma("mmap_size", MAPPED_BYTES)
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
        db.enable_load_extension(False)
        if version == schema.VERSION:
            return
        if version and db.readonly("main"):
            schema.add_missing_tables(db, version)
            return
        with self.atomic():
            if schema.version_of(db):
                schema.check_schema(db, self.path)  # another process may have written meanwhile
            schema.migrate(db)
            schema.check_schema(db, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, apsw.Error | UnicodeDecodeError):
            raise gallery_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
        if self._second is not None:
            self._second.close()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Run the block as one write transaction: all of it or nothing takes effect.

        Inside another `atomic` block, it is a part of that block's transaction.
        """
        if self.connection.in_transaction:
            yield
            return
        self.connection.execute("begin immediate")
        try:
            yield
            self.connection.execute("commit")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("rollback")
            raise

    def snapshot(self) -> AbstractContextManager[object]:
        """Let the block read one state of the file, whatever other processes write meanwhile.

        Their commits wait until the block ends, so it must be short.
        """
        # No generator: one that a signal has cut off would complain when it is deleted behind the connection.
        return self.connection

    def second_connection(self) -> apsw.Connection | None:
        """Return another connection to the file, so that two threads can read it; None if there can be none.

        It does not see what this connection has written in a transaction that has not ended, and the file at
        its path may be another one by now: the caller has to compare. Where another process waits to write,
        reading raises BusyError at once, since that process waits for this one.
        """
        if self._second is None and self.connection.filename:
            with suppress(apsw.Error):
                second = open_defensively(self.connection.filename, apsw.SQLITE_OPEN_READONLY)
                second.set_busy_handler(None)
                second.pragma("mmap_size", MAPPED_BYTES)
                self._second = second
        return self._second

    # Size

    @property
    def file_bytes(self) -> int:
        """Size of the database, bytes."""
        return int(self.connection.pragma("page_count")) * int(self.connection.pragma("page_size"))

    @property
    def free_bytes(self) -> int:
        """Bytes of the file that deleted rows left unused."""
        return int(self.connection.pragma("freelist_count")) * int(self.connection.pragma("page_size"))

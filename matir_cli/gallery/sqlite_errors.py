"""Errors of SQLite about a gallery file, as errors of this program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from matir_cli import errors
from matir_cli.gallery.connection import open_defensively

STEPS_EXCEEDED = "reading it takes longer than its size explains"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors that SQLite raises about the file at `path` into the matching `GalleryError`."""
    try:
        yield
    except (apsw.Error, UnicodeDecodeError) as error:
        raise gallery_error(path, error) from error


def connect(path: Path, flags: int) -> apsw.Connection:
    """Open a connection to the gallery file at `path`; its content is not checked yet.

    Args:
        flags: as in `open_defensively`; with SQLITE_OPEN_CREATE, the file and its folder are created if they
            do not exist.

    Raises:
        GalleryMissing: there is no file at `path`.
        NotAGallery: it is a folder, a pipe or a device, which opening might wait for.
        GalleryNameInvalid: the path is not UTF-8.
        GalleryReadOnly: the file cannot be opened, or the file or its folder cannot be created.
        GalleryError: as `translated` raises it.
    """
    with translated(path):
        try:
            if path.exists():
                if not path.is_file():
                    raise errors.NotAGallery(path)
            elif not flags & apsw.SQLITE_OPEN_CREATE:
                raise errors.GalleryMissing(path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
            return open_defensively(os.fspath(path), flags)
        except UnicodeEncodeError as error:
            raise errors.GalleryNameInvalid(path) from error
        except (OSError, ValueError) as error:  # ValueError: a name that SQLite does not take
            raise errors.GalleryReadOnly(path) from error


def gallery_error(path: Path, error: apsw.Error | UnicodeDecodeError) -> errors.MatirError:
    """Return the error to raise for one that SQLite raised about the file at `path`."""
    match error:
        case apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError() | apsw.SchemaChangeError():
            return errors.GalleryBusy(path)
        case apsw.FullError():
            return errors.DiskFull(path)
        case apsw.ReadOnlyError() if _is_unrecovered(error):
            return errors.GalleryUnrecovered(path)
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return errors.GalleryReadOnly(path)
        case apsw.NotADBError() | apsw.FormatError():
            return errors.NotAGallery(path)
        case apsw.IOError() | apsw.NoLFSError() | apsw.NoMemError():
            return errors.GalleryIOFailed(path, str(error))
        case apsw.ExtensionLoadingError():
            return errors.ExtensionUnusable("sqlite-vec", str(error))
        case apsw.InterruptError():
            return errors.GalleryDamaged(path, STEPS_EXCEEDED)
        case apsw.ConstraintError():
            return _constraint_error(path, error)
        case UnicodeDecodeError():
            return errors.GalleryDamaged(path, "a stored text is not UTF-8")
        case apsw.CorruptError() | apsw.SQLError() | apsw.TooBigError() | apsw.MismatchError():
            return errors.GalleryDamaged(path, str(error))
        case _:  # Internal, Misuse, Abort, Range, ...: mistakes in SQLite or in its use
            return errors.GalleryFailed(path, f"{type(error).__name__}: {error}")


def _is_unrecovered(error: apsw.ReadOnlyError) -> bool:
    return getattr(error, "extendedresult", None) == apsw.SQLITE_READONLY_ROLLBACK


def _constraint_error(path: Path, error: apsw.ConstraintError) -> errors.MatirError:
    """Return damage if the file, read anew, holds rows that break a foreign key; else a race was lost."""
    try:
        with closing(open_defensively(os.fspath(path), apsw.SQLITE_OPEN_READONLY)) as connection:
            broken = connection.execute("pragma foreign_key_check").fetchone()
    except apsw.Error as other:
        return gallery_error(path, other)
    return errors.GalleryDamaged(path, str(error)) if broken else errors.GalleryChanged(path)

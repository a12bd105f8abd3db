"""Photo files on disk: walking folders, file status, hashing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.formats import (
    HEIF_SUFFIXES,
    MORE_SUFFIXES,
    UNREAD_SUFFIXES,
    readable_formats,
    register_heif,
)
from matir_cli.records import FileRecord


def absolute_path(path: Path) -> Path:
    """Return `path` as galleries store it: absolute, without . and .., symbolic links kept."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would replace links by targets


RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos"),
        *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
        ".x3f",
    }
)
"""Suffixes of camera raw formats, which Pillow does not read; a JPEG often lies beside such a file."""

SKIPPED_FOLDERS = frozenset({"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that network drives and operating systems create; hidden folders are skipped as well."""

_LATEST = 2**63 - 1
"""Largest integer that SQLite stores: nanoseconds since 1970 until the year 2262."""


def find_photo_files(paths: Iterable[Path], passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """Yield the photo files at or below `paths`: files as given, folders recursively in order of name.

    In folders, hidden entries, `SKIPPED_FOLDERS` and files without the suffix of an image are passed
    over. A folder is entered once, however many links lead to it. The yielded paths are absolute; a
    path that does not exist is yielded like any other, for its reader to report.

    Args:
        passed_over: counter that receives the number of raw files, and of pictures in other formats that
            are not read, passed over, by suffix.
    """
    raw = Counter[str]() if passed_over is None else passed_over
    register_heif()
    readable = set(readable_formats())
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in readable}
    suffixes |= MORE_SUFFIXES
    suffixes |= HEIF_SUFFIXES  # without pillow-heif these are reported, not passed over
    entered: set[tuple[int, int]] = set()
    for path in paths:
        absolute = absolute_path(path)
        if absolute.is_dir():
            yield from _walk(absolute, suffixes, entered, raw)
        else:
            yield absolute


def _walk(
    folder: Path, suffixes: set[str], entered: set[tuple[int, int]], raw: Counter[str]
) -> Iterator[Path]:
    """Yield the photo files below `folder`, adding to `entered` (device and inode) and `raw`."""
    try:
        status = folder.stat()
        if (identity := (status.st_dev, status.st_ino)) in entered:
            return
        entered.add(identity)
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield folder  # its reader reports what is wrong with it
        return
    for entry in ordered:
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
            continue
        path = folder / entry.name
        if path.is_dir():
            yield from _walk(path, suffixes, entered, raw)
        elif (suffix := path.suffix.lower()) in suffixes:
            yield path
        elif suffix in RAW_SUFFIXES | UNREAD_SUFFIXES:
            raw[suffix] += 1


def stat_file(path: Path) -> FileRecord:
    """Return the size and modification time of a file.

    Raises:
        PhotoUnreadable: it does not exist, is not a plain file, or cannot be accessed.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise PhotoUnreadable(path, _system_reason(error)) from error
    if not stat.S_ISREG(status.st_mode):
        is_folder = stat.S_ISDIR(status.st_mode)
        raise PhotoUnreadable(path, "cannot be listed" if is_folder else "not a plain file")
    # The time that a wrong clock has set may lie beyond what SQLite stores.
    return FileRecord(path, status.st_size, max(-_LATEST, min(status.st_mtime_ns, _LATEST)))


def hash_file(file: FileRecord) -> bytes:
    """Return the SHA-256 of the file's content, 32 bytes.

    Raises:
        PhotoUnreadable: the file cannot be read, or is empty.
    """
    if file.bytes == 0:
        raise PhotoUnreadable(file.path, "zero bytes")
    try:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise PhotoUnreadable(file.path, _system_reason(error)) from error


def _system_reason(error: OSError | ValueError) -> str:
    """Return the system's error message, lower case and without the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error) or "cannot be read").lower()

"""Finding photo files: walking folders, file status, hashing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.formats import HEIF_SUFFIXES, readable_formats, register_heif
from matir_cli.records import FileRecord


def absolute_path(path: Path) -> Path:
    """`path` as a gallery has it: absolute, without . and .., links left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would replace links by targets


RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos"),
        *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
        ".x3f",
    }
)
"""Cameras' own formats, which Pillow does not read. Beside each there often is a JPEG of the same photo."""

SKIPPED_FOLDERS = frozenset({"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"})
"""What network drives and operating systems strew among photos; hidden folders are skipped as well."""

_LATEST = 2**63 - 1


def find_photo_files(paths: Iterable[Path], passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """The photo files that `paths` name: files as given, folders recursively, in order of name.

    In folders, hidden entries and `SKIPPED_FOLDERS` are passed over, and so is any file
    whose name does not end like a picture's. A folder is entered once however many links
    lead to it. Paths are absolute; a path that does not exist is yielded like any other,
    for the reader to report.

    Args:
        passed_over: counts the files that have one of `RAW_SUFFIXES`, by that.
    """
    raw = Counter[str]() if passed_over is None else passed_over
    register_heif()
    readable = set(readable_formats())
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in readable}
    suffixes |= HEIF_SUFFIXES  # without the package they are reported, not passed over
    entered: set[tuple[int, int]] = set()
    for path in paths:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would replace links by targets
        if absolute.is_dir():
            yield from _walk(absolute, suffixes, entered, raw)
        else:
            yield absolute


def _walk(
    folder: Path, suffixes: set[str], entered: set[tuple[int, int]], raw: Counter[str]
) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (identity := (status.st_dev, status.st_ino)) in entered:
            return
        entered.add(identity)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield folder  # its reader reports what is wrong with it
        return
    for entry in found:
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
            continue
        path = folder / entry.name
        if path.is_dir():
            yield from _walk(path, suffixes, entered, raw)
        elif (suffix := path.suffix.lower()) in suffixes:
            yield path
        elif suffix in RAW_SUFFIXES:
            raw[suffix] += 1


def stat_file(path: Path) -> FileRecord:
    """Size and time of change of a file.

    Raises:
        PhotoUnreadable: it is not there, not a plain file, or may not be looked at.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise PhotoUnreadable(path, _system_reason(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise PhotoUnreadable(path, "cannot be listed" if stat.S_ISDIR(found.st_mode) else "not a plain file")
    # SQLite's integers end in 2262; a wrong clock may be beyond.
    return FileRecord(path, found.st_size, max(-_LATEST, min(found.st_mtime_ns, _LATEST)))


def hash_file(file: FileRecord) -> bytes:
    """SHA-256 of the file's bytes, 32 bytes.

    Raises:
        PhotoUnreadable: it cannot be read, or is empty.
    """
    if file.bytes == 0:
        raise PhotoUnreadable(file.path, "zero bytes")
    try:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise PhotoUnreadable(file.path, _system_reason(error)) from error


def _system_reason(error: OSError | ValueError) -> str:
    """The system's word for it, without the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error) or "cannot be read").lower()

"""Photo files on disk: walking folders, file status, hashing."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import PhotoInaccessible, PhotoUnreadable
from matir_cli.photos.excludes import Excludes, read_patterns
from matir_cli.photos.raw_pairs import is_beside_raw, is_raw
from matir_cli.photos.suffixes import HEIF_SUFFIXES, RAW_SUFFIXES, UNREAD_SUFFIXES, reads_raw
from matir_cli.records import FileRecord


def absolute_path(path: Path) -> Path:
    """Return `path` as galleries store it: absolute, without . and .., symbolic links kept."""
    if "\0" in os.fspath(path):  # no file has such a name, and Python 3.11.0 to 3.11.4 would cut it off there
        return Path.cwd() / path
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would replace links by targets


_PASSED_OVER = RAW_SUFFIXES | UNREAD_SUFFIXES
"""Suffixes of pictures that are counted where they are not read."""

SKIPPED_FOLDERS = frozenset({"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that network drives and operating systems create; hidden folders are skipped as well."""

EXCLUDED, EXCLUDED_FOLDERS, UNUSED_PATTERNS = "excluded", "excluded folders", "unused patterns"
"""Keys of the counters of files passed over, beside suffixes: photo files and folders that patterns leave
out, and files of patterns that cannot be read."""


@dataclass(frozen=True, slots=True)
class FolderRules:
    """Rules for what is found in folders."""

    exclude: Sequence[str] = ()
    """Patterns as in .gitignore, relative to each folder that is named."""
    raw: bool = True
    """Find cameras' raw files: if the package that reads them is installed, or beside their pictures."""


ALL_FILES = FolderRules()

_LATEST = 2**63 - 1
"""Largest integer that SQLite stores: nanoseconds since 1970 until the year 2262."""


def find_photo_files(
    paths: Iterable[Path],
    passed_over: Counter[str] | None = None,
    listed: Callable[[Path], None] | None = None,
    rules: FolderRules = ALL_FILES,
) -> Iterator[Path]:
    """Yield the photo files at or below `paths`: files as given, folders recursively in order of name.

    In a folder, a raw file beside a JPEG or HEIC of the same name, which is the same photo, comes after it.

    In folders, hidden entries, `SKIPPED_FOLDERS`, files without the suffix of an image and what patterns
    leave out are passed over; a path in `paths` is not. A folder is entered once, however many links lead
    to it. The yielded paths are absolute. A path that does not exist, a folder that cannot be listed and an
    entry that cannot be told from a folder are yielded like photo files: `stat_file` raises the reason.

    Args:
        passed_over: counter that receives the number of raw files, and of pictures in other formats that
            are not read, passed over, by suffix; and of what patterns left out, by `EXCLUDED` and the like.
        listed: called with each folder that could be listed.
        rules: for what is found in folders. Patterns in a `.matirignore` are relative to its folder.
    """
    from matir_cli.photos.formats import readable_suffixes, register_heif  # they import Pillow

    raw = Counter[str]() if passed_over is None else passed_over
    register_heif()
    suffixes = {*readable_suffixes()}
    if rules.raw and reads_raw():
        suffixes |= RAW_SUFFIXES
    else:
        suffixes -= RAW_SUFFIXES  # of which Pillow registers some, as TIFF
    suffixes |= HEIF_SUFFIXES  # without pi-heif these are reported, not passed over
    entered: set[tuple[int, int]] = set()
    for path in paths:
        absolute = absolute_path(path)
        if _is_folder(absolute):
            excludes = Excludes().within(absolute, rules.exclude)
            beside = RAW_SUFFIXES if rules.raw else frozenset[str]()
            found = listed or (lambda _: None)
            yield from _walk(absolute, suffixes, beside, entered, raw, found, excludes)
        else:
            yield absolute


def _is_folder(path: Path) -> bool | None:
    """Return True for a folder or a link to one, None if the system does not tell."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return False if error.errno == errno.ELOOP else None


def _walk(
    top: Path,
    suffixes: set[str],
    beside: frozenset[str],
    entered: set[tuple[int, int]],
    raw: Counter[str],
    listed: Callable[[Path], None],
    excludes: Excludes,
) -> Iterator[Path]:
    """Yield the photo files below `top`, adding to `entered` (device and inode) and `raw`.

    Those with a suffix of `suffixes`, and those with one of `beside` whose picture lies beside them.
    Folders are entered with a stack of their own: one of Python's calls per level would end at 1,000.
    """
    stack: list[tuple[Iterator[Path], Excludes, set[str]]] = [(iter([top]), excludes, set())]
    while stack:
        paths, excludes, pictures = stack[-1]
        path = next(paths, None)
        if path is None:
            stack.pop()
        elif len(stack) == 1 or (is_folder := _is_folder(path)):
            if len(stack) > 1 and excludes.match(path, is_folder=True):
                raw[EXCLUDED_FOLDERS] += 1
                continue
            entries = _list_folder(path, entered)
            if entries is None:
                yield path  # its reader reports what is wrong with it
            else:
                listed(path)
                patterns = read_patterns(path)
                raw.update(() if patterns is not None else (UNUSED_PATTERNS,))
                pictures = {entry.stem for entry in entries if is_beside_raw(entry)}
                entries.sort(key=lambda entry: is_raw(entry) and entry.stem in pictures)
                stack.append((iter(entries), excludes.within(path, patterns or ()), pictures))
        elif is_folder is None or _is_wanted(path, suffixes, beside, pictures):
            if excludes.match(path, is_folder=False):
                raw[EXCLUDED] += 1
            else:
                yield path
        elif path.suffix.lower() in _PASSED_OVER:
            raw[path.suffix.lower()] += 1


def _is_wanted(path: Path, suffixes: set[str], beside: frozenset[str], pictures: set[str]) -> bool:
    """Return True for a photo file by its suffix; `pictures` are stems of those in its folder."""
    suffix = path.suffix.lower()
    return suffix in suffixes or (suffix in beside and path.stem in pictures)


def _list_folder(folder: Path, entered: set[tuple[int, int]]) -> list[Path] | None:
    """Return the entries of a folder that are not passed over, in order of name.

    None if it cannot be listed; an empty list if it was entered before.
    """
    try:
        status = folder.stat()
        if (identity := (status.st_dev, status.st_ino)) in entered:
            return []
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names sort faster than paths
    except OSError:
        return None
    entered.add(identity)
    return [folder / name for name in names if not name.startswith(".") and name not in SKIPPED_FOLDERS]


def check_listable(folder: Path) -> None:
    """Check that a folder can be listed.

    Raises:
        PhotoInaccessible: it cannot, or does not exist.
    """
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except (OSError, ValueError) as error:
        raise PhotoInaccessible(folder, f"folder cannot be listed: {_system_reason(error)}") from error


def stat_file(path: Path) -> FileRecord:
    """Return the size and modification time of a file.

    Raises:
        PhotoInaccessible: it does not exist or cannot be accessed, or is a folder.
        PhotoUnreadable: it is not a plain file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise PhotoInaccessible(path, _system_reason(error)) from error
    if stat.S_ISDIR(status.st_mode):
        check_listable(path)
        raise PhotoInaccessible(path, "is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise PhotoUnreadable(path, "not a plain file")
    # The time that a wrong clock has set may lie beyond what SQLite stores.
    return FileRecord(path, status.st_size, max(-_LATEST, min(status.st_mtime_ns, _LATEST)))


def hash_file(file: FileRecord) -> bytes:
    """Return the SHA-256 of the file's content, 32 bytes.

    Raises:
        PhotoInaccessible: the system fails to read the file.
        PhotoUnreadable: the file is empty.
    """
    if file.bytes == 0:
        raise PhotoUnreadable(file.path, "zero bytes")
    try:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise PhotoInaccessible(file.path, _system_reason(error)) from error


def read_file(file: FileRecord) -> bytes:
    """Return the file's content.

    Raises:
        PhotoInaccessible: the system fails to read the file.
    """
    try:
        return file.path.read_bytes()
    except OSError as error:
        raise PhotoInaccessible(file.path, _system_reason(error)) from error


def _system_reason(error: OSError | ValueError) -> str:
    """Return the system's error message, lower case and without the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error) or "cannot be read").lower()

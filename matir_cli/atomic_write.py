"""Atomic writing of result files: under a temporary name first, then renamed.

Every module that writes a result uses this context manager, whatever the format:

    with atomic_write(path, force=force) as temporary:
        picture.save(temporary, "PNG")

A temporary file is named `.matir-HOST-PID-...` and locked while it is written. A process that is killed
leaves it behind without the lock, which the system releases; the next process that writes to the folder
deletes it. The lock tells the living from the dead even if another process has got the number of a dead
one, and across containers that share a folder. Files of other hosts are left alone, whose locks may not
be seen here.
"""

import contextlib
import hashlib
import io
import os
import platform
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from matir_cli.errors import OutputError, OutputExists

if sys.platform != "win32":
    import fcntl

STREAM = Path("-")
"""The path that stands for standard output."""

_PREFIX = ".matir-"
"""Start of the names of temporary files."""

_LONGEST_SUFFIX = 16
"""Characters. A longer suffix names no format, and would make the temporary name too long for the system."""

_swept: set[tuple[int, int]] = set()
"""Device and inode of the folders from which this process has deleted what others left behind."""


@contextmanager
def atomic_write(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary path for the block to write to, and rename it to `path` when the block ends.

    The temporary file is in the folder of `path`, which is created if necessary, and has the same suffix;
    it exists and is empty. If the block raises, it is deleted and an existing file at `path` is untouched.
    If `path` is a link, the link is kept and its target replaced. If it is a device or a pipe (`/dev/stdout`,
    the shell's `>(gzip)`), there is no file to replace, and the block gets `path` itself.

    Args:
        force: replace an existing file.

    Raises:
        OutputExists: there is a file at `path`, and `force` is False.
        OutputError: `path` cannot be written; every OSError in the block becomes one.
    """
    try:
        if _is_stream(path):
            yield path
            return
        _check(path, force)
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(target) as temporary:
            yield temporary
            _check(path, force)  # another process may have written it meanwhile
            temporary.replace(target)
    except BrokenPipeError:
        raise  # the reader of a pipe has seen enough, which is no error of the output
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


@contextmanager
def open_text(path: Path, *, force: bool, encoding: str = "ascii") -> Iterator[IO[str]]:
    """Open a file for text with `atomic_write`; `STREAM` is standard output.

    Raises:
        OutputExists, OutputError: see `atomic_write`.
    """
    if path == STREAM:
        sys.stdout.flush()
        stream = io.TextIOWrapper(sys.stdout.buffer, encoding=encoding, newline="\n", write_through=True)
        try:
            yield stream
        finally:
            stream.detach()
        return
    with (
        atomic_write(path, force=force) as temporary,
        temporary.open("w", encoding=encoding, newline="\n") as file,
    ):
        yield file


def delete_leftovers(folder: Path) -> None:
    """Delete the temporary files in `folder` that dead processes of this host have left behind.

    The first call for a folder does so, later ones nothing. What cannot be deleted is left.
    """
    if sys.platform == "win32":  # without locks nothing tells the living from the dead
        return
    with contextlib.suppress(OSError):
        status = folder.stat()
        if (identity := (status.st_dev, status.st_ino)) in _swept:
            return
        _swept.add(identity)
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(f"{_PREFIX}{_host()}-")]
        for name in names:
            _delete_if_dead(folder / name)


def _delete_if_dead(path: Path) -> None:
    """Delete a temporary file that no process holds the lock of."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except PermissionError:  # a copy of a file that may only be read
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                path.unlink()
        finally:
            os.close(file)


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Create an empty temporary file beside `target`, with its suffix; it is deleted when the block ends.

    It is locked until then, if the file system has locks. The block may give it another name.
    """
    delete_leftovers(target.parent)
    suffix = target.suffix if len(target.suffix) <= _LONGEST_SUFFIX else ""
    while True:
        path = target.with_name(f"{_PREFIX}{_host()}-{os.getpid()}-{os.urandom(4).hex()}{suffix}")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(file, path):  # deleted before it was locked
                continue
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    """Return True if the open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


@cache
def _host() -> str:
    """Return eight hex digits for this host: its name and, where there is one, its id."""
    identity = platform.node().encode("utf-8", "surrogateescape")
    with contextlib.suppress(OSError):
        identity += Path("/etc/machine-id").read_bytes()
    return hashlib.sha256(identity).hexdigest()[:8]


def _check(path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(path, "it is a folder")
    if not force and os.path.lexists(path):
        raise OutputExists(path)


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))

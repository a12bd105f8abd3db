"""Files by which the processes of one user find the server of a gallery.

They lie in the user's runtime folder, which only that user may enter. Each gallery has its own, named by a
hash of its path: a record of the server, its socket, and a lock that the server holds as long as it lives, so
that what a killed server left behind is told from a running one.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

from matir_cli.atomic_write import atomic_write
from matir_cli.errors import OutputError, ServerFailed, ServerRunning

LONGEST_SOCKET = 100
"""Bytes of a socket's path at most; systems allow 104 or 108."""

_LARGEST_RECORD = 1 << 16
"""Bytes."""


class ServerRecord(msgspec.Struct, frozen=True):
    """What other processes know of a running server."""

    pid: int
    version: str
    """Version of the program that it runs."""
    gallery: str
    """Path of the gallery, links resolved."""
    socket: str
    """Path of the Unix socket."""
    url: str
    """Address of the HTTP API."""
    models: str
    """Model set: its name, or the path of its TOML file."""
    device: str
    """Device that runs the models, as given with --device."""
    started: str
    """ISO 8601, UTC."""

    @property
    def place(self) -> str:
        """Return where the server is, for people."""
        return f"{self.url}, process {self.pid}"


class ServerStatus(msgspec.Struct, frozen=True):
    """What a running server says of itself."""

    searches: int
    """Number of searches at work or waiting."""
    served: int
    """Number of searches so far."""
    loaded: list[str]
    """Names of the engines that are loaded."""


@dataclass(frozen=True, slots=True)
class RuntimeFiles:
    """Paths of the files of one gallery's server."""

    record: Path
    socket: Path
    lock: Path

    @classmethod
    def of(cls, gallery: Path) -> RuntimeFiles:
        """Return the paths for the gallery at `gallery`; none need exist."""
        folder = platformdirs.user_runtime_path("matir", appauthor=False) / "serve"
        name = hashlib.sha256(os.fsencode(os.path.realpath(gallery))).hexdigest()[:16]
        return cls(folder / f"{name}.json", folder / f"{name}.sock", folder / f"{name}.lock")


def program_version() -> str:
    """Return the version of this program."""
    # Imported here: a command without a server does not need it.
    from importlib.metadata import version

    return version("matir-cli")


def find_server(gallery: Path) -> ServerRecord | None:
    """Return the record of the gallery's server; None if there is none. It may be that of a killed server."""
    path = RuntimeFiles.of(gallery).record
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_RECORD)
        return msgspec.json.decode(content, type=ServerRecord) if _is_private(path.parent) else None
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


@contextmanager
def claim_gallery(gallery: Path) -> Iterator[RuntimeFiles]:
    """Be the gallery's only server while the block runs; what an earlier one left behind is deleted.

    Raises:
        ServerRunning: another process is.
        ServerFailed: the runtime folder cannot be used.
    """
    # Imported here: only the server itself needs it.
    from filelock import FileLock, Timeout

    files = RuntimeFiles.of(gallery)
    _make_private(files.lock.parent)
    if len(os.fsencode(files.socket)) > LONGEST_SOCKET:
        raise ServerFailed(f"the path of its socket is too long: {files.socket}")
    try:
        with FileLock(files.lock, timeout=0):
            _delete(files)
            try:
                yield files
            finally:
                _delete(files)
    except Timeout:
        record = find_server(gallery)
        raise ServerRunning(gallery, "it is just starting" if record is None else record.place) from None


def write_record(files: RuntimeFiles, record: ServerRecord) -> None:
    """Write the record, once the server accepts connections.

    Raises:
        ServerFailed: it cannot be written.
    """
    try:
        with atomic_write(files.record, force=True) as temporary:
            temporary.write_bytes(msgspec.json.encode(record))
    except (OutputError, OSError) as error:
        raise ServerFailed(str(error).rstrip(".")) from error


def _delete(files: RuntimeFiles) -> None:
    files.record.unlink(missing_ok=True)
    files.socket.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = _is_private(folder)
    except OSError as error:
        raise ServerFailed(f"the runtime folder {folder} cannot be used: {error.strerror}") from error
    if not private:
        raise ServerFailed(f"the runtime folder {folder} can be entered by other users")


def _is_private(folder: Path) -> bool:
    """Return True if the folder is one, belongs to this user, and no other may enter it."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def file_identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a file, which tell it from another one at the same path."""
    status = path.stat()
    return status.st_dev, status.st_ino

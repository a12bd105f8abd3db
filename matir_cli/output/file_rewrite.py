"""Rewriting of an existing file that belongs to the user: everything but its content is kept."""

from __future__ import annotations

import os
import shutil
from io import FileIO
from pathlib import Path

from matir_cli.atomic_write import temporary_file


def rewrite_file(path: Path, content: bytes) -> None:
    """Give the plain file at `path` (no link) new content.

    Owner, group, mode, access control lists, extended attributes and hard links are kept, as far as the
    system has them; the time of modification is that of the writing. A file with one name is replaced by a
    new one at once. One with several names, or whose owner cannot be given to a new file, is written in
    place; meanwhile a copy of the new content lies beside it, which only a kill leaves behind. Its name is
    not that of a temporary file, so that no later command deletes it.

    Raises:
        OSError: the file cannot be written; it has its old content.
    """
    with temporary_file(path) as temporary:
        temporary.write_bytes(content)
        if path.stat().st_nlink == 1 and _take_owner(temporary, path):
            shutil.copystat(path, temporary)
            os.utime(temporary)  # readers notice a change by the time
            temporary.replace(path)
            return
        spare = temporary.rename(path.with_name(f".matir-{os.urandom(4).hex()}{path.suffix}"))
        try:
            _write_in_place(path, content)
        finally:
            spare.unlink(missing_ok=True)


def _take_owner(file: Path, model: Path) -> bool:
    """Give `file` owner and group of `model`; return False if the system does not permit it."""
    wanted, given = model.stat(), file.stat()
    if (wanted.st_uid, wanted.st_gid) == (given.st_uid, given.st_gid):
        return True
    try:
        os.chown(file, wanted.st_uid, wanted.st_gid)
    except OSError:
        return False
    return True


def _write_in_place(path: Path, content: bytes) -> None:
    with path.open("r+b", buffering=0) as stream:
        before = stream.read()
        try:
            _overwrite(stream, content)
        except OSError:
            _overwrite(stream, before)
            raise


def _overwrite(stream: FileIO, content: bytes) -> None:
    """Write `content` over the file and cut what follows: no byte is cut before all are written."""
    stream.seek(0)
    view = memoryview(content)
    while view:
        view = view[stream.write(view) :]
    stream.truncate()

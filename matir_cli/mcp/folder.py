"""The one folder that a client may have files written to.

It is opened once, at the start. Everything is done relative to that open folder and without following links,
so that neither a link in it nor one put in its place leads out.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from matir_cli.errors import OutputError


class WriteFolder:
    """A folder to write to, which stays open."""

    def __init__(self, path: Path) -> None:
        """Create the folder if it is missing, and open it.

        Raises:
            OutputError: that cannot be done.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise OutputError(path, error.strerror or str(error)) from error
        self.path = Path(os.path.realpath(path))
        """Where it was at the start, links resolved."""

    @contextmanager
    def batch(self, kind: str) -> Iterator[Batch]:
        """Create a new folder in it for the block; `kind` begins its name. It is deleted if it stays empty.

        Raises:
            OutputError: it cannot be created.
        """
        name = f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        place = self.path / name
        try:
            os.mkdir(name, dir_fd=self._folder)
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._folder)
        except OSError as error:
            raise OutputError(place, error.strerror or str(error)) from error
        try:
            yield Batch(place, folder)
        finally:
            os.close(folder)
            with suppress(OSError):  # it is not empty
                os.rmdir(name, dir_fd=self._folder)


class Batch:
    """A new folder with the files of one call."""

    def __init__(self, path: Path, folder: int) -> None:
        """Write into the open `folder`, which was created at `path`."""
        self.path = path
        self._folder = folder

    def take(self, source: Path) -> None:
        """Copy a file into it, under its own name.

        Raises:
            OutputError: it cannot be written; nothing of it is left.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

        def opener(name: str, _flags: int) -> int:
            return os.open(name, flags, 0o666, dir_fd=self._folder)

        try:
            with source.open("rb") as content, open(source.name, "wb", opener=opener) as copy:
                shutil.copyfileobj(content, copy)
        except OSError as error:
            if not isinstance(error, FileExistsError):
                with suppress(OSError):
                    os.unlink(source.name, dir_fd=self._folder)
            raise OutputError(self.path / source.name, error.strerror or str(error)) from error

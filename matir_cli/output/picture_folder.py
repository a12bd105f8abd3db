"""A folder of pictures, written one at a time; existing ones are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from matir_cli.atomic_write import atomic_write, delete_leftovers
from matir_cli.errors import OutputExists


class Picture(Protocol):
    """Something that is saved as Pillow's pictures are."""

    def save(self, fp: Path, format: str | None = None, **settings: int) -> None:  # noqa: A002 - Pillow's name
        """Write to the file `fp`, which exists; its suffix names the format."""
        ...


class PictureFolder:
    """Writes pictures under names that identify their content, so that existing files can be kept."""

    def __init__(self, path: Path, *, force: bool) -> None:
        """Write to the folder `path`; `force` replaces existing files."""
        self.path = path
        self.written = 0
        self.kept = 0
        """Number of files that existed already and were kept."""
        self._force = force
        delete_leftovers(path)  # also if every picture exists and is kept

    def save(self, name: str, make: Callable[[], Picture | None], **settings: int) -> Path | None:
        """Write the picture that `make` returns to `name`, whose suffix names the format.

        Args:
            make: called only if the file is to be written.
            settings: options of Pillow's writer for the format, such as `quality`.

        Returns:
            The path of the file, written or kept; None if `make` returned no picture.

        Raises:
            OutputError: the file cannot be written.
        """
        target = self.path / name
        if not self._force and os.path.lexists(target) and not target.is_dir():
            self.kept += 1
            return target
        picture = make()
        if picture is None:
            return None
        try:
            with atomic_write(target, force=self._force) as temporary:
                picture.save(temporary, None, **settings)
        except OutputExists:  # another process wrote the same picture meanwhile
            self.kept += 1
            return target
        self.written += 1
        return target

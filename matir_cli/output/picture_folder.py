"""A folder that pictures are written to, one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from matir_cli.atomic_write import atomic_write
from matir_cli.errors import OutputExists


class PictureFolder:
    """Writes pictures under names that say what is in them, so that one that exists may stay."""

    def __init__(self, path: Path, *, force: bool) -> None:
        self.path = path
        self.written = 0
        self.kept = 0
        """Files that were there already and were not replaced."""
        self._force = force

    def save(self, name: str, picture: Callable[[], Image.Image | None], **settings: object) -> Path | None:
        """Write what `picture` makes to `name`, its suffix being the format; not even made if kept.

        Returns:
            Where it lies; None where there was no picture to be made.

        Raises:
            OutputError: it cannot be written.
        """
        target = self.path / name
        if not self._force and os.path.lexists(target) and not target.is_dir():
            self.kept += 1
            return target
        made = picture()
        if made is None:
            return None
        try:
            with atomic_write(target, force=self._force) as temporary:
                made.save(temporary, **settings)  # type: ignore[arg-type]
        except OutputExists:  # another process wrote the same meanwhile
            self.kept += 1
            return target
        self.written += 1
        return target

"""The choice of a photo's sidecars among the names that programs use.

digiKam and darktable read and write `photo.jpg.xmp`, Adobe's programs `photo.xmp`, in which they keep the
metadata of a camera raw file. A program that knows both names reads one of them only, so a label goes into
each sidecar that the photo has already. `photo.xmp` may be that of another file of the same name: it says
so itself (`photoshop:SidecarForExtension`), or there is such a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matir_cli.output.sidecars import Sidecar
from matir_cli.output.xmp import APPEND, REPLACE, sidecar_path

MOST_FOLDERS = 64
"""Folders whose pictures are remembered at a time."""


@dataclass(frozen=True, slots=True)
class ChosenSidecars:
    """The sidecars of a photo."""

    sidecars: tuple[Sidecar, ...]
    """The ones to change, at least one."""
    ignored: Path | None
    """Another sidecar beside the photo, which some programs read instead; None if there is none."""


class SidecarChoice:
    """Chooses the sidecars of photos; it remembers which files lie in their folders."""

    def __init__(self, naming: str, *, follow_links: bool) -> None:
        """Choose by `naming`: `AUTO`, `APPEND` or `REPLACE`; `follow_links` as for `Sidecar`."""
        self._naming = naming
        self._follow_links = follow_links
        self._suffixes: dict[Path, dict[str, set[str]]] = {}

    def of(self, photo: Path) -> ChosenSidecars:
        """Open the sidecars of a photo.

        By `AUTO`, these are all that it has, or else a new one named by `APPEND`.

        Raises:
            SidecarUnusable, OutputError: see `Sidecar`.
        """
        append, replace = (_existing(sidecar_path(photo, naming)) for naming in (APPEND, REPLACE))
        if append == replace:  # the photo's name has no suffix
            return ChosenSidecars((self._open(append),), None)
        if self._naming in (APPEND, REPLACE):
            own, other = (append, replace) if self._naming == APPEND else (replace, append)
            return ChosenSidecars((self._open(own),), other if os.path.lexists(other) else None)
        if not os.path.lexists(replace):
            return ChosenSidecars((self._open(append),), None)
        shared = self._open(replace)
        if not self._is_of(shared, photo):
            return ChosenSidecars((self._open(append),), replace)
        if not os.path.lexists(append):
            return ChosenSidecars((shared,), None)
        appended = self._open(append)
        if append.samefile(replace):  # of two names of one file, the link is not deleted with its last label
            return ChosenSidecars((appended if append.is_symlink() else shared,), None)
        return ChosenSidecars((appended, shared), None)

    def _open(self, path: Path) -> Sidecar:
        return Sidecar(path, follow_links=self._follow_links)

    def _is_of(self, sidecar: Sidecar, photo: Path) -> bool:
        """Return True if the sidecar, named by `REPLACE`, is that of this photo and of no other file."""
        if sidecar.extension:
            return sidecar.extension.casefold() == photo.suffix[1:].casefold()
        others = self._photo_suffixes(photo.parent).get(photo.stem, set()) - {photo.suffix}
        return not others

    def _photo_suffixes(self, folder: Path) -> dict[str, set[str]]:
        """Return the suffixes of the pictures in a folder, by stem."""
        known = self._suffixes.get(folder)
        if known is None:
            if len(self._suffixes) >= MOST_FOLDERS:
                self._suffixes.clear()
            from matir_cli.photos.formats import picture_suffixes  # it imports Pillow

            pictures = picture_suffixes()
            known = self._suffixes[folder] = {}
            for path in _files(folder):
                if path.suffix.lower() in pictures:
                    known.setdefault(path.stem, set()).add(path.suffix)
        return known


def _files(folder: Path) -> Iterable[Path]:
    try:
        return [Path(name) for name in os.listdir(folder)]  # noqa: PTH208 - names, not paths, are needed
    except OSError:
        return ()  # the folder may be searched but not listed


def _existing(path: Path) -> Path:
    """Return the path, with .XMP if only that exists."""
    shouted = path.with_suffix(".XMP")
    return shouted if os.path.lexists(shouted) and not os.path.lexists(path) else path

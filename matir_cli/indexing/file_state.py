"""What a gallery knows of files on disk: whether they, their sidecars and their pictures are as before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import stored_sidecar
from matir_cli.gallery.raw_pairs import shared_photo, shares_photo
from matir_cli.photos.decode import read_metadata
from matir_cli.photos.raw_pairs import is_raw
from matir_cli.photos.siblings import DescribedFile, Siblings, describe_file
from matir_cli.records import FileMetadata, FileRecord


@dataclass(slots=True)
class FileCounts:
    """Numbers of files that a run meets; None as long as they are not known."""

    total: int | None = None
    pending: int | None = None
    """Those that must be read, which takes time."""


class FileState:
    """Compares files with a gallery's records of them. It serves one run, in which folders do not change."""

    def __init__(self, gallery: GalleryFile, *, fill_metadata: bool) -> None:
        """Compare with `gallery`.

        Args:
            fill_metadata: metadata that has never been read is due.
        """
        self._gallery = gallery
        self._fill = fill_metadata
        self._siblings = Siblings()

    def is_current(self, file: FileRecord) -> bool:
        """Return True if the file need not be indexed again.

        A raw file whose picture has gone from beside it must: it becomes a photo of its own.
        """
        if not self._gallery.is_unchanged(file):
            return False
        is_alone = is_raw(file.path) and self._siblings.picture_of(file.path) is None
        return not (is_alone and self.shares_photo(file.path))

    def is_metadata_due(self, path: Path) -> bool:
        """Return True if the metadata of a known file must be read: its sidecar is another one than before.

        Raises:
            GalleryDamaged: a stored value is impossible.
        """
        is_known, before = stored_sidecar(self._gallery.connection, self._gallery.path, path)
        return self._siblings.sidecar(path, before) != before if is_known else self._fill

    def is_beside(self, path: Path, *, pictures_first: bool) -> bool:
        """Return True if the file at `path` is a raw file that shares the photo of the picture beside it.

        Args:
            pictures_first: True: there is such a picture on disk. False: the gallery also holds it.
        """
        if self._siblings.picture_of(path) is None:
            return False
        return pictures_first or shared_photo(self._gallery.connection, path) is not None

    def shares_photo(self, path: Path) -> bool:
        """Return True if the gallery knows the raw file at `path` with the photo of a picture of its name."""
        return shares_photo(self._gallery.connection, path)

    def sidecar(self, path: Path) -> FileRecord | None:
        """Return the sidecar that describes the photo at `path`, None if there is none."""
        return self._siblings.sidecar(path)

    def describe(self, path: Path) -> DescribedFile:
        """Read the metadata of a file, none if it cannot be read, and of its sidecar."""
        try:
            metadata = read_metadata(path)
        except PhotoUnreadable:
            metadata = FileMetadata()
        return describe_file(metadata, self._siblings.sidecar(path))

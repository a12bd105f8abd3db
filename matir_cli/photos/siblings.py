"""Files beside photos: their XMP sidecars, and the pictures beside raw files.

digiKam and darktable read and write `photo.jpg.xmp`, Adobe's programs `photo.xmp`. If both are there, the
first counts, as in those programs that know both. `photo.xmp` may be that of another file of the same name:
it says so itself (`photoshop:SidecarForExtension`), or there is such a file. What a sidecar states takes the
place of what the file states, except for keywords that `matir tag` wrote into a sidecar of its own.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.descriptive import clean_keywords, xmp_keywords, xmp_rating
from matir_cli.photos.discover import stat_file
from matir_cli.photos.exif import position_in
from matir_cli.photos.formats import picture_suffixes
from matir_cli.photos.raw_pairs import are_one_photo, is_beside_raw, is_raw, picture_of_raw
from matir_cli.photos.xmp_packet import MAX_PACKET, PHOTOSHOP, TOOLKIT, XmpPacket, read_packet
from matir_cli.records import FileMetadata, FileRecord, Note, NoteKind

MOST_FOLDERS = 64
"""Folders whose content is remembered at a time."""

_EXTENSION = f"{{{PHOTOSHOP}}}SidecarForExtension"


@dataclass(frozen=True, slots=True)
class DescribedFile:
    """The metadata of a file, and where it comes from."""

    metadata: FileMetadata
    sidecar: FileRecord | None
    """The sidecar, if there is one, even if it cannot be read."""
    notes: tuple[Note, ...] = ()
    """States that the sidecar cannot be read."""


class Siblings:
    """Finds what lies beside photos; it remembers what their folders hold, so it serves one run only."""

    def __init__(self) -> None:
        self._folders: OrderedDict[Path, _Folder] = OrderedDict()

    def picture_of(self, raw: Path) -> Path | None:
        """Return the picture beside the raw file at this absolute path that is the same photo.

        None if there is none, or if the file is no raw file.
        """
        beside = self._folder(raw.parent).pictures(raw.stem) if is_raw(raw) else ()
        return picture_of_raw(path for path in beside if is_beside_raw(path))

    def sidecar(self, photo: Path, known: FileRecord | None = None) -> FileRecord | None:
        """Return the sidecar that describes the photo at this absolute path, None if there is none.

        Args:
            known: a sidecar that was found for this photo before; it is not parsed again if it is the same.
        """
        folder = self._folder(photo.parent)
        for name in (f"{photo.name}.xmp", f"{photo.name}.XMP"):
            if name in folder.sidecars:
                return _stat(photo.with_name(name))
        for name in (f"{photo.stem}.xmp", f"{photo.stem}.XMP"):
            if name not in folder.sidecars:
                continue
            sidecar = _stat(photo.with_name(name))
            if sidecar is not None and (sidecar == known or folder.is_of(sidecar, photo)):
                return sidecar
        return None

    def _folder(self, path: Path) -> _Folder:
        if path in self._folders:
            self._folders.move_to_end(path)
        else:
            self._folders[path] = _Folder(path)
            if len(self._folders) > MOST_FOLDERS:
                self._folders.popitem(last=False)
        return self._folders[path]


class _Folder:
    """The names of a folder's sidecars, and its pictures by stem."""

    def __init__(self, path: Path) -> None:
        pictures = picture_suffixes()
        self.sidecars: set[str] = set()
        self._pictures: dict[str, list[Path]] = {}
        for name in _names(path):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - of many names, faster than paths
            if suffix in (".xmp", ".XMP"):
                self.sidecars.add(name)
            elif suffix.lower() in pictures:
                self._pictures.setdefault(stem, []).append(path / name)

    def pictures(self, stem: str) -> list[Path]:
        """Return the pictures whose name has this stem, in order of name."""
        return self._pictures.get(stem, [])

    def is_of(self, sidecar: FileRecord, photo: Path) -> bool:
        """Return True if `photo.xmp` is the sidecar of this photo, and of no other one."""
        others = [path for path in self.pictures(photo.stem) if path != photo]
        try:
            extension = _read(sidecar).texts.get(_EXTENSION, "").strip().casefold()
        except (OSError, ValueError):
            extension = ""
        if not extension:
            return all(are_one_photo(photo, other) for other in others)
        same = [photo, *(other for other in others if are_one_photo(photo, other))]
        return extension in {path.suffix[1:].casefold() for path in same}


def describe_file(file: FileMetadata, sidecar: FileRecord | None) -> DescribedFile:
    """Return what a photo's own metadata and its sidecar say together.

    Args:
        file: what the photo itself says.
        sidecar: as `Siblings.sidecar` returns it.
    """
    if sidecar is None:
        return DescribedFile(file, None)
    try:
        packet = _read(sidecar)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        left_out = f"its sidecar {sidecar.path.name} cannot be read and was left out: {reason}"
        note = Note(NoteKind.METADATA, left_out)
        return DescribedFile(file, sidecar, (note,))
    rating, keywords = xmp_rating(packet), xmp_keywords(packet)
    if keywords is None:
        kept = file.keywords
    elif packet.toolkit == TOOLKIT:
        kept = clean_keywords((*file.keywords, *keywords))
    else:
        kept = clean_keywords(keywords)
    latitude, longitude = position_in(packet) or (None, None)
    merged = FileMetadata(file.rating if rating is None else rating, kept, latitude, longitude)
    return DescribedFile(merged, sidecar)


def _read(sidecar: FileRecord) -> XmpPacket:
    """Parse a sidecar; OSError or ValueError if it cannot be read or is no XMP."""
    with sidecar.path.open("rb") as stream:
        return read_packet(stream.read(MAX_PACKET + 1))


def _stat(path: Path) -> FileRecord | None:
    try:
        return stat_file(path)
    except PhotoUnreadable:
        return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except OSError:
        return []  # the folder may be searched but not listed

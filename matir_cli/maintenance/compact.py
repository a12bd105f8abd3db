"""`matir compact`: the space that deleted photos left behind goes back to the disk, and the search
index is made anew.

SQLite's `vacuum` writes the file's live content once to a temporary file and then over the file
itself, whose old pages lie in the journal meanwhile: a process killed at any moment, or a disk
that fills up, leaves the gallery as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apsw

from matir_cli.errors import RoomTooSmall
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import interruptible
from matir_cli.search.index import rebuild_index


@dataclass(frozen=True, slots=True)
class CompactOutcome:
    """What became of the file, in bytes."""

    before: int
    after: int


def compact_gallery(gallery: GalleryFile, *, drop_previews: bool, forget_verdicts: bool) -> CompactOutcome:
    """Give back unused space and make the index anew; searches answer as before.

    Args:
        drop_previews: delete the stored JPEGs; judging and exports then need the originals.
        forget_verdicts: delete all that judges said.

    Raises:
        RoomTooSmall: the disk has not the room that it takes meanwhile; nothing was changed.
        GalleryDamaged: something in the gallery cannot be right; `matir doctor` says what.
    """
    before = _bytes(gallery.connection)
    check_room(gallery, shutil.disk_usage(gallery.path.parent).free)
    with interruptible(gallery.connection):
        with gallery.atomic():
            if drop_previews:
                gallery.connection.execute("delete from previews")
            if forget_verdicts:
                gallery.connection.execute("delete from questions")
        rebuild_index(gallery)
        with _temporary_beside(gallery):
            gallery.connection.execute("vacuum")
    return CompactOutcome(before, _bytes(gallery.connection))


def check_room(gallery: GalleryFile, free: int) -> None:
    """Make sure that `free` bytes are enough for a copy of the content and a journal of the whole file.

    Raises:
        RoomTooSmall: they are not.
    """
    db = gallery.connection
    content = _bytes(db) - int(db.pragma("freelist_count")) * int(db.pragma("page_size"))
    needed = content + _bytes(db)
    if free < needed:
        raise RoomTooSmall(gallery.path, needed, free)


@contextmanager
def _temporary_beside(gallery: GalleryFile) -> Iterator[None]:
    """SQLite's temporary files lie beside the gallery meanwhile: /tmp may be a piece of main memory."""
    place = str(gallery.path.absolute().parent).replace("'", "''")
    gallery.connection.execute(f"pragma temp_store_directory = '{place}'")
    try:
        yield
    finally:
        gallery.connection.execute("pragma temp_store_directory = ''")


def _bytes(db: apsw.Connection) -> int:
    return int(db.pragma("page_count")) * int(db.pragma("page_size"))

"""`matir compact`: return unused space to the disk and rebuild the search index.

SQLite's `vacuum` writes the file's live content to a temporary file and then over the file itself,
whose old pages are kept in the journal meanwhile: a process killed at any moment, or a disk that
fills up, leaves the gallery unchanged.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from matir_cli.errors import RoomTooSmall
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import HUMAN_JUDGE
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.search.index import rebuild_index


@dataclass(frozen=True, slots=True)
class CompactOutcome:
    """Size of the file before and after, bytes."""

    before: int
    after: int


def compact_gallery(
    gallery: GalleryFile,
    *,
    drop_previews: bool,
    forget_verdicts: bool,
    progress: ProgressObserver = no_progress,
) -> CompactOutcome:
    """Return unused space and rebuild the search index; searches give the same results as before.

    Args:
        drop_previews: delete the stored previews; judging and exports then need the original files.
        forget_verdicts: delete all verdicts and groundings of judges; people's answers stay.

    Raises:
        RoomTooSmall: the disk lacks the room needed meanwhile; nothing was changed.
        GalleryDamaged: a stored value is impossible; `matir doctor` gives details.
    """
    before = gallery.file_bytes
    check_room(gallery, shutil.disk_usage(gallery.path.parent).free)
    with gallery.atomic():
        if drop_previews:
            gallery.connection.execute("delete from previews")
        if forget_verdicts:
            gallery.connection.execute("delete from questions where judge <> ?", (HUMAN_JUDGE,))
    rebuild_index(gallery, progress=progress)
    with _temporary_files_beside(gallery):
        gallery.connection.execute("vacuum")
    return CompactOutcome(before, gallery.file_bytes)


def check_room(gallery: GalleryFile, free: int) -> None:
    """Check that `free` bytes suffice for a copy of the content and a journal of the whole file.

    Raises:
        RoomTooSmall: they do not.
    """
    content = gallery.file_bytes - gallery.free_bytes
    needed = content + gallery.file_bytes
    if free < needed:
        raise RoomTooSmall(gallery.path, needed, free)


@contextmanager
def _temporary_files_beside(gallery: GalleryFile) -> Iterator[None]:
    """Keep SQLite's temporary files in the gallery's folder: /tmp may be kept in main memory."""
    folder = str(gallery.path.absolute().parent).replace("'", "''")
    gallery.connection.execute(f"pragma temp_store_directory = '{folder}'")
    try:
        yield
    finally:
        gallery.connection.execute("pragma temp_store_directory = ''")

"""Notes on what could not be read of photos' files: stored with a photo, deleted with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.rows import check_text
from matir_cli.records import Note, NoteKind

MOST_NOTES = 100
"""Notes on a photo at most; one has a few."""

_SELECT = "select kind, note from notes where photo_id = ? limit ?"


def store_notes(connection: apsw.Connection, photo_id: int, notes: Iterable[Note]) -> None:
    """Write what could not be read of a photo's file; the caller holds the transaction."""
    rows = [(photo_id, note.kind.value, note.text) for note in notes]
    connection.executemany("insert or ignore into notes values (?, ?, ?)", rows)


def stored_notes(connection: apsw.Connection, path: Path, photo_id: int) -> tuple[Note, ...]:
    """Return what could not be read of the photo's file, in order of kind and text; usually nothing.

    Args:
        path: of the gallery, for errors.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """
    rows: Any = connection.execute(_SELECT, (photo_id, MOST_NOTES + 1)).fetchall()
    try:
        if len(rows) > MOST_NOTES:
            raise ValueError(f"more than {MOST_NOTES} notes")
        return tuple(
            Note(NoteKind(check_text(kind, "the kind of a note")), check_text(text, "a note"))
            for kind, text in rows
        )
    except ValueError as error:
        raise GalleryDamaged(path, f"photo {photo_id}: {error}") from error

"""Saved searches of a merge: copied with the photos that they have returned."""

from __future__ import annotations

from typing import Any

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.saved_searches import StoredSearch, saved_searches
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.search.saved_query import read_saved_query


def merge_saved_searches(gallery: GalleryFile, source: GalleryFile, *, dry_run: bool) -> list[str]:
    """Copy the saved searches of `source`, after its photos, in one transaction.

    Of two equal searches of one name, the photos that they have returned are combined. Of two different
    ones, the one in `gallery` stays as it is.

    Args:
        dry_run: write nothing.

    Returns:
        The names of searches that are different ones here.

    Raises:
        GalleryDamaged: a value in `source` is impossible; nothing is copied.
    """
    with translated(source.path), source.snapshot():
        searches = [(search, _returned(source, search)) for search in saved_searches(source)]
        for search, _ in searches:
            try:
                read_saved_query(search.search)
            except ValueError as error:
                raise GalleryDamaged(source.path, f"{search.name}: {error}") from error
    known = {search.name: search.search for search in saved_searches(gallery)}
    clashes = [
        search.name for search, _ in searches if known.get(search.name, search.search) != search.search
    ]
    if not dry_run:
        with gallery.atomic():
            for search, returned in searches:
                if search.name not in clashes:
                    _copy(gallery, search, returned)
    return clashes


def _returned(source: GalleryFile, search: StoredSearch) -> list[bytes]:
    """Return the SHA-256 of the photos that a search has returned."""
    rows: Any = source.connection.execute(
        "select sha256 from saved_results join photos on photos.id = photo_id where search_id = ?",
        (search.id,),
    )
    digests = [digest for (digest,) in rows]
    if not all(isinstance(digest, bytes) and len(digest) == 32 for digest in digests):
        raise GalleryDamaged(source.path, "the SHA-256 of a photo is invalid")
    return digests


def _copy(gallery: GalleryFile, search: StoredSearch, returned: list[bytes]) -> None:
    """Write a search and what it has returned of the photos that `gallery` holds."""
    db = gallery.connection
    db.execute(
        "insert or ignore into saved_searches (name, search, saved_at, run_at) values (?, ?, ?, ?)",
        (search.name, search.search, search.saved_at, search.run_at),
    )
    db.executemany(
        "insert or ignore into saved_results select saved_searches.id, photos.id from saved_searches, photos "
        "where name = ? and sha256 = ?",
        [(search.name, digest) for digest in returned],
    )

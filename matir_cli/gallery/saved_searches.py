"""Saved searches: rows of named searches, and the photos that each has returned.

What is searched for is JSON here; `matir_cli.search.saved_query` reads and checks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from matir_cli.errors import GalleryDamaged, SavedSearchExists, SavedSearchUnknown
from matir_cli.gallery.database import GalleryFile, current_time
from matir_cli.gallery.rows import check_id, check_text

LONGEST_NAME = 100
"""Characters of a saved search's name."""

MOST_SEARCHES = 10_000
"""Saved searches of a gallery at most."""


@dataclass(frozen=True, slots=True)
class StoredSearch:
    """A saved search as it is stored."""

    id: int
    name: str
    search: str
    """JSON; see `matir_cli.search.saved_query`."""
    saved_at: str
    """ISO 8601, UTC."""
    run_at: str | None
    """ISO 8601, UTC; None: it has not run yet."""
    returned: int
    """Number of photos of the gallery that it has returned so far."""


def check_name(name: object) -> str:
    """Return `name` if a saved search may have it.

    Raises:
        ValueError: it is empty, too long, has spaces at its ends, or is not printable text.
    """
    text = check_text(name, "the name of a saved search")
    if not text or text != text.strip() or len(text) > LONGEST_NAME or not text.isprintable():
        raise ValueError(f"the name of a saved search has 1 to {LONGEST_NAME} printable characters")
    return text


_SELECT = (
    "select id, name, search, saved_at, run_at, "
    "(select count(*) from saved_results where search_id = saved_searches.id) from saved_searches"
)


def saved_searches(gallery: GalleryFile) -> list[StoredSearch]:
    """Return all saved searches, in order of name.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """
    rows: Any = gallery.connection.execute(
        f"{_SELECT} order by name limit ?", (MOST_SEARCHES + 1,)
    ).fetchall()
    if len(rows) > MOST_SEARCHES:
        raise GalleryDamaged(gallery.path, f"it has more than {MOST_SEARCHES} saved searches")
    return [_checked(gallery, row) for row in rows]


def find_saved_search(gallery: GalleryFile, name: str) -> StoredSearch:
    """Return the saved search of this name.

    Raises:
        SavedSearchUnknown: there is none.
        GalleryDamaged: a stored value is impossible.
    """
    row = gallery.connection.execute(f"{_SELECT} where name = ?", (name,)).fetchone()
    if row is None:
        raise SavedSearchUnknown(gallery.path, name)
    return _checked(gallery, row)


def _checked(gallery: GalleryFile, row: Any) -> StoredSearch:
    try:
        number, name, search, saved_at, run_at, returned = row
        return StoredSearch(
            check_id(number, "the id of a saved search"),
            check_name(name),
            check_text(search, "a saved search"),
            _checked_date(saved_at),
            None if run_at is None else _checked_date(run_at),
            check_id(returned, "a count"),
        )
    except ValueError as error:
        raise GalleryDamaged(gallery.path, str(error)) from error


def _checked_date(value: object) -> str:
    text = check_text(value, "the date of a saved search")
    datetime.fromisoformat(text)
    return text


def save_search(gallery: GalleryFile, name: str, search: str, *, replace: bool = False) -> None:
    """Save a search.

    Args:
        name: one that `check_name` passes.
        replace: replace a search of this name; the photos that it has returned are forgotten.

    Raises:
        SavedSearchExists: there is one of this name, and `replace` is false.
    """
    db = gallery.connection
    with gallery.atomic():
        if replace:
            db.execute("delete from saved_searches where name = ?", (name,))
        elif db.execute("select 1 from saved_searches where name = ?", (name,)).fetchone() is not None:
            raise SavedSearchExists(gallery.path, name)
        db.execute(
            "insert into saved_searches (name, search, saved_at) values (?, ?, ?)",
            (name, search, current_time()),
        )


def remove_saved_searches(gallery: GalleryFile, names: Iterable[str]) -> None:
    """Forget saved searches, all of them or none.

    Raises:
        SavedSearchUnknown: there is none of one of these names.
    """
    with gallery.atomic():
        for name in names:
            removed = gallery.connection.execute(
                "delete from saved_searches where name = ? returning id", (name,)
            ).fetchone()
            if removed is None:
                raise SavedSearchUnknown(gallery.path, name)


def returned_photos(gallery: GalleryFile, search: StoredSearch) -> set[int]:
    """Return the ids of the photos that the search has returned so far."""
    rows = gallery.connection.execute("select photo_id from saved_results where search_id = ?", (search.id,))
    return {gallery.checked_id(photo_id) for (photo_id,) in rows}


def remember_results(gallery: GalleryFile, search: StoredSearch, photo_ids: Iterable[int]) -> None:
    """Record that the search has run now, and returned these photos; those that are gone are left out."""
    db = gallery.connection
    with gallery.atomic():
        db.execute("update saved_searches set run_at = ? where id = ?", (current_time(), search.id))
        db.executemany(
            "insert or ignore into saved_results select ?1, ?2 "
            "where exists (select 1 from photos where id = ?2) "
            "and exists (select 1 from saved_searches where id = ?1)",
            [(search.id, photo_id) for photo_id in photo_ids],
        )

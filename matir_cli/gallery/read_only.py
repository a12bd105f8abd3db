"""Galleries opened for reading only: they are read from end to end and never changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import apsw

from matir_cli.errors import GalleryDamaged, NotAGallery
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.sqlite_errors import connect, translated
from matir_cli.gallery.union import GalleryReader, GalleryUnion

PAGE = 256
"""Number of photo ids read at a time, so that no lock is held between pages."""


def open_read_only(path: Path) -> GalleryFile:
    """Open the gallery at `path` so that nothing can change it.

    An older schema is not migrated: the tables that the file lacks are empty.

    Raises:
        GalleryMissing: there is no file at `path`.
        GalleryNameInvalid: the path is not UTF-8.
        GalleryReadOnly: the file cannot be opened.
        GalleryUnrecovered: an interrupted write to the file is not rolled back.
        NotAGallery, GalleryTooNew, GalleryDamaged: the file has another schema.
    """
    with translated(path):
        db = connect(path, apsw.SQLITE_OPEN_READONLY)
        try:
            version = schema.check_schema(db, path)
            if schema.is_empty(db):
                raise NotAGallery(path)
            schema.add_missing_tables(db, version)
        except BaseException:
            db.close()
            raise
    return GalleryFile(path, db)


def photo_ids(gallery: GalleryReader) -> Iterator[int]:
    """Yield the ids of all photos in ascending order; a photo deleted meanwhile may be among them.

    Raises:
        GalleryDamaged: the ids are not in order, so that the listing might not end.
    """
    if isinstance(gallery, GalleryUnion):
        yield from gallery.photo_ids().tolist()
        return
    last = -1
    while True:
        rows = gallery.connection.execute(
            "select id from photos where id > ? order by id limit ?", (last, PAGE)
        )
        ids = [int(row[0]) for row in rows]
        if any(following <= before for before, following in pairwise([last, *ids])):
            raise GalleryDamaged(gallery.path, "its photos are not in order")
        yield from ids
        if len(ids) < PAGE:
            return
        last = ids[-1]

"""Copies of a gallery's photos and regions that hold other vectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matir_cli.errors import GalleryBusy
from matir_cli.gallery.database import GalleryFile

_COPIED_TABLES = ("models", "photos", "regions", "region_origins")

_DIFFERENCE = """
    select (select group_concat(role || weight_hash) from main.models)
            is not (select group_concat(role || weight_hash) from source.models)
        or exists (select id, sha256 from main.photos except select id, sha256 from source.photos)
        or exists (select id, sha256 from source.photos except select id, sha256 from main.photos)
        or exists (select id, photo_id from main.regions except select id, photo_id from source.regions)
        or exists (select id, photo_id from source.regions except select id, photo_id from main.regions)
        or exists (select * from main.region_origins except select * from source.region_origins)
        or exists (select * from source.region_origins except select * from main.region_origins)
"""


@contextmanager
def open_region_copy(gallery: GalleryFile, path: Path) -> Iterator[GalleryFile]:
    """Open the gallery at `path`: photos and regions of `gallery`, with the same ids, and its own vectors.

    A copy that no longer matches `gallery` (other photos, other regions, or other models) is deleted and
    made anew, without vectors. `gallery` is attached to the copy under the name "source".

    Raises:
        GalleryBusy: `gallery` kept changing while it was copied.
    """
    for _ in range(2):
        with GalleryFile.open(path, create=True) as copy:
            copy.connection.execute("attach ? as source", (str(gallery.path),))
            if copy.count_photos() == 0:
                with copy.atomic():
                    for table in _COPIED_TABLES:
                        copy.connection.execute(f"insert into main.{table} select * from source.{table}")  # noqa: S608 - constants
            if not copy.connection.execute(_DIFFERENCE).get:
                yield copy
                return
        path.unlink()
    raise GalleryBusy(gallery.path)


def photos_with_vectors(gallery: GalleryFile) -> set[int]:
    """Return the ids of the photos that have at least one stored vector."""
    rows = gallery.connection.execute("select distinct photo_id from main.vectors")
    return {int(photo_id) for (photo_id,) in rows}

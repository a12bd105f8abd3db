"""The content of a gallery, without what depends on the order in which photos were added."""

from pathlib import Path
from typing import Any

from matir_cli.gallery.database import GalleryFile

PHOTO_TABLES = ("previews", "notes")
FILE_TABLES = ("file_metadata", "file_keywords", "skipped")


def content_of(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Table to its rows, sorted: photos by SHA-256 instead of by id, regions by ordinal, without times."""
    with GalleryFile.open(path) as gallery:

        def rows(columns: str, rest: str) -> list[tuple[Any, ...]]:
            return sorted(gallery.connection.execute(f"select {columns} from {rest}"), key=repr)

        def names(table: str, *unwanted: str) -> str:
            listed = [row[1] for row in gallery.connection.execute(f"pragma table_info({table})")]
            assert {*unwanted} <= {*listed}
            return ", ".join(f"{table}.{name}" for name in listed if name not in unwanted)

        content = {
            "models": rows("*", "models"),
            "photos": rows(names("photos", "id", "added_at"), "photos"),
            "files": rows(
                f"sha256, {names('files', 'photo_id')}", "files join photos on photos.id = files.photo_id"
            ),
            "regions": rows(
                f"sha256, {names('regions', 'id', 'photo_id')}",
                "regions join photos on photos.id = regions.photo_id",
            ),
            "vectors": rows(
                "sha256, ordinal, vector",
                "vectors join regions on regions.id = region_id join photos on photos.id = regions.photo_id",
            ),
            "residuals": rows("sha256, residuals", "residuals join photos on photos.id = photo_id"),
        }
        for table in PHOTO_TABLES:
            joined = f"{table} join photos on photos.id = {table}.photo_id"
            content[table] = rows(f"sha256, {names(table, 'photo_id')}", joined)
        for table in FILE_TABLES:
            unwanted = ("seen_at",) if table == "skipped" else ()
            content[table] = rows(names(table, *unwanted), table)
        return content

"""Listings of photo files and of files that could not be indexed."""

from pathlib import Path
from typing import Any

import pytest

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata
from matir_cli.gallery.notes import store_notes
from matir_cli.maintenance.listing import (
    ListedFile,
    SkippedFile,
    list_paths,
    list_photo_files,
    list_skipped_files,
)
from matir_cli.records import FileMetadata, FileRecord, Note, NoteKind
from tests.support.crafted_gallery import HEIGHT, REGIONS, WIDTH, craft, place, put


def listed(path: Path, photo_id: int, size: int) -> ListedFile:
    """The listing of a file of `size` bytes that holds a crafted photo."""
    pixels = (2 * WIDTH, 2 * HEIGHT)
    taken = "2024-05-06T07:08:09"
    return ListedFile(path, photo_id, *pixels, REGIONS - 1, size, taken, "ACME", None, None, None, ())


def test_photo_files_are_listed_with_their_photo(tmp_path: Path) -> None:
    present = tmp_path / "present.jpg"
    present.touch()
    with craft(tmp_path / "gallery.db", ["b", "a"]) as gallery:
        with gallery.atomic():
            put(gallery, "present", file=FileRecord(present, 5, 6))
        here = listed(present, 3, 5)
        crafted = [listed(place("a"), 2, 10), listed(place("b"), 1, 10)]
        assert list(list_photo_files(gallery)) == [*crafted, here]
        assert list(list_photo_files(gallery, missing=True)) == crafted
        assert list(list_photo_files(gallery, tmp_path)) == [here]
        assert list(list_photo_files(gallery, place("a"))) == crafted[:1]


def test_metadata_is_listed_per_file(tmp_path: Path) -> None:
    with craft(tmp_path / "gallery.db", ["a"]) as gallery:
        gallery.link(FileRecord(Path("/photos/copy.jpg"), 10, 20), 1)
        store_metadata(gallery.connection, place("a"), FileMetadata(4, ("dog",), 48.5, -3.0), None)
        first, second = list_photo_files(gallery)
        assert (first.rating, first.keywords, first.latitude, first.longitude) == (4, ("dog",), 48.5, -3.0)
        assert (second.rating, second.keywords, second.latitude, second.longitude) == (None, (), None, None)
        gallery.connection.execute("update file_metadata set rating = 'x'")
        with pytest.raises(GalleryDamaged):
            list(list_photo_files(gallery))


def test_a_listing_takes_no_statement_per_photo(tmp_path: Path) -> None:
    statements: list[str] = []

    def trace(_cursor: object, statement: str, _bindings: Any) -> bool:
        statements.append(statement)
        return True

    with craft(tmp_path / "gallery.db", [str(number) for number in range(30)]) as gallery:
        for number in range(30):
            keywords = ("dog",) if number < 2 else ()
            store_metadata(gallery.connection, place(str(number)), FileMetadata(4, keywords), None)
        store_notes(gallery.connection, 1, [Note(NoteKind.PICTURE, "cut")])
        gallery.connection.exec_trace = trace
        files = list(list_photo_files(gallery))
        assert len(statements) == 1 + 2 + 1  # the page, keywords of two files, notes of one photo
        statements.clear()
        paths = list(list_paths(gallery))
        assert len(statements) == 1
        assert "regions" not in statements[0]
    assert [len(file.keywords) for file in files].count(1) == 2
    assert [len(file.notes) for file in files].count(1) == 1
    assert {file.rating for file in files} == {4}
    assert [(each.path, each.photo_id) for each in paths] == [(each.path, each.id) for each in files]


def test_skipped_files_are_listed_with_a_reason(tmp_path: Path) -> None:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        gallery.remember_skipped(FileRecord(Path("/a/bad.jpg"), 0, 1), "zero bytes")
        gallery.remember_skipped(FileRecord(tmp_path, 7, 1), "not an image")
        rows = list(list_skipped_files(gallery))
        assert [(item.path, item.reason, item.bytes) for item in rows] == [
            (Path("/a/bad.jpg"), "zero bytes", 0),
            (tmp_path, "not an image", 7),
        ]
        assert all(isinstance(item, SkippedFile) and item.seen_at.endswith("+00:00") for item in rows)
        assert list(list_skipped_files(gallery, missing=True)) == rows[:1]
        assert list(list_skipped_files(gallery, tmp_path)) == rows[1:]


def test_a_value_of_another_type_is_damage(tmp_path: Path) -> None:
    with craft(tmp_path / "gallery.db", ["a"]) as gallery:
        gallery.connection.execute("update photos set camera = x'00'")
        with pytest.raises(GalleryDamaged, match="/photos/a"):
            list(list_photo_files(gallery))

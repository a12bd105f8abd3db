"""Files that a gallery knows: names of any bytes, folders, paging, forgetting."""

import os
from pathlib import Path

import pytest

from matir_cli import errors
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import (
    PAGE,
    count_files_below,
    find_photo,
    forget_files,
    known_files,
    skipped_files,
)
from matir_cli.gallery.paths import BELOW, below_bindings
from matir_cli.records import FileRecord
from tests.gallery.test_database import add, file, photo, region

NAMES = [
    b"/a/b",
    b"/a/b/1.jpg",
    b"/a/b/\xff.jpg",
    b"/a/b/new\nline.jpg",
    b"/a/b/~",
    b"/a/b0",
    b"/a/b.jpg",
    b"/a/bc/1.jpg",
    b"/a/\xff/1.jpg",
    b"/a/\xff/\xd7\xa9.jpg",
    b"/a/\xffx/1.jpg",
    b"/A/b/1.jpg",
    b"/a/%/1.jpg",
    b"/a/_/1.jpg",
]


@pytest.fixture
def gallery(tmp_path: Path) -> GalleryFile:
    """One photo per name; under /skipped, each name again as a file that could not be indexed."""
    gallery = GalleryFile.open(tmp_path / "gallery.db", create=True)
    with gallery.atomic():
        for seed, name in enumerate(NAMES, start=1):
            gallery.add_photo(file(os.fsdecode(name)), photo(seed), [region()], None)
    for name in NAMES:
        gallery.remember_skipped(file(os.fsdecode(b"/skipped" + name)), "zero bytes")
    return gallery


@pytest.mark.parametrize(
    "folder", [b"/", b"/a", b"/a/b", b"/a/b/", b"/a/\xff", b"/a/b/1.jpg", b"/a/%", b"/a/_", b"/no"]
)
def test_files_below_a_folder_are_those_that_pathlib_names(gallery: GalleryFile, folder: bytes) -> None:
    within = Path(os.fsdecode(folder))
    expected = {name for name in NAMES if Path(os.fsdecode(name)).is_relative_to(within)}
    assert {os.fsencode(item.path) for item in known_files(gallery, within)} == expected
    assert {item.photo_id for item in known_files(gallery, within)} == {NAMES.index(n) + 1 for n in expected}
    assert count_files_below(gallery, within) == len(expected)
    skipped = Path(os.fsdecode(b"/skipped" + folder))
    assert {os.fsencode(path) for path in skipped_files(gallery, skipped)} == {
        b"/skipped" + name for name in expected
    }


def test_a_folder_is_read_by_primary_key_alone(gallery: GalleryFile) -> None:
    plan = "explain query plan select photo_id from files where " + BELOW
    steps = [row[3] for row in gallery.connection.execute(plan, below_bindings(Path("/a/b")))]
    assert any("USING PRIMARY KEY (path=?)" in step for step in steps)
    assert not any("SCAN" in step for step in steps)


def test_a_listing_is_complete_over_pages_and_holds_no_lock(tmp_path: Path) -> None:
    count = 2 * PAGE + 1
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        photo_id = add(gallery, name="/p/00000.jpg")
        with gallery.atomic():
            for number in range(1, count):
                gallery.link(file(f"/p/{number:05}.jpg"), photo_id)
        listing = known_files(gallery)
        assert next(listing).path == Path("/p/00000.jpg")
        with GalleryFile.open(tmp_path / "gallery.db") as other:  # need not wait until the listing ends
            other.connection.set_busy_timeout(0)
            other.remember_skipped(file("/q.jpg"), "zero bytes")
        assert [item.path.name for item in listing] == [f"{number:05}.jpg" for number in range(1, count)]
        forgotten = forget_files(gallery, (item.path for item in known_files(gallery)))
        assert sum(1 for _ in forgotten) == count
        assert gallery.count_photos() == 0


def test_a_photo_is_forgotten_with_its_last_file(tmp_path: Path) -> None:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        photo_id = add(gallery, name="/a/1.jpg")
        with gallery.atomic():
            gallery.link(file("/a/2.jpg"), photo_id)
        one, two, unknown = Path("/a/1.jpg"), Path("/a/2.jpg"), Path("/a/3.jpg")
        assert [*forget_files(gallery, [one, unknown, one])] == [one]
        assert gallery.paths(photo_id) == (two,)
        assert [*forget_files(gallery, [two])] == [two]
        for table in ("photos", "regions", "previews", "files"):
            assert gallery.connection.execute(f"select count(*) from {table}").get == 0


def test_a_photo_is_found_by_id_and_by_file(
    gallery: GalleryFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_photo(gallery, "3") == 3
    assert find_photo(gallery, os.fsdecode(NAMES[2])) == 3
    monkeypatch.chdir(tmp_path)
    with gallery.atomic():
        gallery.link(FileRecord(tmp_path / "12", 1, 1), 1)
    assert find_photo(gallery, "./12") == 1
    for name in ("0", "99", "9" * 30, "9" * 5000, "/a/c", "", "-3", "٣"):
        with pytest.raises(errors.PhotoUnknown) as caught:
            find_photo(gallery, name)
        assert caught.value.name == name

"""Selecting the files to remove from a gallery."""

from pathlib import Path

import pytest

from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.remove import files_below, files_of_photo
from matir_cli.records import FileRecord
from tests.support.crafted_gallery import craft, place


@pytest.fixture
def gallery(tmp_path: Path) -> GalleryFile:
    """A gallery of two photos, a copy of the first one, and a file that could not be indexed."""
    gallery = craft(tmp_path / "gallery.db", ["a", "b"])
    with gallery.atomic():
        gallery.link(FileRecord(place("copy"), 10, 20), 1)
    gallery.remember_skipped(FileRecord(place("bad"), 0, 1), "zero bytes")
    return gallery


def test_an_id_means_all_files_and_a_path_one(gallery: GalleryFile) -> None:
    both = (place("a"), place("copy"))
    assert files_of_photo(gallery, "1", all_copies=False) == both
    assert files_of_photo(gallery, str(place("a")), all_copies=False) == both[:1]
    assert files_of_photo(gallery, str(place("copy")), all_copies=True) == both
    assert files_of_photo(gallery, str(place("bad")), all_copies=True) == (place("bad"),)
    for unknown in ("3", str(place("c"))):
        with pytest.raises(PhotoUnknown):
            files_of_photo(gallery, unknown, all_copies=False)


def test_a_relative_path_is_taken_from_the_working_directory(
    gallery: GalleryFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gallery.atomic():
        gallery.link(FileRecord(tmp_path / "c.jpg", 10, 20), 2)
    monkeypatch.chdir(tmp_path)
    assert files_of_photo(gallery, "./c.jpg", all_copies=False) == (tmp_path / "c.jpg",)


def test_a_folder_means_every_known_file_below_it(gallery: GalleryFile) -> None:
    assert list(files_below(gallery, Path("/photos"))) == [
        *(place("a"), place("b"), place("copy")),
        place("bad"),
    ]
    assert list(files_below(gallery, place("bad"))) == [place("bad")]
    with pytest.raises(PhotoUnknown):
        list(files_below(gallery, Path("/other")))

"""Ratings and keywords of files and their sidecars, read by `add` and refreshed by `sync`."""

from pathlib import Path
from typing import NoReturn

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import count_unread
from matir_cli.indexing.outcomes import Added, Linked, Refreshed, Unchanged
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.sync import ChangeKind, SyncOutcome, folder_roots, list_changes, sync_folders
from matir_cli.output.sidecars import Sidecar
from matir_cli.output.xmp import XmpTag
from matir_cli.records import FileMetadata
from matir_cli.search.filters import Filters
from tests.photos.packets import bag, described
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import scene

MODELS = IndexingModels(ColourProposer, ColourEncoder)


def unwanted() -> NoReturn:
    raise AssertionError("a model was loaded")


NO_MODELS = IndexingModels(unwanted, unwanted)


class Folder:
    """A gallery beside a folder with one photo, of rating 2 and with the keyword "holiday"."""

    def __init__(self, place: Path) -> None:
        self.photos = place / "photos"
        self.photos.mkdir()
        self.photo = self.photos / "a.jpg"
        packet = described('xmp:Rating="2"', bag("dc:subject", "holiday"))
        scene("red", size=(60, 40)).save(self.photo, xmp=packet)
        self.db = place / "gallery.db"

    def add(self) -> list[object]:
        with GalleryFile.open(self.db, create=True) as gallery:
            return [*add_photos(gallery, [self.photos], MODELS, previews=False)]

    def sync(self, *, fill_metadata: bool = False, models: IndexingModels = NO_MODELS) -> list[SyncOutcome]:
        roots = folder_roots([self.photos])
        with GalleryFile.open(self.db) as gallery:
            return [
                *sync_folders(gallery, roots, models, previews=False, fill_metadata=fill_metadata),
            ]

    def changes(self, *, fill_metadata: bool = False) -> list[tuple[str, Path]]:
        with GalleryFile.open(self.db) as gallery:
            changes = list_changes(gallery, folder_roots([self.photos]), fill_metadata=fill_metadata)
            return [(change.mark.value, change.path) for change in changes]

    def metadata(self) -> FileMetadata:
        with GalleryFile.open(self.db) as gallery:
            return gallery.photo(1).metadata

    def write(self, content: bytes, name: str = "a.jpg.xmp") -> None:
        (self.photos / name).write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    assert made.add() == [Added(made.photo, 1)]
    return made


def test_add_reads_a_file_and_its_sidecar(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(described('xmp:Rating="-1"', bag("dc:subject", "a", "b")))
    assert folder.add() == [Added(folder.photo, 1)]
    assert folder.metadata() == FileMetadata(-1, ("a", "b"))
    assert folder.sync() == [Unchanged(folder.photo)]


def test_a_sidecar_that_comes_changes_and_goes_is_read_without_a_model(folder: Folder) -> None:
    assert folder.metadata() == FileMetadata(2, ("holiday",))
    folder.write(described('xmp:Rating="5"'))
    before = folder.db.read_bytes()
    assert folder.changes() == [(ChangeKind.METADATA.value, folder.photo)]
    assert folder.db.read_bytes() == before
    assert folder.sync() == [Refreshed(folder.photo)]
    assert folder.metadata() == FileMetadata(5, ("holiday",))
    assert (folder.changes(), folder.sync()) == ([], [Unchanged(folder.photo)])
    folder.write(described('xmp:Rating="1"', bag("dc:subject", "b")))
    assert folder.sync() == [Refreshed(folder.photo)]
    assert folder.metadata() == FileMetadata(1, ("b",))
    (folder.photos / "a.jpg.xmp").unlink()
    folder.write(described("", bag("dc:subject", "c")), "a.xmp")
    assert folder.add() == [Refreshed(folder.photo)]
    assert folder.metadata() == FileMetadata(2, ("c",))
    (folder.photos / "a.xmp").unlink()
    assert folder.sync() == [Refreshed(folder.photo)]
    assert folder.metadata() == FileMetadata(2, ("holiday",))


def test_a_broken_sidecar_is_said_once(folder: Folder) -> None:
    folder.write(b"<x")
    (outcome,) = folder.sync()
    assert isinstance(outcome, Refreshed)
    (note,) = outcome.notes
    reason = "the XMP packet is not well-formed"
    assert note.text == f"its sidecar a.jpg.xmp cannot be read and was left out: {reason}"
    assert folder.metadata() == FileMetadata(2, ("holiday",))
    assert folder.sync() == [Unchanged(folder.photo)]


def test_a_label_that_tag_has_written_is_a_keyword_after_the_next_sync(folder: Folder) -> None:
    with GalleryFile.open(folder.db) as gallery:
        record = gallery.photo(1).record
    sidecar = Sidecar(folder.photos / "a.jpg.xmp")
    assert sidecar.add(XmpTag("dog on a lead"), record)
    sidecar.write()
    assert folder.sync() == [Refreshed(folder.photo)]
    assert folder.metadata() == FileMetadata(2, ("dog on a lead", "holiday"))
    again = Sidecar(folder.photos / "a.jpg.xmp")
    assert again.remove("dog on a lead")
    again.write()
    assert folder.sync() == [Refreshed(folder.photo)]
    assert folder.metadata() == FileMetadata(2, ("holiday",))


def test_an_older_gallery_is_filled_in_on_request(folder: Folder) -> None:
    folder.write(described('xmp:Rating="5"'))
    with GalleryFile.open(folder.db) as gallery:
        gallery.connection.execute("delete from file_metadata")
        assert count_unread(gallery.connection) == 1
        rated = Filters(rating=(1, 5)).photos(gallery)
        assert rated is not None
        assert rated.size == 0
    assert folder.metadata() == FileMetadata()
    assert (folder.changes(), folder.sync()) == ([], [Unchanged(folder.photo)])
    assert folder.changes(fill_metadata=True) == [(ChangeKind.METADATA.value, folder.photo)]
    assert folder.sync(fill_metadata=True) == [Refreshed(folder.photo)]
    assert folder.metadata() == FileMetadata(5, ("holiday",))
    assert folder.sync(fill_metadata=True) == [Unchanged(folder.photo)]
    with GalleryFile.open(folder.db) as gallery:
        assert count_unread(gallery.connection) == 0


def test_copies_and_renamed_files_have_metadata_of_their_own(folder: Folder) -> None:
    copy = folder.photos / "b.jpg"
    copy.write_bytes(folder.photo.read_bytes())
    folder.write(described('xmp:Rating="4"', bag("dc:subject", "copy")), "b.jpg.xmp")
    assert folder.sync() == [Unchanged(folder.photo), Linked(copy)]
    assert folder.metadata() == FileMetadata(4, ("copy", "holiday"))
    copy.rename(folder.photos / "c.jpg")
    folder.sync()
    assert folder.metadata() == FileMetadata(2, ("holiday",))
    (folder.photos / "b.jpg.xmp").rename(folder.photos / "c.jpg.xmp")
    assert Refreshed(folder.photos / "c.jpg") in folder.sync()
    assert folder.metadata() == FileMetadata(4, ("copy", "holiday"))


def test_a_changed_file_is_read_anew(folder: Folder) -> None:
    folder.write(described('xmp:Rating="4"'))
    scene("blue", size=(60, 40)).save(folder.photo, xmp=described("", bag("dc:subject", "new")))
    assert folder.sync(models=MODELS) == [Added(folder.photo, 1)]
    with GalleryFile.open(folder.db) as gallery:
        assert gallery.photo(2).metadata == FileMetadata(4, ("new",))
        assert gallery.connection.execute("select count(*) from file_metadata").get == 1

"""A raw file beside its JPEG or HEIC is the same photo, in whichever order they come and go."""

import shutil
from itertools import permutations
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import forget_files, known_files
from matir_cli.indexing.outcomes import Added, Linked, Refreshed, Skipped, Unchanged
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.sync import Dropped, SyncOutcome, check_folders, folder_roots, sync_folders
from matir_cli.maintenance.merge import merge_gallery
from matir_cli.maintenance.remove import files_of_photo
from matir_cli.photos.discover import FolderRules
from matir_cli.records import FileMetadata
from tests.photos.dng import dng
from tests.photos.packets import bag, described
from tests.support.crafted_gallery import MODELS
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import scene

SIZE = (60, 40)
RAW_SIZE = (64, 42)
"""Cameras crop the JPEG."""


class Shots:
    """A folder with foo.JPG and foo.dng, and a gallery beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place / "shots"
        self.folder.mkdir()
        self.jpeg, self.raw = self.folder / "foo.JPG", self.folder / "foo.dng"
        scene("red", size=SIZE).save(self.jpeg)
        self.raw.write_bytes(dng(scene("red", size=RAW_SIZE)))
        self.db = place / "gallery.db"

    def add(self, *paths: Path, raw: bool = True, exclude: tuple[str, ...] = ()) -> list[object]:
        rules = FolderRules(exclude, raw)
        with GalleryFile.open(self.db, create=True) as gallery:
            for role, identity in MODELS.items():
                gallery.bind_model(role, identity, "fakes")
            models = IndexingModels(ColourProposer, ColourEncoder)
            return [*add_photos(gallery, paths or [self.folder], models, previews=False, rules=rules)]

    def sync(self) -> list[SyncOutcome]:
        roots = folder_roots([self.folder])
        with GalleryFile.open(self.db) as gallery:
            check_folders(gallery, roots, drop_all=False)
            models = IndexingModels(ColourProposer, ColourEncoder)
            return [*sync_folders(gallery, roots, models, previews=False)]

    def photos(self) -> list[list[str]]:
        """The names of each photo's files, as results show them."""
        with GalleryFile.open(self.db) as gallery:
            ids = sorted({file.photo_id for file in known_files(gallery)})
            assert gallery.count_photos() == len(ids)
            return [[path.name for path in gallery.photo(photo_id).paths] for photo_id in ids]

    def sizes(self) -> list[tuple[int, int]]:
        with GalleryFile.open(self.db) as gallery:
            rows = gallery.connection.execute("select width, height from photos order by id")
            return [(int(str(width)), int(str(height))) for width, height in rows]

    def is_settled(self) -> bool:
        """A further run changes nothing."""
        return {type(outcome) for outcome in self.sync()} <= {Unchanged}


@pytest.fixture
def shots(tmp_path: Path) -> Shots:
    return Shots(tmp_path)


PAIR = [["foo.JPG", "foo.dng"]]


def test_a_folder_with_both_holds_one_photo(shots: Shots) -> None:
    assert shots.add() == [Added(shots.jpeg, 1), Linked(shots.raw)]
    assert (shots.photos(), shots.sizes()) == (PAIR, [SIZE])
    assert shots.add() == [Unchanged(shots.jpeg), Unchanged(shots.raw)]
    assert shots.is_settled()


@pytest.mark.parametrize("order", [*permutations(["foo.JPG", "foo.dng", "foo.HEIC", "foo.cr2"])])
def test_any_order_leads_to_the_same_photos(shots: Shots, order: tuple[str, ...]) -> None:
    shutil.copy(shots.raw, shots.folder / "foo.cr2")
    scene("blue", size=SIZE).save(shots.folder / "foo.HEIC", format="PNG")  # decoded by its content
    for name in order:
        shots.add(shots.folder / name)
    assert sorted(shots.photos()) == [["foo.HEIC"], ["foo.JPG", "foo.cr2", "foo.dng"]]
    assert shots.is_settled()


def test_both_named_at_once_the_raw_file_first(shots: Shots) -> None:
    assert sorted(map(str, shots.add(shots.raw, shots.jpeg))) == sorted(
        map(str, [Added(shots.jpeg, 1), Linked(shots.raw)])
    )
    assert shots.photos() == PAIR


def test_a_raw_file_that_was_a_photo_of_its_own_joins_its_picture(shots: Shots) -> None:
    hidden = shots.jpeg.rename(shots.place / "hidden")
    assert shots.add() == [Added(shots.raw, 1)]
    assert shots.sizes() == [RAW_SIZE]
    hidden.rename(shots.jpeg)
    assert Added(shots.jpeg, 1) in shots.sync()
    assert (shots.photos(), shots.sizes()) == (PAIR, [SIZE])
    assert shots.is_settled()


def test_a_raw_file_whose_picture_has_gone_becomes_a_photo_of_its_own(shots: Shots) -> None:
    scene("blue").save(shots.folder / "other.png")
    shots.add()
    shots.jpeg.unlink()
    outcomes = shots.sync()
    assert {Added(shots.raw, 1), Dropped(shots.jpeg)} <= set(outcomes)
    assert (sorted(shots.photos()), shots.sizes()[-1]) == ([["foo.dng"], ["other.png"]], RAW_SIZE)
    assert shots.is_settled()


def test_a_raw_file_that_has_gone_leaves_the_picture(shots: Shots) -> None:
    shots.add()
    shots.raw.unlink()
    assert Dropped(shots.raw) in shots.sync()
    assert shots.photos() == [["foo.JPG"]]
    assert shots.is_settled()


@pytest.mark.parametrize("whole_folder", [True, False])
def test_an_edited_picture_takes_its_raw_file_along(shots: Shots, whole_folder: bool) -> None:
    shots.add()
    scene("blue", size=SIZE).save(shots.jpeg)
    outcomes = shots.add() if whole_folder else shots.add(shots.jpeg)
    assert Added(shots.jpeg, 1) in outcomes
    assert shots.photos() == PAIR
    assert shots.is_settled()


def test_a_changed_raw_file_stays_with_its_picture(shots: Shots) -> None:
    shots.add()
    shots.raw.write_bytes(dng(scene("green", size=RAW_SIZE)))
    assert shots.sync() == [Unchanged(shots.jpeg), Linked(shots.raw)]
    assert (shots.photos(), shots.is_settled()) == (PAIR, True)


def test_an_unreadable_picture_leaves_the_raw_file_alone(shots: Shots) -> None:
    shots.add()
    shots.jpeg.write_bytes(b"not a picture")
    outcomes = shots.sync()
    assert Added(shots.raw, 1) in outcomes
    assert [type(each) for each in outcomes if each != Added(shots.raw, 1)] == [Skipped]
    assert (shots.photos(), shots.sizes()) == ([["foo.dng"]], [RAW_SIZE])


def test_a_picture_that_is_left_out_leaves_the_raw_file_alone(shots: Shots) -> None:
    assert shots.add(exclude=("*.JPG",)) == [Added(shots.raw, 1)]
    assert shots.add(exclude=("*.JPG",)) == [Unchanged(shots.raw)]
    assert shots.photos() == [["foo.dng"]]


def test_without_raw_files_only_the_picture_is_added(shots: Shots) -> None:
    assert shots.add(raw=False) == [Added(shots.jpeg, 1)]
    assert shots.add() == [Unchanged(shots.jpeg), Linked(shots.raw)]
    assert shots.add(raw=False) == [Unchanged(shots.jpeg)]
    assert shots.photos() == PAIR


def test_moved_together_and_apart(shots: Shots) -> None:
    scene("blue").save(shots.folder / "other.png")
    shots.add()
    deep = shots.folder / "deep"
    deep.mkdir()
    for path in (shots.jpeg, shots.raw):
        path.rename(deep / path.name)
    assert {Linked(deep / "foo.JPG"), Linked(deep / "foo.dng")} <= set(shots.sync())
    assert sorted(shots.photos()) == [PAIR[0], ["other.png"]]
    assert shots.is_settled()
    (deep / "foo.JPG").rename(deep / "bar.JPG")
    assert {Linked(deep / "bar.JPG"), Added(deep / "foo.dng", 1)} <= set(shots.sync())
    assert sorted(shots.photos()) == [["bar.JPG"], ["foo.dng"], ["other.png"]]
    assert shots.is_settled()


def test_removing_a_picture_removes_its_raw_file_but_not_the_other_way(shots: Shots) -> None:
    shots.add()
    with GalleryFile.open(shots.db) as gallery:
        assert files_of_photo(gallery, str(shots.raw), all_copies=False) == (shots.raw,)
        both = files_of_photo(gallery, str(shots.jpeg), all_copies=False)
        assert both == (shots.jpeg, shots.raw)
        assert list(forget_files(gallery, both)) == [*both]
        assert gallery.count_photos() == 0
    shots.add()
    with GalleryFile.open(shots.db) as gallery:
        assert list(forget_files(gallery, [shots.jpeg])) == [shots.jpeg]  # as `rm --missing` may
    assert shots.photos() == [["foo.dng"]]
    assert shots.add(shots.jpeg) == [Linked(shots.jpeg)]
    shots.sync()
    assert (shots.photos(), shots.is_settled()) == (PAIR, True)


def test_one_sidecar_describes_both(shots: Shots) -> None:
    (shots.folder / "foo.xmp").write_bytes(described('xmp:Rating="4"', bag("dc:subject", "x")))
    shots.add()
    with GalleryFile.open(shots.db) as gallery:
        assert gallery.photo(1).metadata == FileMetadata(4, ("x",))
    (shots.folder / "foo.xmp").write_bytes(described('xmp:Rating="1" photoshop:SidecarForExtension="DNG"'))
    assert shots.sync() == [Refreshed(shots.jpeg), Refreshed(shots.raw)]
    with GalleryFile.open(shots.db) as gallery:
        assert gallery.photo(1).metadata == FileMetadata(1)


def test_two_galleries_that_know_one_half_each_become_one_with_the_pair(shots: Shots) -> None:
    shots.add(raw=False)
    (shots.folder / "foo.dng.xmp").write_bytes(described('xmp:Rating="5"'))
    first, shots.db = shots.db, shots.place / "second.db"
    shots.add(exclude=("*.JPG",))
    for target, source in ((first, shots.db), (shots.db, first)):
        into = Path(shutil.copy(target, shots.place / f"into_{target.name}"))
        with GalleryFile.open(into) as gallery, GalleryFile.open(source) as other:
            list(merge_gallery(gallery, other, dry_run=False))
            assert [path.name for path in gallery.photo(*_ids(gallery)).paths] == PAIR[0]
            assert gallery.photo(*_ids(gallery)).metadata == FileMetadata(5)


def _ids(gallery: GalleryFile) -> list[int]:
    return sorted({file.photo_id for file in known_files(gallery)})

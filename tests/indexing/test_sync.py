"""A gallery follows its folders, with models that see colours."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from matir_cli import errors
from matir_cli.cli.group import matir
from matir_cli.gallery.absence import AbsentFolder, missing_files
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import known_files, skipped_files
from matir_cli.indexing.outcomes import Added, Linked, Skipped, Unchanged
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.sync import (
    ChangeKind,
    Dropped,
    FileChange,
    SyncOutcome,
    check_folders,
    folder_roots,
    list_changes,
    sync_folders,
)
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes, scene

MODELS = IndexingModels(ColourProposer, ColourEncoder)


class Folders:
    """A gallery beside two folders whose names begin alike."""

    def __init__(self, place: Path) -> None:
        self.inside = place / "b"
        self.outside = place / "bc"
        self.db = place / "gallery.db"
        self.photos = save_scenes(self.inside, one="red", two="green", three="blue")
        self.others = save_scenes(self.outside, red="red blue")
        self.sync(self.inside, self.outside)

    def sync(self, *paths: Path, drop_all: bool = False) -> list[SyncOutcome]:
        roots = folder_roots(paths)
        with GalleryFile.open(self.db, create=True) as gallery:
            check_folders(gallery, roots, drop_all=drop_all)
            return list(sync_folders(gallery, roots, MODELS, previews=False, drop_all=drop_all))

    def changes(self, *paths: Path, drop_all: bool = False) -> list[FileChange]:
        with GalleryFile.open(self.db) as gallery:
            return list(list_changes(gallery, folder_roots(paths), drop_all=drop_all))

    def known(self) -> dict[Path, int]:
        with GalleryFile.open(self.db) as gallery:
            return {item.path: item.photo_id for item in known_files(gallery)}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_new_changed_gone_and_nothing_outside(folders: Folders) -> None:
    one, two, three = folders.photos
    new = folders.inside / "deep" / "new.png"
    new.parent.mkdir()
    scene("red", "green", seed=9).save(new)
    scene("blue", "green", seed=8).save(two)
    one.unlink()
    folders.others[0].unlink()
    changes = [
        FileChange(ChangeKind.NEW, new),
        FileChange(ChangeKind.CHANGED, two),
        FileChange(ChangeKind.GONE, one),
    ]
    before = folders.db.read_bytes()
    assert folders.changes(folders.inside) == changes
    assert folders.db.read_bytes() == before
    assert folders.sync(folders.inside) == [Added(new, 2), Unchanged(three), Added(two, 2), Dropped(one)]
    assert set(folders.known()) == {new, two, three, folders.others[0]}
    assert folders.changes(folders.inside) == []


def test_a_renamed_file_keeps_its_photo(folders: Folders) -> None:
    one, two, three = folders.photos
    photo = folders.known()[one]
    moved = folders.inside / "moved.png"
    one.rename(moved)
    assert folders.changes(folders.inside) == [
        FileChange(ChangeKind.NEW, moved),
        FileChange(ChangeKind.GONE, one),
    ]
    assert folders.sync(folders.inside) == [Linked(moved), Unchanged(three), Unchanged(two)]
    assert folders.known()[moved] == photo
    assert one not in folders.known()


def test_a_copy_elsewhere_keeps_the_photo_of_a_missing_file(folders: Folders) -> None:
    one = folders.photos[0]
    copy = Path(shutil.copy(one, folders.outside / "copy.png"))
    assert Linked(copy) in folders.sync(folders.outside)
    one.unlink()
    assert Dropped(one) in folders.sync(folders.inside)
    assert copy in folders.known()


def test_an_empty_folder_is_refused_as_an_unmounted_volume(folders: Folders) -> None:
    known = folders.known()
    hidden = folders.inside.rename(folders.inside.with_name("hidden"))
    with pytest.raises(errors.FolderVanished) as caught:
        folders.sync(folders.outside, folders.inside)
    assert (caught.value.path, caught.value.count) == (folders.inside, 3)
    folders.inside.mkdir()  # the empty mount point of a volume
    with pytest.raises(errors.FolderVanished):
        folders.sync(folders.inside)
    save_scenes(folders.inside, other="blue blue")  # another volume in its place
    with pytest.raises(errors.FolderVanished):
        folders.sync(folders.inside)
    assert folders.known() == known
    outcomes = folders.sync(folders.inside, drop_all=True)
    assert [item for item in outcomes if isinstance(item, Dropped)] == [
        Dropped(path) for path in sorted(folders.photos)
    ]
    assert hidden.is_dir()


def test_files_that_were_all_moved_are_recognised(folders: Folders) -> None:
    deep = folders.inside / "deep"
    deep.mkdir()
    photos = folders.known()
    for path in folders.photos:
        path.rename(deep / path.name)
    with pytest.raises(errors.FolderVanished):
        folders.sync(folders.inside)
    outcomes = folders.sync(folders.inside, drop_all=True)
    assert outcomes == [Linked(deep / path.name) for path in sorted(folders.photos)]
    assert {photo for path, photo in folders.known().items()} == set(photos.values())


def test_a_deleted_folder_can_be_dropped_once(folders: Folders) -> None:
    shutil.rmtree(folders.inside)
    outcomes = folders.sync(folders.inside, drop_all=True)
    assert outcomes == [Dropped(path) for path in sorted(folders.photos)]
    with pytest.raises(errors.FolderVanished) as caught:  # the gallery knows no file there now
        folders.sync(folders.inside, drop_all=True)
    assert caught.value.count == 0


def test_a_file_given_by_name_may_be_missing(folders: Folders) -> None:
    one, two, _ = folders.photos
    one.unlink()
    assert folders.sync(one, two) == [Unchanged(two), Dropped(one)]
    with pytest.raises(errors.FolderVanished):
        folders.sync(folders.inside / "never.png")


def test_the_record_of_an_unreadable_file_is_dropped_with_it(folders: Folders) -> None:
    broken = folders.inside / "broken.png"
    broken.write_bytes(b"junk")
    assert Skipped(broken, "not an image") in folders.sync(folders.inside)
    assert folders.changes(folders.inside) == [FileChange(ChangeKind.RETRIED, broken, "not an image")]
    broken.unlink()
    assert all(isinstance(item, Unchanged) for item in folders.sync(folders.inside))
    with GalleryFile.open(folders.db) as gallery:
        assert [*skipped_files(gallery)] == []


def test_a_dangling_link_is_reported_and_its_photo_kept(folders: Folders, tmp_path: Path) -> None:
    target = folders.photos[0].rename(tmp_path / "target.png")
    folders.photos[0].symlink_to(target)
    folders.sync(folders.inside)
    target.unlink()
    (change,) = folders.changes(folders.inside)
    assert (change.mark, change.path) == (ChangeKind.UNREADABLE, folders.photos[0])
    assert Skipped(folders.photos[0], "no such file or directory") in folders.sync(folders.inside)
    assert folders.photos[0] in folders.known()


def test_no_root_lies_below_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = [Path("b/c"), Path("b"), Path("bc"), Path("b/../b/d"), Path("./bc")]
    assert folder_roots(given) == [tmp_path / "b", tmp_path / "bc"]


def test_an_inner_folder_that_lost_all_its_files_is_kept(folders: Folders) -> None:
    """Like the empty mount point of a volume, another volume in its place, or a link to nothing."""
    volume = folders.inside / "trips" / "volume"
    inner = save_scenes(volume, a="red green", b="green blue")
    folders.photos[0].unlink()
    folders.sync(folders.inside)
    known = folders.known()
    hidden = volume.rename(folders.outside.with_name("hidden"))
    for stand_in in ("nothing", "empty", "other", "link"):
        match stand_in:
            case "empty":
                volume.mkdir()
            case "other":
                save_scenes(volume, other="blue blue")
            case "link":
                shutil.rmtree(volume)
                volume.symlink_to("nowhere")
        count = 3 if stand_in == "link" else 2  # with the photo of the other volume
        others = 0
        for _ in range(2):  # the photo of the other volume is known the second time
            absent = AbsentFolder(volume, count, others)
            assert FileChange(ChangeKind.KEPT, volume, absent=absent) in folders.changes(folders.inside)
            outcomes = folders.sync(folders.inside)
            assert outcomes[-1] == absent
            others = int(stand_in == "other")
        assert not [item for item in outcomes if isinstance(item, Dropped)]
        assert known.items() <= folders.known().items()
    gone = [FileChange(ChangeKind.GONE, path) for path in inner]
    assert [item for item in folders.changes(folders.inside, drop_all=True) if item.path in inner] == gone
    volume.unlink()
    hidden.rename(volume)
    outcomes = folders.sync(folders.inside)
    assert {Unchanged(path) for path in inner} < set(outcomes)
    assert not [item for item in outcomes if isinstance(item, Added | Dropped)]
    assert outcomes[-1] == AbsentFolder(volume, 1, 2)  # the photo of the other volume
    shutil.rmtree(volume)
    dropped = folders.sync(folders.inside, drop_all=True)
    assert [item.path for item in dropped if isinstance(item, Dropped)][:2] == inner


def test_a_single_deleted_file_is_dropped_and_a_renamed_folder_recognised(folders: Folders) -> None:
    album, single = folders.inside / "album", folders.inside / "single"
    (lonely,) = save_scenes(single, lonely="red red green")
    save_scenes(album, a="red green", b="green blue")
    folders.sync(folders.inside)
    lonely.unlink()
    album.rename(folders.inside / "renamed")
    outcomes = folders.sync(folders.inside)
    assert Dropped(lonely) in outcomes
    assert not [item for item in outcomes if isinstance(item, AbsentFolder)]
    assert {path.parent.name for path in folders.known()} == {"b", "bc", "renamed"}


def test_a_folder_given_by_one_of_its_files_counts_as_a_whole(folders: Folders) -> None:
    one = folders.photos[0]
    for path in folders.photos:
        path.unlink()
    assert folders.sync(one) == [AbsentFolder(folders.inside, 3)]
    assert folders.sync(one, drop_all=True) == [Dropped(one)]


def test_records_of_unreadable_files_stay_with_their_folder(folders: Folders) -> None:
    inner = folders.inside / "inner"
    save_scenes(inner, a="red green", b="green blue")
    (inner / "junk.png").write_bytes(b"junk")
    folders.sync(folders.inside)
    shutil.rmtree(inner)
    for drop_all, left in ((False, [inner, inner / "junk.png"]), (True, [])):
        folders.sync(folders.inside, drop_all=drop_all)
        with GalleryFile.open(folders.db) as gallery:
            assert [*skipped_files(gallery)] == left


def test_a_folder_that_was_absent_keeps_its_files_until_all_are_there(folders: Folders) -> None:
    volume = folders.inside / "volume"
    inner = save_scenes(volume, a="red green", b="green blue", c="blue red")
    folders.sync(folders.inside)
    hidden = volume.rename(folders.outside.with_name("hidden"))
    save_scenes(volume, other="blue blue", another="red red")  # another volume in its place
    for _ in range(3):
        assert not [item for item in folders.sync(folders.inside) if isinstance(item, Dropped)]
        assert {*inner} < folders.known().keys()
    with GalleryFile.open(folders.db) as gallery:
        for within in (None, folders.inside, volume, inner[0]):
            assert [*missing_files(gallery, within)] == [AbsentFolder(volume, 3, 2)]
        assert [*skipped_files(gallery)] == [volume]
    stranger = volume.rename(folders.outside.with_name("stranger"))
    hidden.rename(volume)
    assert folders.sync(volume)[-1] == AbsentFolder(volume, 2, 3)
    for path in stranger.iterdir():
        path.rename(volume / path.name)
    assert {*map(type, folders.sync(folders.inside))} == {Unchanged}
    with GalleryFile.open(folders.db) as gallery:
        assert [*skipped_files(gallery)] == []
    inner[0].unlink()
    assert Dropped(inner[0]) in folders.sync(folders.inside)


def test_files_that_were_kept_are_dropped_on_demand(folders: Folders) -> None:
    volume = folders.inside / "volume"
    inner = save_scenes(volume, a="red green", b="green blue")
    folders.sync(folders.inside)
    shutil.rmtree(volume)
    save_scenes(volume, other="blue blue")
    for _ in range(2):
        folders.sync(folders.inside)
    outcomes = folders.sync(folders.inside, drop_all=True)
    assert [item for item in outcomes if isinstance(item, Dropped)] == [Dropped(path) for path in inner]
    assert {*map(type, folders.sync(folders.inside))} == {Unchanged}


def test_adding_files_of_another_volume_does_not_make_the_first_one_deleted(
    folders: Folders, tmp_path: Path
) -> None:
    (folders.inside / "one.png").unlink()
    hidden = folders.inside.rename(tmp_path / "hidden")
    command = ["sync", str(folders.inside), "--db", str(folders.db)]
    dry = CliRunner().invoke(matir, [*command, "--dry-run"])
    assert isinstance(dry.exception, errors.FolderVanished)
    with GalleryFile.open(folders.db) as gallery:
        assert [*skipped_files(gallery)] == []
    assert isinstance(CliRunner().invoke(matir, command).exception, errors.FolderVanished)
    (other,) = save_scenes(folders.inside, other="blue blue")
    with GalleryFile.open(folders.db) as gallery:
        list(add_photos(gallery, [folders.inside], MODELS, previews=False))
    assert folders.sync(folders.inside) == [Unchanged(other), AbsentFolder(folders.inside, 3, 1)]
    assert hidden.is_dir()


def test_what_is_excluded_stays_as_it_was(folders: Folders) -> None:
    before = folders.known()
    scene("blue", "red").save(folders.inside / "new.png")
    scene("blue").save(folders.photos[0])  # changed
    (folders.inside / ".matirignore").write_text("*.png")
    assert folders.changes(folders.inside) == []
    assert folders.sync(folders.inside) == []
    assert folders.known() == before
    folders.photos[1].unlink()
    assert folders.sync(folders.inside) == [Dropped(folders.photos[1])]

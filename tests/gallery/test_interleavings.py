"""Writes of other processes between the statements of a command, forced by a tracer of statements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.absence import missing_files, still_missing
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import forget_files, known_files, skipped_files
from matir_cli.indexing.outcomes import Added, Linked, Skipped
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.sync import Dropped, sync_folders
from matir_cli.records import FileRecord
from matir_cli.search.query import Example, resolve_example
from matir_cli.search.sampling import sample_scores
from tests.search.fake_models import UnusedModels
from tests.support.crafted_gallery import craft, place, query
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes

MODELS = IndexingModels(ColourProposer, ColourEncoder)


class Intruder:
    """Acts on a gallery through a connection of its own, right before a statement of another one."""

    def __init__(self, gallery: GalleryFile, statement: str, act: Callable[[GalleryFile], object]) -> None:
        """Act once, before the first statement of `gallery` that contains `statement`."""
        self.admitted: bool | None = None
        """Whether the act was committed; False if the file was locked against it, None before it is tried."""
        self._path, self._statement, self._act = gallery.path, statement, act
        gallery.connection.exec_trace = self._trace

    def _trace(self, _cursor: apsw.Cursor, statement: str, _bindings: apsw.Bindings | None) -> bool:
        if self.admitted is None and self._statement in statement:
            self.admitted = False
            with GalleryFile.open(self._path) as other:
                other.connection.set_busy_timeout(0)
                try:
                    with other.atomic():
                        self._act(other)
                    self.admitted = True
                except apsw.BusyError:
                    pass
        return True


def remove_photo(path: Path) -> Callable[[GalleryFile], object]:
    return lambda gallery: gallery.unlink(path)


@pytest.mark.parametrize("statement", ["from photos where id", "select path from files"])
def test_a_photo_that_is_removed_while_it_is_read_is_whole_or_unknown(tmp_path: Path, statement: str) -> None:
    with craft(tmp_path / "gallery.db", ["a", "b"]) as gallery:
        intruder = Intruder(gallery, statement, remove_photo(place("a")))
        try:
            assert gallery.photo(1).paths == (place("a"),)
        except PhotoUnknown:
            assert intruder.admitted
        assert intruder.admitted is not None
        assert gallery.photo(2).paths == (place("b"),)


def test_a_sample_of_vectors_is_of_one_state(tmp_path: Path) -> None:
    with craft(tmp_path / "gallery.db", ["a", "b", "c"]) as gallery:
        expected = sample_scores(gallery, query(0)[np.newaxis])
        intruder = Intruder(gallery, "json_each(?) cross join vectors", remove_photo(place("b")))
        assert np.array_equal(sample_scores(gallery, query(0)[np.newaxis]), expected)
        assert intruder.admitted is False


def test_a_copy_whose_photo_is_removed_is_indexed_itself(tmp_path: Path) -> None:
    (first,) = save_scenes(tmp_path / "photos", a="red")
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [first], MODELS, previews=False))
        intruder = Intruder(gallery, "begin immediate", remove_photo(first))
        assert list(add_photos(gallery, [copy], MODELS, previews=False)) == [Added(copy, 1)]
        assert intruder.admitted
        assert gallery.connection.execute("select count(*) from skipped").get == 0


def test_a_photo_that_another_process_adds_first_is_linked(tmp_path: Path) -> None:
    first, second = save_scenes(tmp_path / "photos", a="red", b="blue")
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())

    def add_first(other: GalleryFile) -> None:
        (outcome,) = add_photos(other, [first], MODELS, previews=False)
        assert isinstance(outcome, Added)

    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [second], MODELS, previews=False))
        intruder = Intruder(gallery, "begin immediate", add_first)
        assert list(add_photos(gallery, [copy], MODELS, previews=False)) == [Linked(copy)]
        assert intruder.admitted
        assert gallery.count_photos() == 2


def test_an_example_whose_photo_is_removed_meanwhile(tmp_path: Path) -> None:
    (photo,) = save_scenes(tmp_path / "photos", a="red")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [photo], MODELS, previews=False))
        intruder = Intruder(gallery, "from vectors where region_id = ?", remove_photo(photo))
        example = resolve_example(gallery, UnusedModels(), Example(photo))
        assert example.stored
        assert intruder.admitted is False


def come_back(path: Path) -> Callable[[GalleryFile], object]:
    return lambda _gallery: path.write_bytes(path.with_name("away.bin").read_bytes())


def come_back_and_be_added(path: Path) -> Callable[[GalleryFile], object]:
    def act(other: GalleryFile) -> None:
        come_back(path)(other)
        list(add_photos(other, [path], MODELS, previews=False))

    return act


def vanish_with_its_folder(path: Path) -> Callable[[GalleryFile], object]:
    return lambda _gallery: path.parent.rename(path.parent.with_name("unmounted"))


@pytest.mark.parametrize("meanwhile", [come_back, come_back_and_be_added, vanish_with_its_folder])
@pytest.mark.parametrize("command", ["sync", "rm"])
def test_a_file_is_forgotten_only_if_it_is_still_gone(
    tmp_path: Path, command: str, meanwhile: Callable[[Path], Callable[[GalleryFile], object]]
) -> None:
    paths = save_scenes(tmp_path / "photos", a="red", b="blue", c="green")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, paths, MODELS, previews=False))
        (tmp_path / "photos" / "away.bin").write_bytes(paths[0].read_bytes())
        paths[0].unlink()
        roots = [tmp_path / "photos"]
        intruder = Intruder(gallery, "begin immediate", meanwhile(paths[0]))
        if command == "sync":
            outcomes = [*sync_folders(gallery, roots, MODELS, previews=False)]
            assert not [item for item in outcomes if isinstance(item, Dropped)]
        else:
            gone = [item for item in missing_files(gallery, roots[0]) if isinstance(item, Path)]
            assert gone == paths[:1]
            assert [*forget_files(gallery, gone, still_missing(gallery, roots))] == []
        assert intruder.admitted
        assert [known.path for known in known_files(gallery)] == paths
    with GalleryFile.open(tmp_path / "gallery.db") as gallery:
        assert gallery.count_photos() == 3


class LosingGallery(GalleryFile):
    """A gallery in which every photo is removed before a copy of it is recorded."""

    def link_file(self, file: FileRecord, sha256: bytes) -> bool:
        return False


def test_a_file_is_given_up_after_some_attempts(tmp_path: Path) -> None:
    (first,) = save_scenes(tmp_path / "photos", a="red")
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [first], MODELS, previews=False))
    with LosingGallery.open(tmp_path / "gallery.db") as gallery:
        (outcome,) = add_photos(gallery, [copy], MODELS, previews=False)
        assert outcome == Skipped(copy, "other commands keep removing its photo")
    with GalleryFile.open(tmp_path / "gallery.db") as gallery:
        assert [*skipped_files(gallery, copy)] == [copy]
        assert [type(each) for each in add_photos(gallery, [copy], MODELS, previews=False)] == [Linked]
        assert [*skipped_files(gallery, copy)] == []

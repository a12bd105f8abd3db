"""Indexing with models that see colours: outcomes, errors, interruptions, concurrency."""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from matir_cli import masks
from matir_cli.engines.protocols import RegionEncoder
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import skip_reason
from matir_cli.indexing import pipeline
from matir_cli.indexing.file_state import FileCounts
from matir_cli.indexing.outcomes import Added, Linked, Outcome, Refreshed, Skipped, Unchanged
from matir_cli.indexing.pipeline import IndexingModels, add_photos, pending_files
from matir_cli.photos.decode import set_decode_timeout
from matir_cli.photos.decoder_process import DECODE_SECONDS
from matir_cli.photos.discover import stat_file
from matir_cli.photos.image_file import CUT
from matir_cli.records import FileRecord, ImageArray, Region
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.results import SearchResult
from tests.photos.crafted import many_scans
from tests.photos.packets import packet
from tests.search.fake_models import ColourModels
from tests.support.fakes import BrokenEncoder, ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes, scene


class Indexer:
    """A gallery file, a folder of photos, and models that count their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "photos"
        self.gallery = folder / "gallery.db"
        self.proposer = ColourProposer()

    def run(
        self,
        *paths: Path,
        encoder: Callable[[], RegionEncoder] = ColourEncoder,
        previews: bool = True,
        expected: FileCounts | None = None,
    ) -> list[Outcome]:
        models = IndexingModels(lambda: self.proposer, encoder)
        with GalleryFile.open(self.gallery, create=True) as gallery:
            chosen = paths or (self.folder,)
            return list(add_photos(gallery, chosen, models, previews=previews, expected=expected))

    def find(self, query: str, limit: int = 10, min_score: float | None = None) -> list[SearchResult]:
        with GalleryFile.open(self.gallery) as gallery:
            options = SearchOptions(limit=limit, rerank=False, min_score=min_score, whole=True)
            return run_search(gallery, ColourModels(), query, options).results


@pytest.fixture
def indexer(tmp_path: Path) -> Indexer:
    return Indexer(tmp_path)


def kinds(outcomes: list[Outcome]) -> Counter[type[Outcome]]:
    return Counter(type(outcome) for outcome in outcomes)


def test_photos_become_searchable_regions(indexer: Indexer) -> None:
    paths = save_scenes(indexer.folder, a="red blue", b="green", c="blue")
    outcomes = indexer.run()
    assert outcomes == [Added(paths[0], 2), Added(paths[1], 1), Added(paths[2], 1)]
    found = indexer.find("blue")
    assert {item.path for item in found[:2]} == {paths[0], paths[2]}
    assert [item.rank for item in found] == [1, 2, 3]
    assert found[0].score >= found[1].score > found[2].score
    # The region is the square of that colour, not the whole photo.
    by_path = {item.path: item.objects[0] for item in found}
    box = by_path[paths[0]].box
    assert (box.x0, box.y0, box.x1, box.y1) == (45, 20, 70, 45)
    mask = by_path[paths[0]].mask
    assert mask is not None
    assert masks.decode(mask)[32, 60]
    assert indexer.find("blue", limit=1) == found[:1]
    assert indexer.find("blue", min_score=0.9) == found[:2]


def test_the_whole_photo_is_the_first_region(indexer: Indexer) -> None:
    save_scenes(indexer.folder, a="red")
    indexer.run()
    with GalleryFile.open(indexer.gallery) as gallery:
        whole, square = gallery.regions(1)
        assert (whole.ordinal, whole.region.area) == (0, 120 * 90)
        assert (square.ordinal, square.region.area) == (1, 25 * 25)


def test_unchanged_files_are_not_indexed_again(indexer: Indexer) -> None:
    paths = save_scenes(indexer.folder, a="red", b="green")
    indexer.run()
    assert indexer.run() == [Unchanged(path) for path in paths]
    assert indexer.proposer.seen == 2


def mixed_folder(indexer: Indexer) -> None:
    """Index some files, and change the folder: there is one file of each kind of change."""
    names = ("a", "b", "c", "d", "e")
    paths = save_scenes(indexer.folder, **dict.fromkeys(names, "red"), f="green", g="blue")
    (indexer.folder / "junk.jpg").write_bytes(b"junk")
    for stem in ("raw", "late"):
        scene("blue", seed=len(stem)).save(indexer.folder / f"{stem}.jpg")
    (indexer.folder / "raw.nef").write_bytes(b"raw")
    indexer.run()
    scene("green", seed=8).save(paths[0])
    paths[1].rename(indexer.folder / "renamed.png")
    shutil.copy(paths[2], indexer.folder / "sub.png")
    (indexer.folder / "d.png.xmp").write_bytes(packet('xmp:Rating="3"'))
    (indexer.folder / "late.nef").write_bytes(b"another")
    (indexer.folder / "gone").symlink_to(indexer.folder / "nothing")
    (indexer.folder / "gone.png").symlink_to(indexer.folder / "nothing")
    save_scenes(indexer.folder / "new", h="red green")


def test_finding_all_files_first_changes_nothing_but_the_order(tmp_path: Path) -> None:
    first, second = Indexer(tmp_path / "first"), Indexer(tmp_path / "second")
    mixed_folder(first)
    shutil.copytree(first.folder, second.folder, symlinks=True)
    shutil.copy(first.gallery, second.gallery)
    with GalleryFile.open(second.gallery) as gallery, gallery.atomic():
        for table in ("files", "skipped", "file_metadata"):
            moved = (str(first.folder), str(second.folder))
            gallery.connection.execute(f"update {table} set path = replace(path, ?, ?)", moved)
    expected = FileCounts()
    streamed, counted = first.run(), second.run(expected=expected)
    there = [replace(each, path=second.folder / each.path.relative_to(first.folder)) for each in streamed]
    assert Counter(map(str, counted)) == Counter(map(str, there))
    assert {type(each) for each in counted} == {Added, Linked, Refreshed, Skipped, Unchanged}
    settled = sum(isinstance(each, Unchanged) for each in counted)
    assert (expected.total, expected.pending) == (len(counted), len(counted) - settled)
    assert all(isinstance(each, Unchanged) for each in counted[:settled])


def test_an_unchanged_file_is_looked_up_once(indexer: Indexer, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = save_scenes(indexer.folder, a="red", b="green", c="blue")
    indexer.run()
    (new,) = save_scenes(indexer.folder / "new", d="green")
    looked_at: list[Path] = []

    def note_and_stat(path: Path) -> FileRecord:
        looked_at.append(path)
        return stat_file(path)

    monkeypatch.setattr(pipeline, "stat_file", note_and_stat)
    expected = FileCounts()
    assert kinds(indexer.run(expected=expected)) == {Unchanged: 3, Added: 1}
    assert Counter(looked_at) == {**dict.fromkeys(paths, 1), new: 2}
    assert (expected.total, expected.pending) == (4, 1)


def test_a_second_run_loads_no_model(indexer: Indexer) -> None:
    save_scenes(indexer.folder, a="red")
    indexer.run()

    def refuse() -> ColourEncoder:
        raise AssertionError("a model was loaded without need")

    assert kinds(indexer.run(encoder=refuse)) == {Unchanged: 1}


def test_copies_and_renamed_files_are_recognised(indexer: Indexer) -> None:
    (path,) = save_scenes(indexer.folder, a="red")
    shutil.copy(path, indexer.folder / "copy in the same run.png")
    assert kinds(indexer.run()) == {Added: 1, Linked: 1}
    path.rename(indexer.folder / "renamed.png")
    assert kinds(indexer.run()) == {Unchanged: 1, Linked: 1}
    assert indexer.proposer.seen == 1
    (found,) = indexer.find("red")
    assert [path.name for path in found.photo.paths] == ["copy in the same run.png", "renamed.png"]


def test_a_changed_file_replaces_its_old_rows(indexer: Indexer) -> None:
    (path,) = save_scenes(indexer.folder, a="red")
    indexer.run()
    scene("green", seed=5).save(path)
    assert kinds(indexer.run()) == {Added: 1}
    (found,) = indexer.find("green")
    assert found.score > 0.9
    assert indexer.find("red", min_score=0.5) == []


def test_bad_files_are_skipped_reported_and_remembered(indexer: Indexer) -> None:
    save_scenes(indexer.folder, a="red")
    (indexer.folder / "b.jpg").write_bytes(b"")
    (indexer.folder / "c.jpg").write_bytes(b"junk")
    outcomes = indexer.run()
    assert outcomes[1:] == [
        Skipped(indexer.folder / "b.jpg", "zero bytes"),
        Skipped(indexer.folder / "c.jpg", "not an image"),
    ]
    with GalleryFile.open(indexer.gallery) as gallery:
        stored = list(gallery.connection.execute("select reason from skipped order by path"))
        assert stored == [("zero bytes",), ("not an image",)]
    scene("blue", seed=9).save(indexer.folder / "c.jpg")
    assert kinds(indexer.run()) == {Unchanged: 1, Skipped: 1, Added: 1}


def test_vectors_that_are_not_numbers_are_refused(indexer: Indexer) -> None:
    (path,) = save_scenes(indexer.folder, a="red")
    shutil.copy(path, indexer.folder / "b.png")
    outcomes = indexer.run(encoder=BrokenEncoder)
    assert kinds(outcomes) == {Skipped: 2}
    with GalleryFile.open(indexer.gallery) as gallery:
        assert gallery.count_photos() == 0


def test_previews_can_be_left_out(indexer: Indexer) -> None:
    paths = save_scenes(indexer.folder, a="red", b="blue")
    indexer.run(paths[0])
    indexer.run(paths[1], previews=False)
    with GalleryFile.open(indexer.gallery) as gallery:
        assert gallery.preview(1) is not None
        assert gallery.preview(2) is None


def test_dry_run_names_new_and_changed_files(indexer: Indexer) -> None:
    paths = save_scenes(indexer.folder, a="red", b="blue")
    indexer.run(paths[0])
    with GalleryFile.open(indexer.gallery) as gallery:
        assert list(pending_files(gallery, [indexer.folder])) == [paths[1]]
        os.utime(paths[0], ns=(1, 1))
        assert list(pending_files(gallery, [indexer.folder])) == paths


def test_an_error_in_a_stage_ends_the_run_and_keeps_written_photos(indexer: Indexer) -> None:
    save_scenes(indexer.folder, a="red", b="green", c="blue")

    class Failing(ColourProposer):
        def propose(self, image: ImageArray) -> list[Region]:
            if self.seen == 2:
                raise MemoryError
            return super().propose(image)

    indexer.proposer = Failing()
    with pytest.raises(MemoryError):
        indexer.run()
    with GalleryFile.open(indexer.gallery) as gallery:
        assert gallery.count_photos() == 2
    indexer.proposer = ColourProposer()
    assert kinds(indexer.run()) == {Unchanged: 2, Added: 1}


def test_closing_early_drops_the_photos_in_progress(indexer: Indexer) -> None:
    save_scenes(indexer.folder, **{f"p{number:02}": "red" for number in range(30)})
    models = IndexingModels(lambda: indexer.proposer, ColourEncoder)
    with GalleryFile.open(indexer.gallery, create=True) as gallery:
        outcomes = add_photos(gallery, [indexer.folder], models, previews=False)
        next(outcomes)
        outcomes.close()
        assert gallery.count_photos() == 1
    assert indexer.proposer.seen < 30
    assert kinds(indexer.run()) == {Unchanged: 1, Added: 29}


def test_concurrent_stages_give_the_same_results(indexer: Indexer) -> None:
    save_scenes(indexer.folder, a="red blue", b="green", c="blue")
    (indexer.folder / "bad.png").write_bytes(b"x")
    first = indexer.run()
    found = indexer.find("blue")
    indexer.gallery.unlink()
    models = IndexingModels(lambda: indexer.proposer, ColourEncoder, side_by_side=lambda: True)
    with GalleryFile.open(indexer.gallery, create=True) as gallery:
        assert list(add_photos(gallery, [indexer.folder], models, previews=True)) == first
    assert [item.score for item in indexer.find("blue")] == [item.score for item in found]


def test_two_runs_at_once_on_one_gallery(indexer: Indexer) -> None:
    save_scenes(indexer.folder, **{f"p{number:02}": "red blue" for number in range(20)})
    other = Indexer(indexer.folder.parent)
    outcomes: list[list[Outcome]] = []
    threads = [threading.Thread(target=lambda it=it: outcomes.append(it.run())) for it in (indexer, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(run) for run in outcomes] == [20, 20]
    together = kinds(outcomes[0]) + kinds(outcomes[1])
    assert together[Added] == 20
    assert together[Skipped] == 0
    with GalleryFile.open(indexer.gallery) as gallery:
        assert gallery.count_photos() == 20
        assert gallery.connection.pragma("integrity_check") == "ok"
    assert len({found.path for found in indexer.find("red", limit=50)}) == 20


def test_ties_are_stable(indexer: Indexer) -> None:
    paths = save_scenes(indexer.folder, **dict.fromkeys("abcdef", "red"))
    indexer.run()
    found = indexer.find("red", limit=6)
    scores = [item.score for item in found]
    ids = [item.photo.id for item in found]
    assert sorted(zip(scores, ids, strict=True), key=lambda pair: (-pair[0], pair[1])) == list(
        zip(scores, ids, strict=True)
    )
    assert {item.path for item in found} == set(paths)
    assert np.isfinite(scores).all()


def test_a_photo_that_takes_too_long_is_skipped_and_remembered(indexer: Indexer) -> None:
    save_scenes(indexer.folder, z="green")
    slow = indexer.folder / "slow.jpg"
    slow.write_bytes(many_scans(scene("red", size=(2400, 1800)), 450))
    set_decode_timeout(0.5)
    try:
        outcomes = indexer.run()
    finally:
        set_decode_timeout(DECODE_SECONDS)
    assert outcomes == [
        Skipped(slow, "takes more than 0.5 s to decode"),
        Added(indexer.folder / "z.png", 1),
    ]
    with GalleryFile.open(indexer.gallery) as gallery:
        assert skip_reason(gallery, slow) == "takes more than 0.5 s to decode"


def test_a_cut_photo_is_added_with_a_note(indexer: Indexer) -> None:
    indexer.folder.mkdir()
    scene("red").save(indexer.folder / "photo.jpg")
    content = (indexer.folder / "photo.jpg").read_bytes()
    (indexer.folder / "photo.jpg").write_bytes(content[:-2])
    (outcome,) = indexer.run()
    assert isinstance(outcome, Added)
    assert outcome.notes == (CUT,)

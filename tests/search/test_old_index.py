"""Galleries whose index an older version made, or whose index is only made in part."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli.errors import IndexDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.progress import Advance, ProgressObserver, no_progress
from matir_cli.search.codes import LAYOUT, row_bytes, scales_bytes
from matir_cli.search.filters import Filters
from matir_cli.search.index import catch_up_index, foreign_blocks, rebuild_index, seal_index
from matir_cli.search.quantisation import cosines
from matir_cli.search.rank import rank_photos
from matir_cli.search.vectors import stored_vectors
from tests.search.vector_gallery import blocks, brute_force, clustered, loose, open_vectors, put_all, question
from tests.support.old_gallery import write_old_gallery

PHOTOS = 60


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A gallery of version 1 whose photos are all in a block of sign codes."""
    with open_vectors(tmp_path) as gallery:
        put_all(gallery, clustered(PHOTOS, 5))
    path = tmp_path / "old.db"
    write_old_gallery(path, 1, tmp_path / "gallery.db")
    db = apsw.Connection(str(path))
    db.execute(
        "insert into blocks (runs, centre, codes) values (zeroblob(24), zeroblob(256), zeroblob(4800))"
    )
    db.execute("delete from loose")
    db.close()
    return path


def ranking(gallery: GalleryFile) -> list[tuple[int, int]]:
    return [(found.photo_id, found.region_id) for found in rank_photos(gallery, question(3), PHOTOS)]


def expected(gallery: GalleryFile) -> list[tuple[int, int]]:
    """The ranking by the vectors as int8."""
    regions = np.arange(1, 5 * PHOTOS + 1)
    scores = cosines(stored_vectors(gallery, regions, 64), question(3)).reshape(PHOTOS, 5)
    order = np.lexsort([np.arange(PHOTOS), -scores.max(axis=1)])
    return [(int(photo) + 1, 5 * int(photo) + int(scores[photo].argmax()) + 1) for photo in order]


def test_an_old_index_that_cannot_be_written_is_not_needed(old: Path) -> None:
    before = old.read_bytes()
    with GalleryFile._open(old, apsw.SQLITE_OPEN_READONLY) as gallery:
        assert ranking(gallery) == expected(gallery)
        some = rank_photos(gallery, question(3), PHOTOS, Filters((Path("/photos"),)))
        assert [(each.photo_id, each.region_id) for each in some] == expected(gallery)
        catch_up_index(gallery, no_progress)
    (found,) = (each for each in examine_gallery(old, deep=True) if each.name == "gallery index")
    assert found.state is FindingState.WARNING
    assert old.read_bytes() == before


def test_an_old_index_is_made_anew(old: Path) -> None:
    with GalleryFile.open(old) as gallery:
        assert gallery.connection.execute("select count(*) from blocks").get == 0
        assert ranking(gallery) == expected(gallery)
        catch_up_index(gallery, no_progress)
        assert (loose(gallery), blocks(gallery)) == (PHOTOS, [])  # too few to matter
        catch_up_index(gallery, no_progress, 100)
        assert loose(gallery) == 0
        assert sum(blocks(gallery)) == 5 * PHOTOS
        assert ranking(gallery) == expected(gallery)
    assert not [each for each in examine_gallery(old, deep=True) if each.state is FindingState.PROBLEM]


def stopping(at: int) -> ProgressObserver:
    """A progress observer that is interrupted once `at` items are done."""

    @contextmanager
    def observe(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        del name, total, unit, done
        seen = 0

        def advance(count: int = 1, /) -> None:
            nonlocal seen
            seen += count
            if seen >= at:
                raise KeyboardInterrupt

        yield advance

    return observe


@pytest.mark.parametrize("at", [1, 30, PHOTOS])
def test_an_index_that_is_interrupted_is_completed_later(tmp_path: Path, at: int) -> None:
    with open_vectors(tmp_path) as gallery:
        put_all(gallery, clustered(PHOTOS, 5))
        with pytest.raises(KeyboardInterrupt):
            seal_index(gallery, 50, stopping(at))
        assert sum(blocks(gallery)) == 5 * (PHOTOS - loose(gallery)) >= 5 * at
        assert rank_photos(gallery, question(1), PHOTOS) == brute_force(gallery, question(1))
        if loose(gallery):
            seal_index(gallery, 50)
        assert sum(blocks(gallery)) == 5 * PHOTOS
        assert rank_photos(gallery, question(1), PHOTOS) == brute_force(gallery, question(1))


def lay_out_as_before(gallery: GalleryFile) -> None:
    """Let all blocks have the first layout of codes: without a mark, and with signed high digits."""
    rows = gallery.connection.execute("select id, codes from codes").fetchall()
    for block_id, codes in rows:
        assert isinstance(codes, bytes)
        assert codes.startswith(LAYOUT)
        count = (len(codes) - len(LAYOUT)) // (8 + row_bytes(64))
        scales, levels = codes[len(LAYOUT) : scales_bytes(count)], codes[scales_bytes(count) :]
        former = scales + bytes(np.frombuffer(levels, np.uint8) ^ 0x80)
        gallery.connection.execute("update codes set codes = ? where id = ?", (former, block_id))


def sealed_before(folder: Path, block_regions: int = 50) -> GalleryFile:
    """A gallery whose index has the first layout of codes; two photos are loose."""
    with open_vectors(folder) as gallery:
        put_all(gallery, clustered(PHOTOS, 5))
        seal_index(gallery, block_regions)
        lay_out_as_before(gallery)
        put_all(gallery, clustered(2, 5, seed=4))
    return GalleryFile.open(folder / "gallery.db")


def test_codes_of_another_layout_are_told_where_they_cannot_be_made_anew(tmp_path: Path) -> None:
    sealed_before(tmp_path).connection.close()
    path = tmp_path / "gallery.db"
    before = path.read_bytes()
    with GalleryFile._open(path, apsw.SQLITE_OPEN_READONLY) as gallery:
        catch_up_index(gallery, no_progress)
        with pytest.raises(IndexDamaged, match="impossible length"):
            rank_photos(gallery, question(1), PHOTOS)
    (found,) = (each for each in examine_gallery(path, deep=False) if each.name == "gallery index")
    assert (found.state, "compact" in found.remedy) == (FindingState.PROBLEM, True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("make", [catch_up_index, lambda gallery, _: rebuild_index(gallery, 50)])
def test_codes_of_another_layout_are_made_anew(
    tmp_path: Path, make: Callable[[GalleryFile, ProgressObserver], None]
) -> None:
    with sealed_before(tmp_path) as gallery:
        assert foreign_blocks(gallery)
        make(gallery, no_progress)
        assert not foreign_blocks(gallery)
        assert (loose(gallery), sum(blocks(gallery))) == (0, 5 * (PHOTOS + 2))
        assert rank_photos(gallery, question(1), PHOTOS) == brute_force(gallery, question(1))[:PHOTOS]
    path = tmp_path / "gallery.db"
    assert not [each for each in examine_gallery(path, deep=True) if each.state is FindingState.PROBLEM]


def test_blocks_of_this_layout_stay_where_others_are_made_anew(tmp_path: Path) -> None:
    with sealed_before(tmp_path) as gallery:
        put_all(gallery, clustered(20, 5, seed=9))
        gallery.connection.execute("update codes set codes = codes where id = 1")
        first = gallery.connection.execute("select codes from codes where id = 2").get
        former = LAYOUT + first[: scales_bytes(50) - len(LAYOUT)]
        former += bytes(np.frombuffer(first[scales_bytes(50) - len(LAYOUT) :], np.uint8) ^ 0x80)
        gallery.connection.execute("update codes set codes = ? where id = 2", (former,))
        assert 2 not in foreign_blocks(gallery)
        seal_index(gallery, 50)
        assert gallery.connection.execute("select codes from codes where id = 2").get == former
        assert rank_photos(gallery, question(1), 100) == brute_force(gallery, question(1))


@pytest.mark.parametrize("at", [1, 30, PHOTOS])
def test_making_codes_anew_is_resumed(tmp_path: Path, at: int) -> None:
    with sealed_before(tmp_path) as gallery:
        with pytest.raises(KeyboardInterrupt):
            catch_up_index(gallery, stopping(at), 50)
        assert not foreign_blocks(gallery)
        assert loose(gallery) + sum(blocks(gallery)) // 5 == PHOTOS + 2
        assert rank_photos(gallery, question(1), PHOTOS) == brute_force(gallery, question(1))[:PHOTOS]
        catch_up_index(gallery, no_progress, 1)
        assert loose(gallery) == 0


def watching(gallery: GalleryFile, seen: list[tuple[str, int | None, int]]) -> ProgressObserver:
    """A progress observer that notes what it is told and lets another connection search each time."""

    @contextmanager
    def observe(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        del unit, done

        def advance(count: int = 1, /) -> None:
            seen.append((name, total, count))
            with GalleryFile.open(gallery.path) as reader:
                assert ranking(reader) == expected(reader)

        yield advance

    return observe


def test_a_gallery_of_an_older_version_is_searched_while_its_index_is_made(old: Path) -> None:
    with GalleryFile.open(old) as gallery:
        seen: list[tuple[str, int | None, int]] = []
        catch_up_index(gallery, watching(gallery, seen), 50)
        assert len(seen) == 5 * PHOTOS / 50
        assert {(name, total) for name, total, _ in seen} == {("making the search index", PHOTOS)}
        assert sum(count for *_, count in seen) == PHOTOS


def test_memory_while_an_index_is_made_does_not_grow_with_the_gallery(tmp_path: Path) -> None:
    peaks = []
    for photos in (60, 400):
        folder = tmp_path / str(photos)
        folder.mkdir()
        with open_vectors(folder) as gallery:
            put_all(gallery, clustered(photos, 5))
            seal_index(gallery, 100)
            lay_out_as_before(gallery)
            tracemalloc.start()
            catch_up_index(gallery, no_progress, 100)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert loose(gallery) == 0
    assert peaks[1] < peaks[0] + 340 * 100  # bytes: ids of photos and of blocks, but no vectors or codes

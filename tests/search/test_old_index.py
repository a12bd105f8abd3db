"""Galleries whose index an older version made, or whose index is only made in part."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.progress import Advance, ProgressObserver, no_progress
from matir_cli.search.filters import Filters
from matir_cli.search.index import catch_up_index, seal_index, stored_vectors
from matir_cli.search.quantisation import cosines
from matir_cli.search.rank import rank_photos
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

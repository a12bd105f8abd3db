"""Upper bounds on region scores: choosing regions by them, and comparing all blocks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.search import upper_bounds
from matir_cli.search.codes import prepare_query
from matir_cli.search.index import RUN, read_runs, seal_index
from matir_cli.search.quantisation import cosine_table
from matir_cli.search.upper_bounds import BlockQuery, UpperBounds, compare_blocks
from matir_cli.search.vectors import stored_vectors
from tests.search.vector_gallery import clustered, open_vectors, put_all, question

RUNS = np.array([(7, 100, 3), (8, 200, 1), (7, 300, 2)], RUN)
"""Photo 7 has the regions 100 to 102 and 300 to 301, photo 8 the region 200."""


@pytest.fixture
def bounds() -> UpperBounds:
    return UpperBounds.of(RUNS, np.array([0.1, 0.9, 0.2, 0.5, 0.3, 0.7], np.float32))


def test_indices_become_region_ids(bounds: UpperBounds) -> None:
    assert bounds.region_ids(np.arange(6)).tolist() == [100, 101, 102, 200, 300, 301]


def test_the_best_region_of_each_of_the_best_runs(bounds: UpperBounds) -> None:
    assert sorted(bounds.best_of_runs(2).tolist()) == [1, 5]
    assert sorted(bounds.best_of_runs(100).tolist()) == [1, 3, 5]
    nothing = UpperBounds.of(np.zeros(0, RUN), np.zeros(0, np.float32))
    assert nothing.best_of_runs(2).size == 0


def test_regions_of_other_photos_are_excluded(bounds: UpperBounds) -> None:
    bounds.keep_photos(np.array([8]))
    assert np.isfinite(bounds.upper).tolist() == [False, False, False, True, False, False]
    assert bounds.best_of_runs(3).tolist() == [3]


def test_hardly_any_score_exceeds_its_bound(tmp_path: Path) -> None:
    queries = [question(seed) for seed in range(3)]
    with open_vectors(tmp_path) as gallery:
        put_all(gallery, clustered(600, 10))
        seal_index(gallery, 2500)  # more than are read at once
        blocks: list[BlockQuery] = []
        regions: list[int] = []
        for block_id, blob, centre in gallery.connection.execute("select id, runs, centre from codes"):
            runs = read_runs(gallery, blob)
            for _, first, count in runs.tolist():
                regions += range(first, first + count)
            centres = np.frombuffer(bytes(centre), "<f4")[np.newaxis]
            prepared = [prepare_query(query, centres)[0] for query in queries]
            blocks.append(BlockQuery(int(block_id), int(runs["count"].sum()), len(regions), prepared))
        upper = compare_blocks(gallery, blocks, 64)
        scores = cosine_table(stored_vectors(gallery, np.array(regions), 64), np.stack(queries))
    assert len(blocks) > 2
    assert upper.shape == scores.shape == (3, 6000)
    assert np.mean(scores > upper) < 0.0005
    assert np.mean(upper - scores) < 0.15  # close enough to exclude nearly all regions


@contextmanager
def two_blocks(folder: Path, seed: int = 0) -> Iterator[GalleryFile]:
    folder.mkdir(exist_ok=True)
    with open_vectors(folder) as gallery:
        put_all(gallery, clustered(40, 10, seed=seed))
        seal_index(gallery, 200)
        assert gallery.connection.execute("select count(*) from codes").get == 2
        yield gallery


def bounds_of(gallery: GalleryFile) -> list[float]:
    (found,) = upper_bounds.upper_bounds(gallery, [question(0)])
    return list(found.upper.tolist())


def count_connections(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of connections of each comparison to come."""
    counts: list[int] = []
    second_reader = upper_bounds._second_reader

    def counting(
        gallery: GalleryFile, index: upper_bounds._Index, stack: ExitStack
    ) -> apsw.Connection | None:
        found = second_reader(gallery, index, stack)
        counts.append(1 if found is None else 2)
        return found

    monkeypatch.setattr(upper_bounds, "_second_reader", counting)
    return counts


def test_the_codes_are_read_by_two_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with two_blocks(tmp_path) as gallery:
        counts = count_connections(monkeypatch)
        both = bounds_of(gallery)
        monkeypatch.setattr(GalleryFile, "second_connection", lambda _: None)
        assert bounds_of(gallery) == both
        assert counts == [2, 1]


def test_a_process_that_waits_to_write_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_blocks(tmp_path) as gallery, gallery.snapshot():
        counts = count_connections(monkeypatch)
        gallery.count_photos()
        other = apsw.Connection(str(gallery.path))
        other.execute("begin immediate; update models set name = 'x'")
        with pytest.raises(apsw.BusyError):
            other.execute("commit")
        assert len(bounds_of(gallery)) == 400
        assert counts == [1]
        other.close()


def test_what_only_one_connection_sees_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with two_blocks(tmp_path) as gallery:
        counts = count_connections(monkeypatch)
        whole = bounds_of(gallery)
        gallery.connection.execute("begin; delete from codes where id = (select max(id) from codes)")
        assert bounds_of(gallery) == whole[:200]
        gallery.connection.execute("rollback")
        assert bounds_of(gallery) == whole
    assert counts == [2, 1, 2]


def test_another_file_at_the_path_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with two_blocks(tmp_path / "other", seed=1) as other:
        path = other.path
    with two_blocks(tmp_path / "own") as gallery:
        counts = count_connections(monkeypatch)
        path.replace(gallery.path)
        assert len(bounds_of(gallery)) == 400
        assert counts == [1]

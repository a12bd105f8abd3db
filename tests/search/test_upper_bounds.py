"""Upper bounds on region scores: choosing regions by them, and comparing all blocks."""

from pathlib import Path

import numpy as np
import pytest

from matir_cli.search.index import RUN, read_runs, seal_index
from matir_cli.search.quantisation import cosines
from matir_cli.search.sign_codes import SignQuery, sign_queries
from matir_cli.search.upper_bounds import UpperBounds, compare_blocks
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
    with open_vectors(tmp_path) as gallery:
        put_all(gallery, clustered(300, 10))
        seal_index(gallery, 512)
        query = question(1)
        ids: list[int] = []
        counts: list[int] = []
        queries: list[SignQuery] = []
        scores = []
        for block_id, blob, centre in gallery.connection.execute("select id, runs, centre from blocks"):
            ids.append(int(block_id))
            runs = read_runs(gallery, blob)
            counts.append(int(runs["count"].sum()))
            queries += sign_queries(query, np.frombuffer(bytes(centre), "<f4")[np.newaxis])
            regions = np.concatenate([np.arange(first, first + count) for _, first, count in runs.tolist()])
            for region in regions.tolist():
                vector = gallery.connection.execute(
                    "select vector from vectors where region_id = ?", (region,)
                ).get
                scores.append(cosines(np.frombuffer(bytes(vector), np.int8)[np.newaxis], query)[0])
        upper = compare_blocks(gallery, ids, counts, queries)
    assert len(ids) > 2
    assert upper.shape == (3000,)
    assert np.mean(np.array(scores) > upper) < 0.003
    assert np.mean(upper - scores) < 0.5  # close enough to exclude most regions

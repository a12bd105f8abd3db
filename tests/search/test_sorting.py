"""Result lists in another order than that of the score."""

import os
from itertools import pairwise
from pathlib import Path
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli import masks
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.records import Box, Candidate, PhotoRecord
from matir_cli.search.results import GroundedObject, SearchResult
from matir_cli.search.sorting import SortKey, object_share, sort_results

DATES = (None, "2022-12-31T23:59:59", "2023-01-01T00:00:00")
PATHS = ("/b.jpg", "/a.jpg", "/\udce9.jpg", "/é.jpg")


KEYS = ("taken", "path", "size")


def result(rank: int, taken: str | None, path: str, width: int | None) -> SearchResult:
    """A photo of 40 x 40 pixels with an object of `width` x 40 pixels, or none."""
    record = PhotoRecord(bytes(32), 40, 40, 20, 20, 1, taken)
    objects = () if width is None else (GroundedObject(Box(0, 0, width, 40), None, None, None),)
    return SearchResult(rank, StoredPhoto(rank, (Path(path),), record), Candidate(rank, 1, 0.5), objects)


def share(row: tuple[str | None, str, int | None]) -> int:
    return -1 if row[2] is None else row[2]


lists = st.lists(
    st.tuples(st.sampled_from(DATES), st.sampled_from(PATHS), st.none() | st.integers(0, 40)), max_size=6
)


@settings(derandomize=True, deadline=None)
@given(lists, st.sampled_from(get_args(SortKey)))
def test_the_order_is_that_of_the_key_and_then_of_the_rank(
    rows: list[tuple[str | None, str, int | None]], key: SortKey
) -> None:
    results = [result(rank, *row) for rank, row in enumerate(rows, start=1)]
    got = sort_results(results, key)
    assert sorted(each.rank for each in got) == [each.rank for each in results]
    for one, other in pairwise(got):
        a, b = rows[one.rank - 1], rows[other.rank - 1]
        holds = {
            "score": False,
            "taken": (a[0] or "9") < (b[0] or "9"),
            "path": os.fsencode(a[1]) < os.fsencode(b[1]),
            "size": share(a) > share(b),
        }[key]
        same = (
            key == "score"
            or a[("taken", "path", "size").index(key)] == b[("taken", "path", "size").index(key)]
        )
        assert holds or (same and one.rank < other.rank)


def test_the_size_is_that_of_the_mask_where_there_is_one() -> None:
    boxed = result(1, None, "/a", 10)
    assert object_share(boxed) == 0.25
    first = boxed.objects[0]
    masked = GroundedObject(first.box, None, None, masks.whole(20, 20))
    assert object_share(SearchResult(1, boxed.photo, boxed.candidate, (masked,))) == 1.0
    assert object_share(result(1, None, "/a", None)) == -1.0

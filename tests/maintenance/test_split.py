"""`matir split`: parts that together are what the gallery was."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matir_cli.errors import GalleryEmpty, OutputExists
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.saved_searches import remember_results, returned_photos, save_search, saved_searches
from matir_cli.maintenance.many import open_galleries
from matir_cli.maintenance.merge_saved import merge_saved_searches
from matir_cli.maintenance.split import SplitKey, split_gallery
from matir_cli.progress import Advance
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.saved_query import SavedQuery
from tests.cluster.content import content_of
from tests.search.fake_models import ColourModels
from tests.support.shards import ShardPhoto, make_shard, merge_shards

PHOTOS = [
    ShardPhoto(
        number,
        (5 * number) % 12,
        rating=number % 6,
        keywords=("a",) if number % 2 else (),
        drawn=10 if number % 3 == 0 else None,
    )
    for number in range(12)
]
KEYS: tuple[SplitKey, ...] = ("order", "date", "folder")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A gallery of twelve photos, with verdicts and a saved search."""
    path = tmp_path / "whole.db"
    make_shard(path, PHOTOS, forgotten=[4])
    with GalleryFile.open(path) as gallery:
        found = run_search(gallery, ColourModels(judge_key="a" * 64), "red", SearchOptions(limit=3))
        save_search(gallery, "reds", SavedQuery("red", (), 0.5, (), SearchOptions()).to_json())
        (stored,) = saved_searches(gallery)
        remember_results(gallery, stored, [result.photo.id for result in found.results])
    return path


def split(
    path: Path, folder: Path, count: int, key: SplitKey = "order", *, force: bool = False
) -> list[Path]:
    with open_read_only(path) as source:
        return [part.path for part in split_gallery(source, folder, count, key, force=force)]


def answers_of(path: Path) -> tuple[object, ...]:
    """Judges' answers and saved searches, without ids."""
    with GalleryFile.open(path) as gallery:
        joined = "join questions on questions.id = question_id join photos on photos.id = photo_id"
        kinds = (("verdicts", "z_true, z_false"), ("groundings", "boxes, answer, readable"))
        answers = [
            sorted(
                gallery.connection.execute(f"select sha256, judge, query, {columns} from {table} {joined}"),
                key=repr,
            )
            for table, columns in kinds
        ]
        searches = [
            (
                each.name,
                each.search,
                {gallery.photo(found).record.sha256 for found in returned_photos(gallery, each)},
            )
            for each in saved_searches(gallery)
        ]
    return *answers, searches


@pytest.mark.parametrize(("key", "count"), [("order", 1), ("order", 5), ("date", 3), ("folder", 2)])
def test_merged_parts_are_the_gallery_again(whole: Path, tmp_path: Path, key: SplitKey, count: int) -> None:
    parts = split(whole, tmp_path / "parts", count, key)
    assert parts == sorted((tmp_path / "parts").iterdir())
    with merge_shards(tmp_path / "again.db", parts) as again:
        for part in parts:
            with open_read_only(part) as source:
                assert merge_saved_searches(again, source, dry_run=False) == []
    assert content_of(tmp_path / "again.db") == content_of(whole)
    assert answers_of(tmp_path / "again.db") == answers_of(whole)


@pytest.mark.parametrize("key", KEYS)
def test_answers_of_parts_are_those_of_the_gallery(whole: Path, tmp_path: Path, key: SplitKey) -> None:
    parts = split(whole, tmp_path / "parts", 3, key)
    with GalleryFile.open(whole) as gallery, open_galleries(parts) as union:
        for text in ("green", "blue left of a red"):
            options = SearchOptions(limit=50, rerank=False)
            found, expected = (run_search(each, ColourModels(), text, options) for each in (union, gallery))
            scores = [
                {result.photo.record.sha256: result.candidate.score for result in outcome.results}
                for outcome in (found, expected)
            ]
            assert scores[0] == scores[1]
            if key == "order":  # equal scores come in the same order
                assert [r.path for r in found.results] == [r.path for r in expected.results]


def test_parts_are_divided_by_their_key(whole: Path, tmp_path: Path) -> None:
    sizes = []
    for part in split(whole, tmp_path / "order", 5):
        with GalleryFile.open(part) as gallery:
            sizes.append(gallery.count_photos())
    assert sorted(sizes) == [2, 2, 2, 2, 3]
    dates = []
    for part in split(whole, tmp_path / "date", 3, "date"):
        with GalleryFile.open(part) as gallery:
            dates.append([row[0] for row in gallery.connection.execute("select taken_at from photos")])
    taken = [[date for date in each if date is not None] for each in dates]
    assert max(taken[0]) <= min(taken[1])
    assert max(taken[1]) <= min([*taken[2], "9999"])
    assert None not in dates[0]
    folders = []
    for part in split(whole, tmp_path / "folder", 3, "folder"):
        with GalleryFile.open(part) as gallery:
            folders.append({path.parent for n in (1, 2, 3) if gallery.holds(n) for path in gallery.paths(n)})
    assert [len(each) for each in folders] == [1, 1, 1]
    assert len(set[Path]().union(*folders)) == 3


def test_parts_that_would_be_empty_are_not_written(whole: Path, tmp_path: Path) -> None:
    assert len(split(whole, tmp_path / "order", 100)) == len(PHOTOS) - 1
    assert len(split(whole, tmp_path / "folder", 100, "folder")) == 3
    with GalleryFile.open(tmp_path / "empty.db", create=True):
        pass
    with pytest.raises(GalleryEmpty):
        split(tmp_path / "empty.db", tmp_path / "none", 2)
    assert not (tmp_path / "none").exists()


def test_interrupted_split_leaves_nothing(whole: Path, tmp_path: Path) -> None:
    @contextmanager
    def progress(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        assert (name, total, unit, done) == ("splitting", len(PHOTOS) - 1, "photo", 0)
        left = [8]

        def advance(count: int = 1) -> None:
            left[0] -= count
            if not left[0]:
                assert any((tmp_path / "parts").iterdir())
                raise KeyboardInterrupt

        yield advance

    with open_read_only(whole) as source, pytest.raises(KeyboardInterrupt):
        split_gallery(source, tmp_path / "parts", 3, "order", progress=progress)
    assert not [*(tmp_path / "parts").iterdir()]
    assert len(split(whole, tmp_path / "parts", 3)) == 3


def test_galleries_are_replaced_only_if_that_is_meant(whole: Path, tmp_path: Path) -> None:
    parts = split(whole, tmp_path / "parts", 3)
    before = [part.read_bytes() for part in parts]
    with pytest.raises(OutputExists):
        split(whole, tmp_path / "parts", 3)
    with pytest.raises(OutputExists):  # the third one would be searched beside the two
        split(whole, tmp_path / "parts", 2, force=True)
    assert [part.read_bytes() for part in parts] == before
    assert split(whole, tmp_path / "parts", 3, "date", force=True) == parts

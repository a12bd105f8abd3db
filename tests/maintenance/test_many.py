"""Several galleries searched as one: exactly as the gallery that a merge makes of them."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from matir_cli.errors import (
    GalleryDamaged,
    GalleryError,
    GalleryMissing,
    ModelMismatch,
    NoGalleryLeft,
    NotAGallery,
    QueryContradicts,
)
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.union import GalleryReader, GalleryUnion
from matir_cli.gallery.verdict_cache import count_verdicts
from matir_cli.maintenance.many import expand_galleries, open_galleries, unite_galleries
from matir_cli.records import ModelIdentity
from matir_cli.search.encoding import encode_query
from matir_cli.search.filters import Filters, passing_photos
from matir_cli.search.index import seal_index
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.query import Query, resolve_region
from matir_cli.search.rank import rank_photos
from matir_cli.search.results import SearchResult
from matir_cli.search.sampling import sample_scores
from matir_cli.search.stage_1 import rank_encoded
from tests.search.fake_models import ColourModels
from tests.search.vector_gallery import clustered, question
from tests.search.vector_gallery import put as put_vectors
from tests.support.fakes import ColourText
from tests.support.shards import ShardPhoto, make_shard, merge_shards, put

SETTINGS = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),  # to shrink what fails takes minutes
)

photos = st.builds(
    ShardPhoto,
    content=st.integers(0, 11),
    place=st.integers(0, 11),
    rating=st.none() | st.integers(-1, 5),
    keywords=st.sets(st.sampled_from(["a", "b"])).map(lambda each: tuple(sorted(each))),
    drawn=st.none() | st.sampled_from([0, 10]),
    preview=st.booleans(),
)

shards = st.lists(
    st.tuples(st.lists(photos, min_size=1, max_size=8), st.sets(st.integers(0, 7)), st.sampled_from([0, 4])),
    min_size=2,
    max_size=4,
)

filters = st.none() | st.builds(
    Filters,
    places=st.sets(st.sampled_from([Path("/photos/0"), Path("/photos/1")]), max_size=1).map(tuple),
    since=st.none() | st.just("2024-03"),
    camera=st.none() | st.just("acme"),
    max_size=st.none() | st.just(0.5),
    near=st.none() | st.just((50.0, 10.0)),
    within=st.just(5000.0),
    rating=st.none() | st.just((2, 5)),
    keywords=st.sampled_from([(), ("a",)]),
    no_keywords=st.sampled_from([(), ("b",)]),
)

QUERIES = ("red", "green", "red not green", "a red left of a blue", "blue with a green and a red")


@contextmanager
def both(
    made: Sequence[tuple[Sequence[ShardPhoto], set[int], int]],
) -> Iterator[tuple[GalleryReader, GalleryFile]]:
    """The galleries as one, and merged."""
    folder = Path(tempfile.mkdtemp())
    try:
        paths = [folder / f"{number}.db" for number in range(len(made))]
        for path, (content, forgotten, block) in zip(paths, made, strict=True):
            make_shard(path, content, [*forgotten], block)
        with merge_shards(folder / "merged.db", paths) as merged, open_galleries(paths) as union:
            yield union, merged
    finally:
        shutil.rmtree(folder)


def shown(gallery: GalleryReader, result: SearchResult) -> Any:
    """All of a result but the ids of regions, which differ."""

    def without_id(region: Any) -> Any:
        return None if region is None else replace(region, id=0)

    objects = tuple(replace(each, region=without_id(each.region)) for each in result.objects)
    ordinal = gallery.region(result.candidate.region_id).ordinal
    return replace(result, objects=objects, candidate=replace(result.candidate, region_id=ordinal))


@settings(SETTINGS, max_examples=25)
@given(shards, filters, st.sampled_from(QUERIES), st.sampled_from([1, 3, 50]), st.booleans(), st.data())
def test_ranking_is_that_of_the_merged_gallery(
    made: list[tuple[list[ShardPhoto], set[int], int]],
    wanted: Filters | None,
    text: str,
    limit: int,
    shows_examples: bool,
    data: st.DataObject,
) -> None:
    models = ColourModels()
    with both(made) as (union, merged):
        assert union.count_photos() == merged.count_photos()
        if not merged.count_photos():
            return
        vector = ColourText().encode(text).vector[np.newaxis]
        assert np.array_equal(sample_scores(union, vector), sample_scores(merged, vector))
        if wanted is not None:
            passing = [passing_photos(gallery, wanted) for gallery in (union, merged)]
            ids = [None if each is None else each.tolist() for each in passing]
            assert ids[0] == ids[1]
        regions = sorted(int(row[0]) for row in merged.connection.execute("select id from regions"))
        examples = data.draw(st.lists(st.sampled_from(regions), max_size=3)) if shows_examples else []

        def ranking(gallery: GalleryReader) -> object:
            shown = []
            for each in examples:
                region = merged.region(each)
                shown.append(resolve_region(gallery, gallery.regions(region.photo_id)[region.ordinal].id))
            without = ("green",) if limit == 3 else ()
            query = Query(text, tuple(shown[:2]), without=without, unlike=tuple(shown[2:]))
            try:
                encoded = encode_query(gallery, models, query)
            except QueryContradicts as error:
                return str(error)
            ranked = rank_encoded(gallery, encoded, limit, wanted)
            return [(each.photo_id, gallery.region(each.region_id).ordinal, each.score) for each in ranked]

        assert ranking(union) == ranking(merged)


@settings(SETTINGS, max_examples=12)
@given(shards, filters, st.sampled_from(["red", "blue"]), st.booleans(), st.booleans())
def test_search_is_that_of_the_merged_gallery(
    made: list[tuple[list[ShardPhoto], set[int], int]],
    wanted: Filters | None,
    text: str,
    unique: bool,
    explain: bool,
) -> None:
    options = SearchOptions(limit=5, filters=wanted, unique=unique, explain=explain)
    with both(made) as (union, merged):
        if not merged.count_photos():
            return
        for _ in range(2):  # the second time with verdicts that are remembered
            models = [ColourModels(), ColourModels()]
            outcomes = [
                run_search(gallery, each, text, options)
                for gallery, each in zip((union, merged), models, strict=True)
            ]
            results = [
                [shown(gallery, each) for each in outcome.results]
                for gallery, outcome in zip((union, merged), outcomes, strict=True)
            ]
            assert results[0] == results[1]
            assert outcomes[0].best_score == outcomes[1].best_score
            assert models[0].judge.asked == models[1].judge.asked


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Three galleries; one photo is in the first and in the last one, in different files."""
    paths = [tmp_path / "shards" / f"{number}.db" for number in range(3)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        make_shard(path, [ShardPhoto(2 * number + each, 2 * number + each) for each in range(2)])
    with GalleryFile.open(paths[2]) as last, last.atomic():
        put(last, ShardPhoto(0, 11))
    return paths


def test_photo_of_two_galleries_is_one_with_the_files_of_both(three: list[Path]) -> None:
    with open_galleries(three) as gallery:
        assert gallery.count_photos() == 6
        assert [file.name for file in gallery.photo(1).paths] == ["00.jpg", "11.jpg"]
        found = run_search(gallery, ColourModels(), "red", SearchOptions(limit=10))
        assert sorted(result.photo.id for result in found.results) == [1, 2, 3, 4, 5, 6]


def test_verdicts_are_kept_in_the_first_gallery_that_holds_the_photo(three: list[Path]) -> None:
    with open_galleries(three) as gallery:
        run_search(gallery, ColourModels(), "red", SearchOptions(limit=10, certainty=1))
    counts = []
    for path in three:
        with GalleryFile.open(path) as file:
            counts.append(count_verdicts(file))
    assert counts == [2, 2, 2]


def test_gallery_that_cannot_be_written_is_searched(three: list[Path]) -> None:
    before = three[1].read_bytes()
    flags = [apsw.SQLITE_OPEN_READWRITE, apsw.SQLITE_OPEN_READONLY, apsw.SQLITE_OPEN_READWRITE]
    files = [GalleryFile._open(path, flag) for path, flag in zip(three, flags, strict=True)]
    with unite_galleries(files) as gallery:
        found = run_search(gallery, ColourModels(), "red", SearchOptions(limit=10, certainty=1))
        assert len(found.results) == 6
        assert all(result.verdict for result in found.results)
        assert [count_verdicts(file) for file in gallery.files] == [2, 0, 2]
    assert three[1].read_bytes() == before


def test_folder_and_pattern_mean_the_galleries_in_them(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "shards" / "notes.txt").write_text("not a gallery")
    assert expand_galleries([tmp_path / "shards"]) == three
    assert expand_galleries([tmp_path / "shards" / "*.db"]) == three
    assert expand_galleries([three[2], tmp_path / "shards"]) == [three[2], *three[:2]]
    (tmp_path / "link.db").symlink_to(three[0])
    assert expand_galleries([three[0], tmp_path / "link.db"]) == [three[0]]
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "none*.db", tmp_path / "empty"):
        with pytest.raises(GalleryMissing) as caught:
            expand_galleries([name])
        assert caught.value.path == name


def test_gallery_of_other_models_is_named(three: list[Path]) -> None:
    with GalleryFile.open(three[1]) as file:
        file.connection.execute("update models set weight_hash = ? where role = 'encoder'", ("3" * 64,))
    for skip in (None, lambda _: None):
        with pytest.raises(ModelMismatch) as caught:
            open_galleries(three, skip)
        assert caught.value.path == three[1]
        assert caught.value.role == "encoder"


@pytest.mark.parametrize("damage", ["missing", "no gallery", "a photo without a hash"])
def test_gallery_that_is_missing_or_damaged_is_named_or_left_out(three: list[Path], damage: str) -> None:
    if damage == "missing":
        three[1].unlink()
    elif damage == "no gallery":
        three[1].write_bytes(b"something else" * 1000)
    else:
        with GalleryFile.open(three[1]) as file:
            file.connection.execute("update photos set sha256 = 'x' where id = 1")
    with pytest.raises(GalleryError) as caught:
        open_galleries(three)
    assert caught.value.path == three[1]
    skipped: list[GalleryError] = []
    with open_galleries(three, skipped.append) as gallery:
        assert isinstance(gallery, GalleryUnion)
        assert gallery.count_photos() == 4
    assert [error.path for error in skipped] == [three[1]]


def test_damage_found_while_searching_names_the_gallery(three: list[Path]) -> None:
    with GalleryFile.open(three[1]) as file:
        file.connection.execute("update vectors set vector = zeroblob(64)")
    with open_galleries(three) as gallery, pytest.raises(GalleryDamaged) as caught:
        run_search(gallery, ColourModels(), "red", SearchOptions(limit=10))
    assert caught.value.path == three[1]


@pytest.mark.parametrize(
    "table", ["vectors", "regions", "residuals", "files", "previews", "verdicts", "loose"]
)
def test_file_that_is_damaged_in_part_is_named(three: list[Path], table: str) -> None:
    with GalleryFile.open(three[1]) as file:
        root = int(file.connection.execute("select rootpage from sqlite_schema where name = ?", (table,)).get)
        size = int(file.connection.pragma("page_size"))
    with three[1].open("rb+") as stream:
        stream.seek((root - 1) * size)
        stream.write(b"\xff" * size)
    options = SearchOptions(limit=10, unique=True, certainty=1, filters=Filters(max_size=0.9))
    with pytest.raises(GalleryError) as caught, open_galleries(three) as gallery:
        run_search(gallery, ColourModels(), "a red left of a blue", replace(options, rerank=False))
        run_search(gallery, ColourModels(), "red", options)
    assert caught.value.path == three[1]


def test_nothing_is_left_out_of_none(tmp_path: Path) -> None:
    (tmp_path / "b.db").write_bytes(b"not a gallery")
    told: list[GalleryError] = []
    with pytest.raises(NoGalleryLeft) as caught:
        open_galleries([tmp_path / "a.db", tmp_path / "b.db"], told.append)
    assert [type(error) for error in told] == [GalleryMissing, NotAGallery]
    assert str(tmp_path) not in str(caught.value)


@contextmanager
def halves(folder: Path) -> Iterator[GalleryUnion]:
    """Two galleries, of photos 0 to 119 and 20 to 139, as one."""
    photos = clustered(140, 40, 768)
    paths = [folder / "a.db", folder / "b.db"]
    for path, first in zip(paths, (0, 20), strict=True):
        with GalleryFile.open(path, create=True) as file:
            file.connection.pragma("synchronous", "off")
            for role in ("proposer", "encoder"):
                file.bind_model(role, ModelIdentity(role, "0" * 64), "made up")
            with file.atomic():
                for number in range(first, first + 120):
                    put_vectors(file, f"{number:03}", photos[number])
            seal_index(file, 1000)
    opened = open_galleries(paths)
    assert isinstance(opened, GalleryUnion)
    with opened:
        yield opened


def test_shared_photos_are_not_kept_in_memory(tmp_path: Path) -> None:
    with halves(tmp_path) as gallery:
        merged = gallery.members[-1].file
        assert gallery.count_photos() == 140
        assert merged.count_photos() == 100
        rank_photos(gallery, question(1, 768), 140)
        (in_memory, _) = merged.connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)
        assert in_memory < 4_200_000 < 5_000_000 < merged.file_bytes


def test_a_query_does_not_list_all_photos_again(tmp_path: Path) -> None:
    statements: list[str] = []

    def trace(_cursor: object, statement: str, _bindings: Any) -> bool:
        statements.append(statement)
        return True

    with halves(tmp_path) as gallery:
        expected = rank_photos(gallery, question(2, 768), 140)
        assert [*{each.photo_id for each in expected}] == [*range(1, 141)]
        for member in gallery.members:
            member.file.connection.exec_trace = trace
        assert rank_photos(gallery, question(2, 768), 140) == expected
    assert statements
    assert [each for each in statements if "from photos" in each and "where" not in each] == []


def test_photos_that_come_while_galleries_are_open_are_not_shown(three: list[Path]) -> None:
    with open_galleries(three) as gallery:
        with GalleryFile.open(three[0]) as file, file.atomic():
            put(file, ShardPhoto(9, 9))
        found = run_search(gallery, ColourModels(), "red", SearchOptions(limit=10))
        assert len(found.results) == 6

"""Stage 1 of several queries: the rankings of each alone, in few passes over the codes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.engines.protocols import QueryVector
from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.progress import no_progress
from matir_cli.records import FloatArray
from matir_cli.search import upper_bounds
from matir_cli.search.encoding import EncodedQuery
from matir_cli.search.events import FinalEvent, SearchEvent, Stage1Event
from matir_cli.search.filters import Filters
from matir_cli.search.index import seal_index
from matir_cli.search.parts import PartQuery, Role
from matir_cli.search.phrases.description import RelationKind
from matir_cli.search.pipeline import SearchOptions, rank_ahead, search_events
from matir_cli.search.query import Query
from matir_cli.search.rank import RankQuery, rank_queries
from matir_cli.search.stage_1 import rank_each, rank_encoded
from matir_cli.search.upper_bounds import vectors_at_once
from tests.search.fake_models import ColourModels
from tests.search.vector_gallery import clustered, open_vectors, put_all, question
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes

PHOTOS = 60


@pytest.fixture(scope="module", params=["loose", "sealed", "half sealed"])
def gallery(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GalleryFile]:
    with open_vectors(tmp_path_factory.mktemp("stage_1")) as opened:
        put_all(opened, clustered(PHOTOS // 2, 6))
        if request.param != "loose":
            seal_index(opened, 50)
        put_all(opened, clustered(PHOTOS // 2, 6, seed=1))
        if request.param == "sealed":
            seal_index(opened, 50)
        yield opened


def plain(vectors: FloatArray) -> EncodedQuery:
    return EncodedQuery(vectors, truncated=False)


def encoded(kind: str, seed: int) -> EncodedQuery:
    """A query of one vector, of three, with a handicap for whole photos, or with another object."""
    vector = question(seed)[np.newaxis]
    match kind:
        case "examples":
            return plain(np.stack([question(seed + number) for number in range(3)]))
        case "handicap":
            return EncodedQuery(vector, truncated=False, deviation=0.1)
        case "parts":
            other = Role(10 * question(seed + 7), 0.5)
            target = Role(10 * vector[0], 0.5, ((RelationKind.NEAR, other), (None, other)))
            return EncodedQuery(vector, truncated=False, parts=PartQuery(vector, target, 0.05))
    return plain(vector)


class Passes:
    """Counts the passes over the index, by the statement that reads what is known of the blocks."""

    def __init__(self, gallery: GalleryFile) -> None:
        self.count = 0
        self._gallery = gallery

    def __enter__(self) -> "Passes":
        self._gallery.connection.exec_trace = self._trace
        return self

    def __exit__(self, *_: object) -> None:
        self._gallery.connection.exec_trace = None

    def _trace(self, _cursor: object, statement: str, _bindings: Any) -> bool:
        self.count += "octet_length(codes), runs" in statement
        return True


kinds = st.sampled_from(["plain", "examples", "handicap", "parts"])

filters = st.sampled_from(
    [None, Filters(whole=False), Filters((Path("/photos/3"), Path("/photos/50"))), Filters(min_size=0.5)]
)


@given(st.lists(st.tuples(kinds, st.integers(0, 9)), max_size=9), st.integers(1, 90), filters)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_many_queries_are_ranked_as_each_alone(
    gallery: GalleryFile, chosen: list[tuple[str, int]], limit: int, passing: Filters | None
) -> None:
    queries = [encoded(kind, seed) for kind, seed in chosen]
    alone = [rank_encoded(gallery, query, limit, passing) for query in queries]
    assert [*rank_each(gallery, queries, limit, passing)] == alone


def test_one_pass_serves_many_queries_and_memory_bounds_their_number(
    gallery: GalleryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [encoded("plain", seed) for seed in range(12)]
    with Passes(gallery) as passes:
        together = [*rank_each(gallery, queries, 10)]
    assert passes.count == 1
    sealed = gallery.connection.execute("select count(*) from codes").get > 0
    coded = 6 * PHOTOS - 6 * gallery.connection.execute("select count(*) from loose").get
    if sealed:
        monkeypatch.setattr(upper_bounds, "BOUNDS_BYTES", 4 * coded * 5)
    assert vectors_at_once(gallery) == (5 if sealed else upper_bounds.VECTORS_AT_ONCE)
    with Passes(gallery) as passes:
        assert [*rank_each(gallery, queries, 10)] == together
    assert passes.count == (3 if sealed else 1)
    # A query that has more vectors than may be in memory is compared in several passes.
    examples = plain(np.stack([question(seed) for seed in range(12)]))
    monkeypatch.setattr(upper_bounds, "BOUNDS_BYTES", 1)
    few = rank_encoded(gallery, examples, 10)
    monkeypatch.undo()
    assert few == rank_encoded(gallery, examples, 10)


def test_queries_of_one_pass_may_differ_in_depth_and_filters(gallery: GalleryFile) -> None:
    some = Filters((Path("/photos/3"), Path("/photos/50")))
    queries = [
        RankQuery(question(1), 5),
        RankQuery(question(2), 60, some),
        RankQuery(question(3), 1, Filters(whole=False)),
    ]
    found = rank_queries(gallery, queries)
    assert found == [rank_queries(gallery, [query])[0] for query in queries]
    assert [len(each) for each in found] == [5, 2, 1]


# Ahead of searches


@pytest.fixture
def scenes(tmp_path: Path) -> Iterator[GalleryFile]:
    save_scenes(tmp_path / "photos", a="green", b="red", c="red red", d="blue", e="red green")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        models = IndexingModels(ColourProposer, ColourEncoder)
        list(add_photos(opened, [tmp_path / "photos"], models, previews=False))
        yield opened


OPTIONS = SearchOptions(rerank=False, min_score=0.01)


def searched(
    gallery: GalleryFile, queries: Sequence[Query], options: SearchOptions, *, ahead: bool
) -> list[list[SearchEvent]]:
    """The events of each search."""
    models = ColourModels()
    known = rank_ahead(gallery, models, queries, options) if ahead else [None] * len(queries)
    return [
        [*search_events(gallery, models, query, options, no_progress, each)]
        for query, each in zip(queries, known, strict=True)
    ]


COLOURS = ("red", "blue", "green", "red")

TEXTS = ("red", "green left of a red", "blue that is not red", "red")


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (OPTIONS, TEXTS),
        (SearchOptions(whole=True), COLOURS),  # with the judge, who knows colours only
        (SearchOptions(unique=True, rerank=False), TEXTS),
    ],
)
def test_searches_with_a_ranking_made_ahead_have_the_same_events(
    scenes: GalleryFile, options: SearchOptions, texts: Sequence[str]
) -> None:
    queries = [Query(text, without=() if number else ("blue",)) for number, text in enumerate(texts)]
    alone = searched(scenes, queries, options, ahead=False)
    assert searched(scenes, queries, options, ahead=True) == alone
    final = alone[0][-1]
    assert isinstance(final, FinalEvent)
    assert final.outcome.results


def test_a_ranking_made_ahead_is_used_once_and_not_after_another_process_has_written(
    scenes: GalleryFile, tmp_path: Path
) -> None:
    queries = [Query("red"), Query("blue")]
    models = ColourModels()
    red, blue = rank_ahead(scenes, models, queries, OPTIONS)
    assert red is not None
    assert blue is not None
    # What is known is not encoded again.
    events = [*search_events(scenes, ColourModels(text_encoder=Refusing()), queries[0], OPTIONS, ahead=red)]
    assert isinstance(events[-1], FinalEvent)
    save_scenes(tmp_path / "more", f="blue blue blue")
    with GalleryFile.open(scenes.path) as other:
        indexing = IndexingModels(ColourProposer, ColourEncoder)
        list(add_photos(other, [tmp_path / "more"], indexing, previews=False))
    assert not blue.is_current(scenes)
    known = [*search_events(scenes, models, queries[1], OPTIONS, no_progress, blue)]
    assert known == [*search_events(scenes, models, queries[1], OPTIONS)]
    assert isinstance(known[0], Stage1Event)
    assert "f" in {result.path.stem for result in known[0].results}


class Refusing:
    """A text encoder that must not be used."""

    def encode(self, query: str) -> QueryVector:
        raise AssertionError(f"{query} was encoded without need")


def test_errors_are_left_to_the_search_that_they_belong_to(scenes: GalleryFile) -> None:
    queries = [Query("red", without=("blue",)), Query("blue", without=("blue",)), Query("green")]
    first, second, third = rank_ahead(scenes, ColourModels(), queries, OPTIONS)
    assert second is None
    assert first is not None
    assert third is not None
    scenes.connection.execute("update vectors set vector = zeroblob(octet_length(vector))")
    assert rank_ahead(scenes, ColourModels(), queries, OPTIONS) == [None] * 3
    with pytest.raises(GalleryDamaged):
        list(search_events(scenes, ColourModels(), queries[0], OPTIONS))

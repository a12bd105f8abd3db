"""Queries with parts as vectors, and their search in a gallery of coloured squares."""

from collections.abc import Iterator

import numpy as np
import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.search.encoding import (
    NEGATION,
    WHOLE_PHOTO,
    EncodedQuery,
    encode_query,
    fusion_weight,
    match_directions,
)
from matir_cli.search.filters import Filters
from matir_cli.search.phrases.description import RelationKind
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.quantisation import cosines
from matir_cli.search.query import Example, Query
from matir_cli.search.sampling import sample_scores
from matir_cli.search.stage_1 import rank_encoded
from tests.search.fake_models import ColourModels
from tests.support.fakes import ColourEncoder, ColourProposer, ColourText
from tests.support.pictures import save_scenes


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalleryFile]:
    folder = tmp_path_factory.mktemp("encoding")
    save_scenes(
        folder / "photos",
        a_red_green="red green",
        b_green_red="green red",
        c_red="red",
        d_green="green",
        e_blue_red="blue red",
        f_blue="blue",
    )
    with GalleryFile.open(folder / "gallery.db", create=True) as opened:
        models = IndexingModels(ColourProposer, ColourEncoder)
        list(add_photos(opened, [folder / "photos"], models, previews=False))
        yield opened


def encode(gallery: GalleryFile, text: str, *, whole: bool = False) -> EncodedQuery:
    return encode_query(gallery, ColourModels(), Query(text), whole=whole)


def names(gallery: GalleryFile, text: str, filters: Filters | None = None) -> list[str]:
    ranked = rank_encoded(gallery, encode(gallery, text), 10, filters)
    return [gallery.photo(each.photo_id).paths[0].stem for each in ranked]


def spread(gallery: GalleryFile, text: str) -> float:
    return float(sample_scores(gallery, ColourText().encode(text).vector[np.newaxis]).std())


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("red left of a green", "a_red_green"),
        ("green left of a red", "b_green_red"),
        ("red right of a green", "b_green_red"),
        ("red right of a blue", "e_blue_red"),
        ("a red and a blue", "e_blue_red"),
        ("a blue and a red", "e_blue_red"),
    ],
)
def test_relations_and_conjunctions_find_the_photo_and_the_region(
    gallery: GalleryFile, text: str, first: str
) -> None:
    found = run_search(gallery, ColourModels(), text, SearchOptions(rerank=False, limit=3)).results
    assert found[0].path.stem == first
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[1] + 0.01
    (answer,) = found[0].objects
    assert answer.region is not None
    assert answer.region.ordinal > 0
    stored = gallery.connection.execute(
        "select vector from vectors where region_id = ?", (answer.region.id,)
    ).get
    subject = text.removeprefix("a ").split()[0]
    rows = np.frombuffer(stored, np.int8)[np.newaxis]
    assert cosines(rows, ColourText().encode(subject).vector)[0] > 0.9


def test_a_text_without_parts_is_the_vector_of_the_text(gallery: GalleryFile) -> None:
    for text in ("red", "a red on the left", "red or green", "red with green"):
        encoded = encode(gallery, text)
        assert encoded.vectors[0] == pytest.approx(ColourText().encode(text).vector, abs=1e-6)
        assert encoded.parts is None
        assert encoded.handicap == pytest.approx(WHOLE_PHOTO * spread(gallery, text), rel=1e-4)


def test_whole_switches_parts_and_handicap_off(gallery: GalleryFile) -> None:
    for text in ("red left of a green", "red without green", "red"):
        encoded = encode(gallery, text, whole=True)
        assert np.array_equal(encoded.vectors[0], ColourText().encode(text).vector)
        assert (encoded.parts, encoded.handicap) == (None, 0.0)


def test_a_negation_is_subtracted_in_one_vector(gallery: GalleryFile) -> None:
    encoded = encode(gallery, "red without green")
    assert encoded.parts is None
    whole, red = (ColourText().encode(text).vector for text in ("red green", "red"))
    total = whole / spread(gallery, "red green") + red / spread(gallery, "red")
    total -= NEGATION * whole / spread(gallery, "red green")  # the counterpart, "red with green"
    assert encoded.vectors[0] == pytest.approx(total / np.linalg.norm(total), abs=1e-5)


def test_a_relation_has_a_role_for_each_object(gallery: GalleryFile) -> None:
    encoded = encode(gallery, "red left of a green and a blue, without a green, and a blue")
    assert encoded.parts is not None
    relations = encoded.parts.target.relations
    assert [kind for kind, _ in relations] == [RelationKind.LEFT_OF, RelationKind.LEFT_OF, None]
    directions = [role.vector / np.linalg.norm(role.vector) for _, role in relations]
    for direction, colour in zip(directions, ("green", "blue", "blue"), strict=True):
        assert direction == pytest.approx(ColourText().encode(colour).vector, abs=1e-5)


def test_the_score_is_at_most_the_cosine_with_the_vector(gallery: GalleryFile) -> None:
    encoded = encode(gallery, "red left of a green")
    assert encoded.parts is not None
    upper = {
        each.photo_id: each.score
        for each in rank_encoded(gallery, EncodedQuery(encoded.vectors, truncated=False), 10)
    }
    ranked = rank_encoded(gallery, encoded, 10)
    assert all(each.score <= upper[each.photo_id] + 1e-6 for each in ranked)
    best = ranked[0]
    assert best.score == pytest.approx(upper[best.photo_id], abs=0.02)  # nothing is missing there


def test_filters_hold_for_a_query_with_parts(gallery: GalleryFile) -> None:
    place = gallery.path.parent / "photos" / "b_green_red.png"
    assert names(gallery, "red left of a green", Filters((place,))) == ["b_green_red"]


def test_an_example_of_a_whole_photo_finds_whole_photos(gallery: GalleryFile) -> None:
    photo = gallery.path.parent / "photos" / "c_red.png"
    encoded = encode_query(gallery, ColourModels(), Query(examples=(Example(photo),)))
    assert encoded.handicap == 0
    (best,) = rank_encoded(gallery, encoded, 1)
    assert best.score == pytest.approx(1, abs=1e-3)
    assert gallery.region(best.region_id).ordinal == 0
    region = next(each for each in gallery.regions(best.photo_id) if each.ordinal)
    shown = encode_query(gallery, ColourModels(), Query(examples=(Example(photo, region.box),)))
    assert shown.handicap > 0


def test_the_direction_of_the_object_measures_in_standard_deviations(gallery: GalleryFile) -> None:
    for text in ("red", "a red and a blue", "red left of a green"):
        (direction,) = match_directions(gallery, encode(gallery, text))
        assert sample_scores(gallery, direction[np.newaxis]).std() * np.linalg.norm(
            direction
        ) == pytest.approx(1, abs=0.01)
        cosine = direction @ ColourText().encode("red").vector / np.linalg.norm(direction)
        assert cosine == pytest.approx(1, abs=1e-5)


def test_stage_1_has_the_weight_of_its_standard_deviation(gallery: GalleryFile) -> None:
    models = ColourModels(fusion=3.0)
    for text in ("red", "red left of a green", "red without green"):
        encoded = encode(gallery, text)
        scores = sample_scores(gallery, encoded.vectors)[0]
        assert fusion_weight(encoded, models) * scores.std() == pytest.approx(3, rel=1e-3)
        assert fusion_weight(encode(gallery, text, whole=True), models) == 0  # the method as published
        assert fusion_weight(encoded, ColourModels()) == 0

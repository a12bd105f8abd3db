"""Queries with several examples: their vectors, and the ranking against brute force."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.errors import EngineFailed, GalleryDamaged, OutOfRange, QueryContradicts, QueryEmpty
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Candidate, FloatArray
from matir_cli.search.dislike import Dislike
from matir_cli.search.encoding import (
    DISLIKE,
    DISLIKE_OF_TEXTS,
    MARGIN,
    MARGIN_OF_TEXTS,
    WHOLE_PHOTO,
    EncodedQuery,
    encode_query,
    match_directions,
)
from matir_cli.search.filters import Filters
from matir_cli.search.index import seal_index
from matir_cli.search.parts import rank_by_parts
from matir_cli.search.query import MOST_EXAMPLES, Example, Query, ResolvedExample
from matir_cli.search.rank import rank_photos
from matir_cli.search.sampling import sample_scores
from matir_cli.search.stage_1 import rank_encoded
from matir_cli.search.vectors import region_vector, score_regions
from tests.search.fake_models import ColourModels
from tests.search.vector_gallery import brute_force, clustered, forget, open_vectors, put_all, question
from tests.support.fakes import ColourEncoder, ColourProposer, ColourText
from tests.support.pictures import save_scenes

D = 32

LENGTHS = st.sampled_from([0.1, 0.5, 1.0, 3.0])


def best_of(gallery: GalleryFile, vectors: FloatArray) -> list[Candidate]:
    """All photos, ranked by the best score of any region with any vector."""
    lengths = np.linalg.norm(vectors, axis=1)
    best: dict[int, Candidate] = {}
    for vector, scale in zip(vectors, (lengths / lengths.max()).tolist(), strict=True):
        for each in brute_force(gallery, vector):
            found = replace(each, score=each.score * scale)
            known = best.setdefault(each.photo_id, found)
            best[each.photo_id] = min(known, found, key=lambda c: (-c.score, c.region_id))
    return sorted(best.values(), key=lambda c: (-c.score, c.photo_id))


@given(
    vectors=st.lists(st.tuples(st.integers(0, 9), LENGTHS), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    sealed=st.sampled_from([0, 30, 60]),
    limit=st.sampled_from([1, 5, 60]),
    forgotten=st.sets(st.integers(0, 59), max_size=5),
    below=st.sets(st.integers(0, 59), min_size=1, max_size=45),
)
@settings(derandomize=True, max_examples=15, deadline=None)
def test_the_ranking_is_that_of_the_best_example(
    tmp_path_factory: pytest.TempPathFactory,
    vectors: list[tuple[int, float]],
    seed: int,
    sealed: int,
    limit: int,
    forgotten: set[int],
    below: set[int],
) -> None:
    photos = clustered(50, 4, D, seed)
    photos += photos[:5] + [np.repeat(photos[5], 2, axis=0)] * 5  # ties, also within a photo
    with open_vectors(tmp_path_factory.mktemp("vectors")) as gallery:
        put_all(gallery, photos[:sealed])
        seal_index(gallery, 64)
        put_all(gallery, photos[sealed:])
        for number in forgotten:
            forget(gallery, str(number))
        query = np.stack([np.float32(length) * question(number, D) for number, length in vectors])
        expected = best_of(gallery, query)
        assert rank_photos(gallery, query, limit) == expected[:limit]
        places = tuple(Path(f"/photos/{number}") for number in sorted(below))
        ids = Filters(places).photos(gallery)
        assert ids is not None
        kept = [each for each in expected if each.photo_id in ids]
        assert rank_photos(gallery, query, limit, Filters(places)) == kept[:limit]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalleryFile]:
    folder = tmp_path_factory.mktemp("examples")
    save_scenes(
        folder / "photos",
        a_red="red",
        b_green="green",
        c_blue="blue",
        d_violet="red blue",
        e_red_green="red green",
        f_blue_green="blue green",
    )
    with GalleryFile.open(folder / "gallery.db", create=True) as opened:
        models = IndexingModels(ColourProposer, ColourEncoder)
        list(add_photos(opened, [folder / "photos"], models, previews=False))
        yield opened


def shown(gallery: GalleryFile, name: str, ordinal: int = 1) -> ResolvedExample:
    """A region of a photo as an example."""
    path = gallery.path.parent / "photos" / f"{name}.png"
    photo = next(number for number in range(1, 7) if path in gallery.paths(number))
    region = gallery.regions(photo)[ordinal]
    share = 1.0 if ordinal == 0 else 0.1
    return ResolvedExample(path, region_vector(gallery, region.id), region.box, share, stored=True)


def encode(gallery: GalleryFile, query: Query) -> EncodedQuery:
    return encode_query(gallery, ColourModels(), query)


def names(gallery: GalleryFile, query: Query, limit: int = 6) -> list[str]:
    ranked = rank_encoded(gallery, encode(gallery, query), limit)
    return [gallery.photo(each.photo_id).paths[0].stem for each in ranked]


def test_each_example_finds_its_own(gallery: GalleryFile) -> None:
    red, blue = shown(gallery, "a_red"), shown(gallery, "c_blue")
    query = Query(examples=(red, blue))
    ranked = rank_encoded(gallery, encode(gallery, query), 4)
    others = {"a_red", "c_blue", "d_violet", "e_red_green", "f_blue_green"}
    assert {*names(gallery, query, 5)} == others
    assert [each.score for each in ranked] == pytest.approx([1] * 4, abs=1e-3)
    mean = encode(gallery, Query(examples=(red, blue), rule="mean")).vectors
    both = red.vector + blue.vector
    assert mean == pytest.approx((both / np.linalg.norm(both))[np.newaxis], abs=1e-6)
    # In any order, and however often one is given.
    assert rank_encoded(gallery, encode(gallery, Query(examples=(blue, red, blue))), 4) == ranked


def test_the_best_of_one_example_is_that_example(gallery: GalleryFile) -> None:
    red = shown(gallery, "a_red")
    for text in (None, "green", "green left of a blue"):
        single = rank_encoded(gallery, encode(gallery, Query(text, (red,))), 6)
        assert rank_encoded(gallery, encode(gallery, Query(text, (red, red))), 6) == single
        mean = rank_encoded(gallery, encode(gallery, Query(text, (red, red), rule="mean")), 6)
        assert [each.region_id for each in mean] == [each.region_id for each in single]
        assert [each.score for each in mean] == pytest.approx([each.score for each in single], abs=1e-5)


def test_text_and_examples_are_measured_in_their_own_units(gallery: GalleryFile) -> None:
    good = shown(gallery, "a_red"), shown(gallery, "c_blue")
    encoded = encode(gallery, Query("green", good, 0.3))
    text, examples = ColourText().encode("green").vector, np.stack([each.vector for each in good])
    spread = (
        sample_scores(gallery, text[np.newaxis]).std(),
        sample_scores(gallery, examples).max(axis=0).std(),
    )
    total = 0.7 * text / spread[0] + 0.3 * examples / spread[1]
    longest = np.linalg.norm(total, axis=1).max()
    assert encoded.vectors == pytest.approx(total / longest, abs=1e-5)
    lengths = np.linalg.norm(encoded.vectors, axis=1, keepdims=True)
    best = (sample_scores(gallery, encoded.vectors) * lengths).max(axis=0)
    assert encoded.handicap == pytest.approx(WHOLE_PHOTO * best.std(), rel=1e-4)
    directions = match_directions(gallery, encoded)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    assert (sample_scores(gallery, directions) * lengths).max(axis=0).std() == pytest.approx(1, abs=0.01)


def test_a_description_with_parts_and_several_examples(gallery: GalleryFile) -> None:
    good = shown(gallery, "a_red"), shown(gallery, "c_blue")
    encoded = encode(gallery, Query("red left of a green", good))
    assert encoded.parts is not None
    assert encoded.parts.vectors.shape == encoded.vectors.shape == (2, good[0].vector.size)
    ranked = rank_by_parts(gallery, encoded.parts, 6)
    assert gallery.photo(ranked[0].photo_id).paths[0].stem == "e_red_green"
    # What is scored is the best of the two: no less than with either of the rows alone.
    for row in encoded.parts.vectors:
        alone = replace(encoded.parts, vectors=row[np.newaxis])
        scores = {each.photo_id: each.score for each in rank_by_parts(gallery, alone, 6)}
        assert all(each.score >= scores[each.photo_id] - 1e-6 for each in ranked)


def test_what_a_bad_example_shows_is_ranked_down(gallery: GalleryFile) -> None:
    red, blue = shown(gallery, "a_red"), shown(gallery, "c_blue")
    both = red.vector + blue.vector
    violet = replace(red, vector=both / np.linalg.norm(both))
    plain = Query(examples=(violet,))
    order = names(gallery, plain)
    less = names(gallery, replace(plain, unlike=(red,)))
    assert order.index("a_red") < order.index("c_blue")  # as near, and added before it
    assert less.index("c_blue") < less.index("a_red")
    both_ways = [names(gallery, Query("green", unlike=(each,))) for each in (red, blue)]
    assert both_ways[0].index("c_blue") < both_ways[0].index("a_red")
    assert both_ways[1].index("a_red") < both_ways[1].index("c_blue")


@pytest.mark.parametrize("text", [None, "red", "red left of a green"])
def test_a_region_loses_only_what_it_is_nearer_to_a_bad_example(
    gallery: GalleryFile, text: str | None
) -> None:
    good = () if text == "red" else (shown(gallery, "c_blue"),)
    query = Query(text, good)
    bad = shown(gallery, "b_green"), shown(gallery, "a_red", 0)
    plain, encoded = encode(gallery, query), encode(gallery, replace(query, unlike=bad))
    assert (encoded.vectors == plain.vectors).all()
    regions = np.array([row[0] for row in gallery.connection.execute("select id from regions")], np.int64)
    vectors = np.stack([*plain.vectors, *(each.vector for each in bad)])
    scores = score_regions(gallery, regions, vectors)
    own, theirs = scores[: len(plain.vectors)].max(axis=0), scores[len(plain.vectors) :]
    weight, margin = (DISLIKE, MARGIN) if good else (DISLIKE_OF_TEXTS, MARGIN_OF_TEXTS)
    excess = np.max([(row - row.mean()) / row.std() for row in theirs], axis=0)
    excess -= (own - own.mean()) / own.std() + margin
    assert encoded.unlike is not None
    lowered = encoded.unlike.lower(gallery, regions, own)
    assert lowered == pytest.approx(own - weight * own.std() * np.maximum(excess, 0), abs=2e-3)
    assert 0 < (excess > 0).sum() < excess.size
    before = {each.photo_id: each.score for each in rank_encoded(gallery, plain, 9)}
    after = {each.photo_id: each.score for each in rank_encoded(gallery, encoded, 9)}
    assert before.keys() == after.keys()
    assert all(after[photo] <= before[photo] for photo in before)
    assert after != before


@given(
    vectors=st.lists(st.tuples(st.integers(0, 9), LENGTHS), min_size=1, max_size=4),
    bad=st.lists(
        st.tuples(st.integers(0, 9), st.floats(0.5, 2), st.floats(-0.5, 0.5)), min_size=1, max_size=3
    ),
    weight=st.sampled_from([0.25, 1.0, 3.0]),
    handicap=st.sampled_from([0.0, 0.05]),
    sealed=st.sampled_from([0, 30, 60]),
    limit=st.sampled_from([1, 5, 60]),
)
@settings(derandomize=True, max_examples=15, deadline=None)
def test_the_ranking_is_that_of_the_lowered_scores(
    tmp_path_factory: pytest.TempPathFactory,
    vectors: list[tuple[int, float]],
    bad: list[tuple[int, float, float]],
    weight: float,
    handicap: float,
    sealed: int,
    limit: int,
) -> None:
    photos = clustered(60, 4, D, limit)
    with open_vectors(tmp_path_factory.mktemp("vectors")) as gallery:
        put_all(gallery, photos[:sealed])
        seal_index(gallery, 64)
        put_all(gallery, photos[sealed:])
        query = np.stack([np.float32(length) * question(number, D) for number, length in vectors])
        disliked = np.stack([np.float32(length) * question(number, D) for number, length, _ in bad])
        unlike = Dislike(disliked, np.array([offset for *_, offset in bad]), weight)
        rows: Any = gallery.connection.execute(
            "select id, photo_id, ordinal from regions order by id"
        ).fetchall()
        regions, owners, ordinals = np.array(rows, np.int64).T
        own = score_regions(gallery, regions, query / np.linalg.norm(query, axis=1).max()).max(axis=0)
        scores = unlike.lower(gallery, regions, own) - handicap * (ordinals == 0)
        best = np.array([scores[owners == photo].max() for photo in np.unique(owners)])
        by_region = dict(zip(regions.tolist(), scores.tolist(), strict=True))
        for filters in (None, Filters(tuple(Path(f"/photos/{number}") for number in range(20)))):
            found = rank_photos(gallery, query, limit, filters, handicap=handicap, unlike=unlike)
            expected = np.sort(best if filters is None else best[:20])[::-1][:limit]
            # Vectors are rounded to 16 bits after they were scaled.
            wanted = pytest.approx(expected.tolist(), abs=1e-4)
            assert [each.score for each in found] == wanted
            assert [by_region[each.region_id] for each in found] == wanted


def test_whole_photos_are_objects_among_others(gallery: GalleryFile) -> None:
    scene, thing = shown(gallery, "a_red", 0), shown(gallery, "c_blue")
    assert encode(gallery, Query(examples=(scene, scene))).handicap == 0
    assert encode(gallery, Query(examples=(scene, thing))).handicap > 0


def test_impossible_examples(gallery: GalleryFile) -> None:
    red, blue = shown(gallery, "a_red"), shown(gallery, "c_blue")
    short = replace(blue, vector=np.ones(1, np.float32))
    for query in (Query(examples=(red, short)), Query("red", (red, short)), Query("red", unlike=(short,))):
        with pytest.raises(GalleryDamaged, match="as long as"):
            encode(gallery, query)
    opposite = replace(red, vector=-red.vector)
    with pytest.raises(EngineFailed, match="cancel each other out"):
        encode(gallery, Query(examples=(red, opposite), rule="mean"))
    assert rank_encoded(gallery, encode(gallery, Query(examples=(red, opposite))), 1)[0].score > 0.99
    with pytest.raises(QueryContradicts) as caught:
        encode(gallery, Query("green", (blue, red), unlike=(replace(red, path=Path("bad.jpg")),)))
    assert "bad.jpg" in str(caught.value)
    many = (Example(Path("a.jpg")),) * (MOST_EXAMPLES + 1)
    for good, bad in ((many, ()), ((), many)):
        with pytest.raises(OutOfRange, match="number of examples"):
            Query("red", good, unlike=bad)
    with pytest.raises(QueryEmpty):
        Query(unlike=(red,)).check()

"""Ranking photos by their best region, against brute force over the stored vectors."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matir_cli import errors
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.region_rows import store_origin
from matir_cli.records import Candidate, FloatArray, OriginKind, RegionOrigin
from matir_cli.search.index import seal_index
from matir_cli.search.rank import FIRST_PHOTOS, MANY_SHARE, rank_photos
from matir_cli.search.sampling import sample_scores
from tests.search.vector_gallery import (
    blocks,
    brute_force,
    clustered,
    forget,
    loose,
    open_vectors,
    put,
    put_all,
    question,
)
from tests.search.vectors import unit


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_vectors(tmp_path) as opened:
        yield opened


def recall(found: list[Candidate], truth: list[Candidate]) -> float:
    return len({c.photo_id for c in found} & {c.photo_id for c in truth}) / len(truth)


@pytest.mark.parametrize("block_regions", [40, 250, 10_000])
def test_the_best_photos_are_those_of_the_exact_vectors(gallery: GalleryFile, block_regions: int) -> None:
    photos = clustered(120, 7, dimensions=100)
    ids = put_all(gallery, photos)
    seal_index(gallery, block_regions)
    for seed in range(10):
        query = question(seed, dimensions=100)
        scores = np.array([(rows @ query).max() for rows in photos])
        found = rank_photos(gallery, query, 10)
        order = np.argsort(-scores)
        assert [c.score for c in found] == pytest.approx(scores[order[:10]], abs=0.003)
        by_photo = dict(zip(ids, scores, strict=True))
        assert [by_photo[c.photo_id] for c in found] == pytest.approx(scores[order[:10]], abs=0.003)
        for candidate in found:
            rows = photos[ids.index(candidate.photo_id)]
            ordinal = gallery.region(candidate.region_id).ordinal
            assert rows[ordinal] @ query == pytest.approx((rows @ query).max(), abs=0.003)


@pytest.mark.parametrize("sealed", [0, 100, 200])
@pytest.mark.parametrize("limit", [1, 20, 100, 200, 1000])
def test_the_ranking_is_that_of_the_stored_vectors(gallery: GalleryFile, limit: int, sealed: int) -> None:
    photos = clustered(200, 10)
    put_all(gallery, photos[:sealed])
    seal_index(gallery, 256)
    put_all(gallery, photos[sealed:])
    assert loose(gallery) == 200 - sealed
    for seed in range(5):
        query = question(seed)
        assert rank_photos(gallery, query, limit) == brute_force(gallery, query)[:limit]


def test_an_empty_gallery_has_no_photos(gallery: GalleryFile) -> None:
    assert rank_photos(gallery, question(0), 10) == []
    seal_index(gallery)
    assert blocks(gallery) == []


def test_equal_scores_come_in_order_of_id(gallery: GalleryFile) -> None:
    ids = put_all(gallery, [np.repeat(clustered(1, 5)[0], 2, axis=0)] * 40)
    for block_regions in (10_000, 64):  # all loose, then all in blocks
        seal_index(gallery, block_regions)
        found = rank_photos(gallery, question(0), 15)
        assert [c.photo_id for c in found] == ids[:15]
        assert len({c.score for c in found}) == 1
        ordinals = {gallery.region(c.region_id).ordinal for c in found}
        assert len(ordinals) == 1
        assert ordinals.pop() % 2 == 0  # each vector lies there twice: the first of the two


def test_a_vector_finds_itself(gallery: GalleryFile) -> None:
    photos = clustered(100, 5)
    ids = put_all(gallery, photos)
    seal_index(gallery, 64)
    for number in range(0, 100, 7):
        best = rank_photos(gallery, 3 * photos[number][2], 1)[0]  # the length of a query does not matter
        assert (best.photo_id, gallery.region(best.region_id).ordinal) == (ids[number], 2)
        assert best.score == pytest.approx(1.0, abs=1e-4)


def test_many_regions_of_one_photo_do_not_crowd_out_the_others(gallery: GalleryFile) -> None:
    query = question(3, dimensions=256)
    rng = np.random.default_rng(0)
    crowd = unit(query + 0.03 * rng.standard_normal((6000, 256)))
    photos = clustered(400, 10, dimensions=256)
    ids = put_all(gallery, [*photos[:200], crowd, *photos[200:]])
    seal_index(gallery, 2048)
    found = rank_photos(gallery, query, 100)
    assert found[0].photo_id == ids[200]
    assert found == brute_force(gallery, query)[:100]


def test_a_burst_of_alike_photos_fills_the_answer(gallery: GalleryFile) -> None:
    rng = np.random.default_rng(0)
    shot = clustered(1, 10, dimensions=256)[0]
    burst = [unit(shot + 1e-4 * rng.standard_normal(shot.shape)) for _ in range(300)]
    put_all(gallery, [*clustered(200, 10, dimensions=256, seed=5), *burst])
    seal_index(gallery, 1024)
    query = unit(shot[4] + 0.05 * rng.standard_normal(256))
    assert rank_photos(gallery, query, 150) == brute_force(gallery, query)[:150]


@pytest.mark.parametrize("limit", [10, 100, 1000])
def test_hardly_any_photo_is_missed_where_nothing_stands_out(gallery: GalleryFile, limit: int) -> None:
    rng = np.random.default_rng(0)
    put_all(gallery, list(unit(rng.standard_normal((1200, 4, 128)))))
    seal_index(gallery, 2048)
    recalls = []
    for _ in range(10):
        query = unit(rng.standard_normal(128))
        recalls.append(recall(rank_photos(gallery, query, limit), brute_force(gallery, query)[:limit]))
    assert np.mean(recalls) >= 0.995


def test_what_is_far_away_is_not_read(gallery: GalleryFile) -> None:
    rng = np.random.default_rng(0)
    query = unit(rng.standard_normal(128) - 0.5)
    near = put_all(gallery, list(unit(query + 0.05 * rng.standard_normal((30, 6, 128)))))
    put_all(gallery, list(unit(5.0 + rng.standard_normal((500, 6, 128)))))
    seal_index(gallery)
    expected = brute_force(gallery, query)[:15]
    # A vector that cannot be scored shows that it was not tried.
    gallery.connection.execute("update vectors set vector = x'00' where photo_id > ?", (near[-1],))
    assert rank_photos(gallery, query, 15) == expected


def test_a_photo_that_is_gone_is_not_found(gallery: GalleryFile) -> None:
    photos = clustered(50, 4)
    ids = put_all(gallery, photos)
    seal_index(gallery, 32)
    query = photos[20][1]
    assert rank_photos(gallery, query, 1)[0].photo_id == ids[20]
    forget(gallery, "20")
    found = rank_photos(gallery, query, 50)
    assert len(found) == 49
    assert found == brute_force(gallery, query)


def test_ids_that_floats_cannot_hold_are_sampled(gallery: GalleryFile) -> None:
    put_all(gallery, clustered(20, 4))
    expected = sample_scores(gallery, question(0)[np.newaxis])
    gallery.connection.pragma("foreign_keys", False)
    for table, column in (("regions", "id"), ("vectors", "region_id")):
        gallery.connection.execute(f"update {table} set {column} = {column} + {(1 << 62) + 480}")
    scores = sample_scores(gallery, question(0)[np.newaxis])
    assert 1 <= scores.shape[1] <= expected.shape[1]
    assert np.isin(scores, expected).all()


def test_ids_that_are_used_again_belong_to_the_new_photo(gallery: GalleryFile) -> None:
    photos = clustered(10, 4)
    ids = put_all(gallery, photos)
    seal_index(gallery, 32)
    forget(gallery, "9")
    gallery.connection.execute("update sqlite_sequence set seq = 0")  # as no gallery of ours would have it
    with gallery.atomic():
        again = put(gallery, "another", clustered(1, 4, seed=7)[0])
    assert again == ids[9]  # the old codes now point at new rows
    for seed in range(5):
        assert rank_photos(gallery, question(seed), 3) == brute_force(gallery, question(seed))[:3]


@pytest.mark.parametrize(
    "damage",
    [
        "update codes set codes = zeroblob(8)",
        "update codes set centre = zeroblob(8)",
        "update codes set runs = zeroblob(0)",
        "update codes set runs = zeroblob(23)",
        "update codes set runs = zeroblob(24)",
        "update codes set codes = 'text'",
        "update codes set runs = 'text'",
        "update codes set centre = 'text'",
        "update vectors set vector = zeroblob(3)",
        "update vectors set vector = zeroblob(64)",
        "update vectors set vector = 'text'",
        "update vectors set vector = vec_to_json(vec_int8(vector))",
    ],
)
def test_a_damaged_index_is_an_error_of_the_gallery(gallery: GalleryFile, damage: str) -> None:
    put_all(gallery, clustered(20, 4))
    seal_index(gallery, 64)
    gallery.connection.execute(damage)
    with pytest.raises(errors.GalleryDamaged), GalleryFile.open(gallery.path) as opened:
        rank_photos(opened, question(0), 5)


def test_a_persons_region_is_the_best_of_equals(gallery: GalleryFile) -> None:
    vector = question(0)
    put_all(gallery, [np.repeat(vector[np.newaxis], 5, axis=0)] * 2)
    first = rank_photos(gallery, vector, 2)
    ids = [region.id for region in gallery.regions(2)]
    assert [item.region_id for item in first] == [gallery.regions(1)[0].id, ids[0]]
    store_origin(gallery.connection, ids[3], RegionOrigin(OriginKind.HUMAN, "x"))
    store_origin(gallery.connection, ids[2], RegionOrigin(OriginKind.DATA_SET, "x"))
    for block_regions in (None, 4):
        if block_regions is not None:
            seal_index(gallery, block_regions)
        found = rank_photos(gallery, vector, 2)
        assert [item.region_id for item in found] == [first[0].region_id, ids[3]]


def alike(photos: int, kind: str) -> list[FloatArray]:
    """Photos of 10 regions that codes tell apart badly or not at all."""
    rng = np.random.default_rng(1)
    shape = (photos, 10, 64)
    match kind:
        case "the same":
            return list(np.broadcast_to(question(0), shape).astype(np.float32))
        case "nearly the same":
            return list(unit(question(0) + 1e-4 * rng.standard_normal(shape)))
        case "two opposite ones":
            return list(unit(question(0) * rng.choice([-1.0, 1.0], (photos, 10, 1))))
        case _:
            return list(unit(rng.standard_normal(shape)))


@pytest.mark.parametrize("kind", ["the same", "nearly the same", "two opposite ones", "nothing in common"])
@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_no_query_reads_many_more_vectors_than_there_are(gallery: GalleryFile, kind: str, limit: int) -> None:
    put_all(gallery, alike(600, kind))
    seal_index(gallery, 2048)
    read: list[int] = []

    def count(_: object, statement: str, bindings: Any) -> bool:
        if re.search(r"\bvector\b", statement):
            read.extend(len(json.loads(each)) for each in bindings if isinstance(each, str))
        return True

    for query in (question(0), question(1), -question(0)):
        gallery.connection.exec_trace, read[:] = count, []
        found = rank_photos(gallery, query, limit)
        gallery.connection.exec_trace = None
        assert found == brute_force(gallery, query)[:limit]
        # Some regions are read to learn that most may be among the best, each of them at most twice.
        assert 0 < sum(read) <= 6000 * (1 + 2 / MANY_SHARE) + 6 * FIRST_PHOTOS * limit

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from matir_cli import errors, masks
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Candidate, FileRecord, FloatArray, PhotoRecord, Region
from matir_cli.search.index import seal_index, store_vectors
from matir_cli.search.quantisation import cosines
from matir_cli.search.rank import rank_photos

RLE = masks.whole(4, 4)
REGION = Region(RLE, masks.box(RLE), 16, 0.9, 0.95)


@pytest.fixture
def gallery(tmp_path: Path):  # type: ignore[no-untyped-def]
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        opened.connection.pragma("synchronous", "off")
        yield opened


def file(name: str) -> FileRecord:
    return FileRecord(Path(f"/photos/{name}"), 1, 1)


def put(gallery: GalleryFile, name: str, rows: FloatArray) -> int:
    """A photo whose regions have these vectors; the caller holds the transaction."""
    record = PhotoRecord(name.encode().ljust(32), 4, 4, 4, 4, 1)
    photo_id, regions = gallery.add_photo(file(name), record, [REGION] * len(rows), None)
    store_vectors(gallery, photo_id, regions, rows)
    return photo_id


def put_all(gallery: GalleryFile, photos: Sequence[FloatArray]) -> list[int]:
    with gallery.atomic():
        start = gallery.count_photos()
        return [put(gallery, str(start + number), rows) for number, rows in enumerate(photos)]


def forget(gallery: GalleryFile, name: str) -> None:
    gallery.remember_skipped(file(name), "gone")


def unit(rows: NDArray[np.floating]) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def clustered(photos: int, regions: int, dimensions: int = 64, seed: int = 0) -> list[FloatArray]:
    """Photos of (regions, d) unit vectors around 20 concepts and a direction common to all."""
    rng = np.random.default_rng(seed)
    common = 8 * unit(np.random.default_rng(0).standard_normal(dimensions))
    concepts = np.random.default_rng(1).standard_normal((20, dimensions))
    mixed = concepts[rng.integers(0, 20, (photos, regions))] + rng.standard_normal(
        (photos, regions, dimensions)
    )
    return list(unit(common + mixed))


def question(seed: int, dimensions: int = 64) -> FloatArray:
    rng = np.random.default_rng(seed + 1000)
    concepts = np.random.default_rng(1).standard_normal((20, dimensions))
    return unit(concepts[rng.integers(20)] + rng.standard_normal(dimensions))


def brute_force(gallery: GalleryFile, query: FloatArray) -> list[Candidate]:
    """All photos, by the stored vectors one by one."""
    rows = gallery.connection.execute(
        "select regions.photo_id, region_id, vector from vectors join regions on regions.id = region_id"
    ).fetchall()
    if not rows:
        return []
    stored = np.frombuffer(b"".join(row[2] for row in rows), np.int8).reshape(len(rows), -1)
    scores = cosines(stored, query)
    best: dict[int, Candidate] = {}
    for (photo, region, _), score in zip(rows, scores.tolist(), strict=True):
        found = Candidate(photo, region, score)
        best[photo] = min(best.get(photo, found), found, key=lambda c: (-c.score, c.region_id))
    return sorted(best.values(), key=lambda c: (-c.score, c.photo_id))


def blocks(gallery: GalleryFile) -> list[int]:
    """Regions a block."""
    rows = gallery.connection.execute("select runs from blocks order by id")
    return [int(np.frombuffer(row[0], "<i8").reshape(-1, 3)[:, 2].sum()) for row in rows]


def loose(gallery: GalleryFile) -> int:
    return int(gallery.connection.execute("select count(*) from loose").get)


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


def test_few_loose_photos_stay_loose(gallery: GalleryFile) -> None:
    put_all(gallery, clustered(10, 4))
    seal_index(gallery, 8 * 40 + 1)
    assert (loose(gallery), blocks(gallery)) == (10, [])
    seal_index(gallery, 8 * 40)
    assert (loose(gallery), blocks(gallery)) == (0, [40])


def test_blocks_hold_whole_photos_and_are_at_least_half_full(gallery: GalleryFile) -> None:
    for start in range(0, 60, 10):
        put_all(gallery, clustered(10, 7, seed=start))
        seal_index(gallery, 64)
    assert loose(gallery) == 0
    *full, last = blocks(gallery)
    assert sum(full) + last == 420
    assert all(32 <= count <= 64 for count in full)


def test_a_photo_larger_than_a_block_has_its_own(gallery: GalleryFile) -> None:
    put_all(gallery, [*clustered(2, 5), *clustered(1, 100), *clustered(2, 5)])
    seal_index(gallery, 32)
    assert blocks(gallery) == [10, 100, 10]
    assert rank_photos(gallery, question(1), 5) == brute_force(gallery, question(1))


def test_blocks_of_photos_that_are_gone_are_made_anew(gallery: GalleryFile) -> None:
    put_all(gallery, clustered(30, 4))
    seal_index(gallery, 40)
    assert blocks(gallery) == [40, 40, 40]
    for number in range(6):
        forget(gallery, str(number))
    with gallery.atomic():
        put(gallery, "new", clustered(1, 5, seed=3)[0])
    seal_index(gallery, 40)
    assert sorted(blocks(gallery)) == [21, 40, 40]
    assert rank_photos(gallery, question(2), 50) == brute_force(gallery, question(2))


def test_two_writers_seal_one_after_the_other(gallery: GalleryFile) -> None:
    photos = clustered(60, 5)
    with GalleryFile.open(gallery.path) as other:
        for start in range(0, 60, 10):
            put_all(gallery if start % 20 else other, photos[start : start + 10])
            seal_index(gallery, 64)
            seal_index(other, 64)
        assert rank_photos(other, question(4), 60) == brute_force(gallery, question(4))
    assert loose(gallery) == 0
    assert sum(blocks(gallery)) == 300


def test_a_photo_is_stored_with_all_its_vectors_or_not_at_all(gallery: GalleryFile) -> None:
    bad = clustered(1, 4)[0]
    bad[2, 5] = np.nan
    with pytest.raises(ValueError, match="not finite"), gallery.atomic():
        put(gallery, "bad", bad)
    assert gallery.count_photos() == 0
    with gallery.atomic():
        record = PhotoRecord(b"x" * 32, 4, 4, 4, 4, 1)
        photo_id, regions = gallery.add_photo(file("x"), record, [REGION] * 2, None)
        with pytest.raises(ValueError, match="shorter"):
            store_vectors(gallery, photo_id, regions, clustered(1, 1)[0])


@pytest.mark.parametrize(
    "damage",
    [
        "update blocks set codes = zeroblob(8)",
        "update blocks set centre = zeroblob(8)",
        "update blocks set runs = zeroblob(0)",
        "update blocks set runs = zeroblob(23)",
        "update blocks set runs = zeroblob(24)",
        "update blocks set codes = 'text'",
        "update blocks set runs = 'text'",
        "update blocks set centre = 'text'",
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


step = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 7), st.integers(1, 6)),
    st.tuples(st.just("forget"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("seal"), st.integers(1, 24), st.just(0)),
)


@given(st.lists(step, max_size=25), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_any_sequence_of_writes_leaves_the_right_answer(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], seed: int
) -> None:
    path = tmp_path_factory.mktemp("steps") / "gallery.db"
    with GalleryFile.open(path, create=True) as gallery:
        gallery.connection.pragma("synchronous", "off")
        for number, (name, value, regions) in enumerate(steps):
            match name:
                case "put":
                    forget(gallery, str(value))
                    with gallery.atomic():
                        put(gallery, str(value), clustered(1, regions, 16, seed=number % 3)[0])
                case "forget":
                    forget(gallery, str(value))
                case "seal":
                    seal_index(gallery, value)
            query = question(seed, dimensions=16)
            assert rank_photos(gallery, query, 100) == brute_force(gallery, query)


def wavy_mask(rng: np.random.Generator) -> np.ndarray:
    """(683, 1024) bool: a blob with a wavy edge; small ones are more frequent than large ones."""
    y, x = np.mgrid[:683, :1024]
    dy, dx = y - rng.uniform(0, 683), x - rng.uniform(0, 1024)
    angle = np.arctan2(dy, dx)
    waves = sum(0.1 * np.sin(k * angle + rng.uniform(0, 6)) for k in (2, 5, 11))
    return np.asarray(np.hypot(dx, dy * rng.uniform(0.5, 2)) < rng.lognormal(4, 0.7) * (1 + waves))


def test_the_index_costs_at_most_90_kb_a_photo(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blobs = [masks.encode(mask) for mask in (wavy_mask(rng) for _ in range(120)) if mask.any()]
    assert 400 < np.mean([len(rle.counts) for rle in blobs]) < 600
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        empty = int(gallery.connection.pragma("page_count"))
        for number in range(40):
            rles = [masks.whole(683, 1024), *(blobs[i] for i in rng.integers(0, len(blobs), 50))]
            regions = [Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.95) for rle in rles]
            record = PhotoRecord(rng.bytes(32), 4000, 2668, 1024, 683, 1)
            file = FileRecord(Path(f"/home/me/Photos/2024/holidays/IMG_{number:04}.jpg"), 5_000_000, 0)
            with gallery.atomic():
                photo_id, ids = gallery.add_photo(file, record, regions, None)
                store_vectors(gallery, photo_id, ids, rng.standard_normal((51, 768), dtype=np.float32))
        seal_index(gallery, 1024)
        pages = int(gallery.connection.pragma("page_count")) - empty
    assert pages * schema.PAGE_SIZE / 40 <= 90_000

"""Writing vectors and keeping the index of sign codes: blocks, loose photos, size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli import masks
from matir_cli.errors import IndexDamaged
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import FileRecord, PhotoRecord, Region
from matir_cli.search.index import seal_index, store_vectors
from matir_cli.search.rank import rank_photos
from tests.search.vector_gallery import (
    REGION,
    blocks,
    brute_force,
    clustered,
    file,
    forget,
    loose,
    open_vectors,
    put,
    put_all,
    question,
)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_vectors(tmp_path) as opened:
        yield opened


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


@pytest.mark.parametrize(("first", "expected"), [(97, [200]), (99, [200]), (100, [100, 100])])
def test_a_block_is_small_below_half_of_its_regions(
    gallery: GalleryFile, first: int, expected: list[int]
) -> None:
    """Also with an odd number of dimensions, of which the last byte of a code holds one."""
    put_all(gallery, clustered(1, first, 33))
    seal_index(gallery, 200)
    with gallery.atomic():
        put(gallery, "second", clustered(1, 200 - first, 33, seed=1)[0])
    seal_index(gallery, 200)
    assert blocks(gallery) == expected


def test_full_blocks_are_looked_at_only_after_photos_have_gone(gallery: GalleryFile) -> None:
    put_all(gallery, clustered(30, 4))
    seal_index(gallery, 40)
    unreadable = np.zeros((10, 3), "<i8").tobytes()  # runs of no region
    gallery.connection.execute("update codes set runs = ? where id = 2", (unreadable,))
    put_all(gallery, clustered(12, 4, seed=1))
    seal_index(gallery, 40)
    assert loose(gallery) == 0
    assert sum(blocks(gallery)) == 4 * (10 + 10 + 12)
    put_all(gallery, clustered(3, 4, seed=2))
    seal_index(gallery, 40)  # the last block, of 8 regions, is small: it is made anew
    assert blocks(gallery)[-1] == 20
    forget(gallery, "0")
    with gallery.atomic():
        for number, rows in enumerate(clustered(12, 4, seed=3)):
            put(gallery, f"new {number}", rows)
    with pytest.raises(IndexDamaged):
        seal_index(gallery, 40)


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


def test_the_index_costs_at_most_110_kb_a_photo(tmp_path: Path) -> None:
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
    assert pages * schema.PAGE_SIZE / 40 <= 110_000

"""Groups of near-copies: what belongs together, whatever the order."""

import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli import errors
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Candidate
from matir_cli.search import near_copies
from matir_cli.search.near_copies import (
    Kinship,
    PhotoComparison,
    Traits,
    estimate_seconds,
    group_near_copies,
    leave_out_near_copies,
    link_near_copies,
    read_traits,
)
from matir_cli.search.quantisation import quantise
from tests.search.vector_gallery import open_vectors
from tests.search.vectors import unit
from tests.support.similar_photos import Shot, put_shots

NOON = "2024-05-06T12:00:00"


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_vectors(tmp_path) as opened:
        yield opened


def grouped(gallery: GalleryFile, shots: list[Shot], *, bursts: bool = True) -> dict[str, dict[str, Kinship]]:
    """By name of each photo that stands for itself: those that it stands for."""
    ids = put_shots(gallery, shots)
    names = {photo_id: shot.name for photo_id, shot in zip(ids, shots, strict=True)}
    photos = read_traits(gallery)
    groups = group_near_copies(gallery, photos, PhotoComparison(gallery), bursts=bursts)
    return {
        names[photos[index].id]: {names[each.photo.id]: each.kinship for each in relatives}
        for index, relatives in groups.items()
    }


def test_one_picture_saved_twice_is_a_copy(gallery: GalleryFile) -> None:
    found = grouped(gallery, [Shot("a", 1, 1), Shot("b", 2, 2), Shot("c", 1, 1), Shot("d", 3, 1)])
    assert found == {"a": {"c": Kinship.COPY}, "b": {}, "d": {}}


def test_other_vectors_or_another_shape_are_no_copy(gallery: GalleryFile) -> None:
    assert grouped(gallery, [Shot("a", 1, 1), Shot("b", 1, 2)]) == {"a": {}, "b": {}}
    gallery.connection.execute("update photos set height = 3 * height where id = 2")
    gallery.connection.execute("update vectors set vector = (select vector from vectors where photo_id = 1)")
    groups = group_near_copies(gallery, read_traits(gallery), PhotoComparison(gallery))
    assert [len(relatives) for relatives in groups.values()] == [0, 0]
    gallery.connection.execute("update photos set height = height / 3 where id = 2")
    groups = group_near_copies(gallery, read_traits(gallery), PhotoComparison(gallery))
    assert [len(relatives) for relatives in groups.values()] == [1]


def test_without_pixels_nothing_is_a_copy(gallery: GalleryFile) -> None:
    assert grouped(gallery, [Shot("a", 1, 1), Shot("b", 1, 1, preview=False)]) == {"a": {}, "b": {}}


@pytest.mark.parametrize(
    ("first", "second", "cameras", "is_burst"),
    [
        (NOON, "2024-05-06T12:00:02", "XX", True),
        (NOON, "2024-05-06T12:00:03.5", "XX", False),
        (NOON, "2024-05-06T12:00:02", "XY", False),
        (NOON, None, "XX", False),
        ("2024-05-06T00:00:00", "2024-05-06T00:00:00", "XX", False),  # a date without a time
        ("2024-05-06", "2024-05-06", "XX", False),
    ],
)
def test_a_burst_is_one_camera_within_seconds(
    gallery: GalleryFile, first: str, second: str | None, cameras: str, is_burst: bool
) -> None:
    shots = [Shot("a", 1, 1, first, cameras[0]), Shot("b", 2, 1, second, cameras[1])]
    wanted = {"a": {"b": Kinship.BURST}} if is_burst else {"a": {}, "b": {}}
    assert grouped(gallery, shots) == wanted
    groups = group_near_copies(gallery, read_traits(gallery), PhotoComparison(gallery), bursts=False)
    assert len(groups) == 2


def test_a_burst_of_photos_that_differ_is_none(gallery: GalleryFile) -> None:
    shots = [Shot("a", 1, 1, NOON, "X"), Shot("b", 2, 2, NOON, "X")]
    assert grouped(gallery, shots) == {"a": {}, "b": {}}


def test_one_camera_at_two_times_makes_no_copy(gallery: GalleryFile) -> None:
    later = "2024-05-06T12:10:00"
    assert len(grouped(gallery, [Shot("a", 1, 1, NOON, "X"), Shot("b", 1, 1, later, "X")])) == 2
    gallery.connection.execute("update photos set camera = null where id = 1")
    groups = group_near_copies(gallery, read_traits(gallery), PhotoComparison(gallery))
    assert [each.kinship for each in groups[0]] == [Kinship.COPY]


def test_likeness_is_not_handed_on_to_what_stands_for_others(gallery: GalleryFile) -> None:
    chain = [Shot(f"n{second}", second, 1, f"2024-05-06T12:00:{second:02}", "X") for second in range(0, 9, 2)]
    found = grouped(gallery, chain)
    assert {name: set(members) for name, members in found.items()} == {
        "n0": {"n2"},
        "n4": {"n6"},
        "n8": set(),
    }
    linked = link_near_copies(gallery, read_traits(gallery), PhotoComparison(gallery))
    assert [len(group) for group in linked] == [5]


SHOTS = st.lists(
    st.builds(
        Shot,
        name=st.just(""),
        picture=st.integers(0, 2),
        direction=st.integers(0, 1),
        taken_at=st.sampled_from([None, NOON, "2024-05-06T12:00:02", "2024-05-06T12:00:04"]),
        camera=st.sampled_from([None, "X"]),
        scale=st.integers(1, 2),
    ),
    min_size=1,
    max_size=9,
)


@given(SHOTS, st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_groups_are_a_partition_that_no_order_changes(
    tmp_path_factory: pytest.TempPathFactory, shots: list[Shot], shuffle: random.Random
) -> None:
    named = [Shot(str(n), s.picture, s.direction, s.taken_at, s.camera, s.scale) for n, s in enumerate(shots)]
    mixed = [*named]
    shuffle.shuffle(mixed)
    seen = []
    for order in (named, mixed):
        with open_vectors(tmp_path_factory.mktemp("gallery")) as gallery:
            put_shots(gallery, order)
            photos = sorted(read_traits(gallery), key=lambda photo: photo.size_order)
            comparison = PhotoComparison(gallery)
            led = group_near_copies(gallery, photos, comparison)
            groups = [
                [photos[index].sha256, *sorted(each.photo.sha256 for each in relatives)]
                for index, relatives in led.items()
            ]
            linked = [
                [p.sha256 for p in group]
                for group in link_near_copies(gallery, read_traits(gallery), comparison)
            ]
            ranked = [Candidate(photo.id, photo.id, 0.5) for photo in photos]
            kept = leave_out_near_copies(gallery, ranked, comparison)
            assert len(kept) + sum(each.near_copies or 0 for each in kept) == len(ranked)
            assert [each.photo_id for each in kept] == [photos[index].id for index in led]
        for partition in (groups, linked):
            assert sorted(chain.from_iterable(partition)) == sorted(photo.sha256 for photo in photos)
        # No group that one photo stands for crosses two of the linked ones.
        place = {digest: number for number, group in enumerate(linked) for digest in group}
        assert all(len({place[digest] for digest in group}) == 1 for group in groups)
        seen.append((groups, linked))
    assert seen[0] == seen[1]


def test_candidate_pairs_are_those_of_all_cosines() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal((300, 200))
    rows = base[rng.integers(0, 300, 1400)] + 0.25 * rng.standard_normal((1400, 200))
    stored = quantise(unit(rows))
    exact = unit(stored.astype(np.float64)).astype(np.float64)
    table = exact @ exact.T
    found = {
        (row, int(other))
        for row, near in near_copies._near_rows(stored, 0.92, lambda _: None)
        for other in near
    }
    wanted = {(int(a), int(b)) for a, b in np.argwhere(table >= 0.92) if a < b}
    assert len(wanted) > 500
    assert found == wanted


def test_pairs_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(near_copies, "COLUMNS_AT_ONCE", 10)
    rng = np.random.default_rng(5)
    stored = quantise(unit(np.tile(rng.standard_normal((20, 64)), (3, 1))))
    pairs = [(row, near.tolist()) for row, near in near_copies._near_rows(stored, 0.92, lambda _: None)]
    assert pairs == [(row, [*range(row + 20, 60, 20)]) for row in range(60)]


def test_the_estimate_grows_with_the_square() -> None:
    few, many = estimate_seconds(10_000, 768), estimate_seconds(100_000, 768)
    assert 0 < few < many


@pytest.mark.parametrize(
    "change",
    [
        "update photos set width = 0 where id = 2",
        "update photos set width = 'wide' where id = 2",
        "update photos set taken_at = 'at noon' where id = 2",
        "update photos set camera = x'00' where id = 2",
        "update vectors set vector = x'01' where photo_id = 2",
        "update vectors set vector = zeroblob(64) where photo_id = 2",
        "update files set bytes = 'many' where photo_id = 2",
    ],
)
def test_impossible_values_are_refused(gallery: GalleryFile, change: str) -> None:
    put_shots(gallery, [Shot("a", 1, 1), Shot("b", 1, 1), Shot("c", 1, 1)])
    gallery.connection.execute(change)
    with pytest.raises(errors.GalleryDamaged):
        group_near_copies(gallery, read_traits(gallery), PhotoComparison(gallery))


def test_a_damaged_preview_and_photos_that_are_gone_are_no_copies(gallery: GalleryFile) -> None:
    first, second, third = put_shots(gallery, [Shot("a", 1, 1), Shot("b", 1, 1), Shot("c", 1, 1)])
    gallery.connection.execute("update previews set jpeg = x'ffd8ff' where photo_id = ?", (second,))
    gallery.connection.execute("delete from photos where id = ?", (third,))
    ranked = [Candidate(photo_id, photo_id, 0.5) for photo_id in (first, second, third)]
    kept = leave_out_near_copies(gallery, ranked, PhotoComparison(gallery))
    assert [(each.photo_id, each.near_copies) for each in kept] == [(first, 0), (second, 0), (third, 0)]


def test_midnight_and_dates_alone_are_no_time() -> None:
    def time(taken_at: str | None) -> float | None:
        return Traits(1, b"", 1, 1, 1, taken_at, None).time

    assert time(None) is None
    assert time("2024-05-06") is None
    assert time("2024-05-06T00:00:00") is None
    one, other = time("2024-05-06T12:00:01"), time("2024-05-07T12:00:00")
    assert one is not None
    assert other is not None
    assert other - one == 24 * 3600 - 1

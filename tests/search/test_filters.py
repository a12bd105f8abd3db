"""A search held to a part of a gallery is the search of a gallery that has nothing else."""

import math
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli import masks
from matir_cli.errors import OutOfRange
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.records import Box, Candidate, FileMetadata, FileRecord, FloatArray, PhotoRecord, Region
from matir_cli.search.filters import Filters, Orientation
from matir_cli.search.index import seal_index, store_vectors
from matir_cli.search.quantisation import cosines, refine
from matir_cli.search.rank import rank_photos
from tests.search.vectors import unit

SIDE = 10
DATES = (None, "2022-12-31T23:59:59", "2023-01-01T00:00:00", "2023-05-17T12:30:00", "2024-02-29T00:00:01")
CAMERAS = (None, "Canon EOS R6", "Google Pixel 8", "ÉCLAIR 16")
SIZES = ((40, 40), (40, 30), (30, 40))
PLACES = ((None, None), (0.0, 179.99), (0.0, -179.99), (89.99, 10.0), (52.5, 13.4), (52.6, 13.4))
KEYWORDS = ("Dog", "cat", "Places|France|Paris", "Épée", "dog house")
FOLDERS = ("/p/a", "/p/a/deep/er", "/p/ab", "/q")
PHOTOS = 240


def region(share: float) -> Region:
    area = round(share * SIDE * SIDE)
    return Region(masks.whole(SIDE, SIDE), Box(0, 0, SIDE, SIDE), area, 0.9, 0.95)


def put(gallery: GalleryFile, number: int, rng: np.random.Generator) -> None:
    """A photo with a date, a camera, a folder and regions of several sizes, in the caller's transaction."""
    width, height = SIZES[rng.integers(3)]
    date, camera, position = DATES[rng.integers(5)], CAMERAS[rng.integers(4)], PLACES[rng.integers(6)]
    record = PhotoRecord(rng.bytes(32), width, height, SIDE, SIDE, 1, date, camera, *position)
    file = FileRecord(Path(FOLDERS[rng.integers(4)], f"{number}.jpg"), 1, 1)
    regions = [region(1.0), *(region(share) for share in rng.choice([0.01, 0.1, 0.3, 0.9], 5))]
    photo_id, ids = gallery.add_photo(file, record, regions, None)
    if number % 3:
        describe(gallery, file.path, rng)
    # Around a direction common to all, as CLIP's are.
    store_vectors(gallery, photo_id, ids, unit(2 + rng.standard_normal((6, 48), dtype=np.float32)))


def describe(gallery: GalleryFile, path: Path, rng: np.random.Generator) -> None:
    """Give a file a rating, keywords and perhaps a position in its sidecar."""
    rating = (None, -1, 0, 1, 3, 5)[rng.integers(6)]
    keywords = tuple(rng.choice(KEYWORDS, rng.integers(4), replace=False).tolist())
    position = PLACES[rng.integers(6)] if rng.random() < 0.2 else (None, None)
    store_metadata(gallery.connection, path, FileMetadata(rating, keywords, *position), None)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalleryFile]:
    """Two thirds of its photos in blocks; some gone, and their ids given to others since."""
    rng = np.random.default_rng(0)
    with GalleryFile.open(tmp_path_factory.mktemp("filters") / "gallery.db", create=True) as opened:
        opened.connection.pragma("synchronous", "off")
        with opened.atomic():
            for number in range(PHOTOS * 2 // 3):
                put(opened, number, rng)
        seal_index(opened, 256)
        with opened.atomic():
            opened.connection.execute(
                "delete from photos where id > ? or id % 11 = 0", (PHOTOS * 2 // 3 - 9,)
            )
            for number in range(PHOTOS * 2 // 3, PHOTOS):
                put(opened, number, rng)
            for photo_id in range(1, 60):
                if opened.connection.execute("select 1 from photos where id = ?", (photo_id,)).fetchone():
                    copy = FileRecord(
                        Path("/q/copy.jpg" if photo_id == 1 else f"/q/{photo_id}_copy.jpg"), 1, 1
                    )
                    opened.link(copy, photo_id)
                    describe(opened, copy.path, rng)
        yield opened


def metres(here: tuple[float, float], there: tuple[float, float]) -> float:
    """The great circle by the spherical law of cosines."""
    (a, b), (c, d) = ((math.radians(each) for each in position) for position in (here, there))
    return 6_371_008.8 * math.acos(
        min(1.0, math.sin(a) * math.sin(c) + math.cos(a) * math.cos(c) * math.cos(d - b))
    )


def counts(photo: StoredPhoto, ordinal: int, share: float, filters: Filters) -> bool:
    """True if the region passes the filters, decided in plain Python."""
    taken, camera = photo.record.taken_at, photo.record.camera
    if filters.places and not any(
        place == path or place in path.parents for place in filters.places for path in photo.paths
    ):
        return False
    if filters.since is not None and (taken is None or taken[: len(filters.since)] < filters.since):
        return False
    if filters.until is not None and (taken is None or taken[: len(filters.until)] > filters.until):
        return False
    if filters.camera is not None and (camera is None or filters.camera.lower() not in camera.lower()):
        return False
    y, x = photo.position or (None, None)
    metadata = photo.metadata
    if filters.rating is not None and not filters.rating[0] <= (metadata.rating or 0) <= filters.rating[1]:
        return False
    names = {part.lower() for keyword in metadata.keywords for part in (keyword, *keyword.split("|"))}
    if not all(any(fnmatchcase(name, each.lower()) for name in names) for each in filters.keywords):
        return False
    if any(fnmatchcase(name, each.lower()) for name in names for each in filters.no_keywords):
        return False
    if filters.has_gps is not None and filters.has_gps != (y is not None):
        return False
    if filters.near is not None and (y is None or x is None or metres(filters.near, (y, x)) > filters.within):
        return False
    turn = photo.record.height - photo.record.width
    shape = "portrait" if turn > 0 else "landscape" if turn < 0 else "square"
    if filters.orientation not in (None, shape):
        return False
    sized = filters.min_size is not None or filters.max_size is not None
    if ordinal == 0 and (sized or not filters.whole):
        return False
    return (filters.min_size or 0) <= share <= (1 if filters.max_size is None else filters.max_size)


def brute_force(gallery: GalleryFile, query: FloatArray, filters: Filters) -> list[Candidate]:
    rows = gallery.connection.execute(
        "select regions.photo_id, region_id, ordinal, area, vector, residuals from vectors "
        "join regions on regions.id = region_id join residuals on residuals.photo_id = regions.photo_id"
    )
    best: dict[int, Candidate] = {}
    for photo_id, region_id, ordinal, area, vector, residuals in rows:
        photo = int(photo_id)
        if counts(gallery.photo(photo), int(ordinal), int(area) / SIDE**2, filters):
            stored = np.frombuffer(bytes(vector), np.int8)[np.newaxis]
            residual = np.frombuffer(bytes(residuals), np.uint8).reshape(-1, stored.shape[1] // 2)
            score = float(cosines(refine(stored, residual[[int(ordinal)]]), query)[0])
            found = Candidate(photo, int(region_id), score)
            best[photo] = min(best.get(photo, found), found, key=lambda c: (-c.score, c.region_id))
    return sorted(best.values(), key=lambda c: (-c.score, c.photo_id))


dates = st.none() | st.sampled_from(
    ["2022", "2023", "2023-05", "2023-05-17", "2023-05-17T12", "2024", "2030"]
)
wanted = st.sampled_from(["DOG", "cat", "paris", "places|france|paris", "ÉPÉE", "dog*", "*a*", "nobody", "*"])
sizes = st.none() | st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.sampled_from(["/p", "/p/a", "/q", "/p/a/0.jpg", "/q/copy.jpg", "/"]), max_size=2),
    since=dates,
    until=dates,
    camera=st.none() | st.sampled_from(["canon", "PIXEL", "éclair", "nobody", ""]),
    least=sizes,
    most=sizes,
    whole=st.booleans(),
    near=st.none() | st.sampled_from([(0.0, 180.0), (90.0, 0.0), (52.5, 13.41), (-52.5, 13.4)]),
    within=st.sampled_from([1000.0, 5000.0, 20e3, 8e6]),
    has_gps=st.none() | st.booleans(),
    orientation=st.none() | st.sampled_from(["portrait", "landscape", "square"]),
    rating=st.none() | st.sampled_from([(3, 5), (0, 0), (-1, -1), (0, 5), (1, 1)]),
    keywords=st.lists(wanted, max_size=2),
    no_keywords=st.lists(wanted, max_size=2),
    limit=st.sampled_from([1, 10, 500]),
    seed=st.integers(0, 5),
)
def test_what_does_not_count_is_as_if_it_were_not_there(
    gallery: GalleryFile,
    places: list[str],
    since: str | None,
    until: str | None,
    camera: str | None,
    least: float | None,
    most: float | None,
    whole: bool,
    near: tuple[float, float] | None,
    within: float,
    has_gps: bool | None,
    orientation: Orientation | None,
    rating: tuple[int, int] | None,
    keywords: list[str],
    no_keywords: list[str],
    limit: int,
    seed: int,
) -> None:
    filters = Filters(
        tuple(map(Path, places)), since, until, camera, least, most, whole, near, within, has_gps, orientation
    )
    filters = replace(filters, rating=rating, keywords=tuple(keywords), no_keywords=tuple(no_keywords))
    query = unit(1 + np.random.default_rng(seed + 100).standard_normal(48, dtype=np.float32))
    expected = brute_force(gallery, query, filters)[:limit]
    assert rank_photos(gallery, query, limit, filters) == expected


@pytest.mark.parametrize(
    ("filters", "least"),
    [
        (Filters(), PHOTOS * 0.8),
        (Filters((Path("/p/a"),)), 50),
        (Filters((Path("/"),), since="2022", until="2024"), 100),
        (Filters((Path("/p/a/0.jpg"), Path("/q/copy.jpg"))), 1),
        (Filters(camera="Éclair"), 30),
        (Filters(min_size=0.9), 50),
        (Filters(near=(0.0, 180.0), within=2000), 40),
        (Filters(near=(52.5, 13.41)), 15),
        (Filters(has_gps=False), 20),
        (Filters(orientation="portrait"), 50),
        (Filters(rating=(3, 5)), 30),
        (Filters(rating=(0, 0)), 50),
        (Filters(keywords=("france", "dog*")), 10),
        (Filters(no_keywords=("dog", "nobody")), 50),
    ],
)
def test_the_filters_of_these_tests_do_let_photos_through(
    gallery: GalleryFile, filters: Filters, least: float
) -> None:
    query = unit(np.ones(48, np.float32))
    found = rank_photos(gallery, query, 1000, filters)
    assert least <= len(found) <= gallery.count_photos()
    assert found == brute_force(gallery, query, filters)


def test_an_id_in_the_index_that_was_given_out_again_lets_no_other_photo_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = unit(rng.standard_normal((4, 48), dtype=np.float32))
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:

        def add(name: str, camera: str, vectors: FloatArray) -> tuple[int, list[int]]:
            record = PhotoRecord(name.encode().ljust(32), 40, 40, SIDE, SIDE, 1, None, camera)
            file = FileRecord(Path(f"/{name}"), 1, 1)
            photo_id, ids = gallery.add_photo(file, record, [region(0.5)] * len(vectors), None)
            store_vectors(gallery, photo_id, ids, vectors)
            return photo_id, ids

        with gallery.atomic():
            assert add("first", "Leica", rows[:1]) == (1, [1])
            assert add("second", "Leica", rows[1:2]) == (2, [2])
            assert add("third", "Leica", rows[2:]) == (3, [3, 4])
        seal_index(gallery, 8)
        with gallery.atomic():
            gallery.connection.execute("delete from photos where id > 1")
            gallery.connection.execute("update sqlite_sequence set seq = 0")  # as none of ours would have it
            # In the index, region 3 is still one of photo 3.
            assert add("new", "Canon", rows[1:3]) == (2, [2, 3])
            assert add("newer", "Leica", rows[3:]) == (3, [4])
        assert gallery.connection.execute("select count(*) from codes").get == 1
        found = rank_photos(gallery, rows[2], 5, Filters(camera="leica"))
    assert {candidate.photo_id for candidate in found} == {1, 3}


def test_spans_of_time_hold_all_that_they_name(gallery: GalleryFile) -> None:
    query = unit(np.ones(48, np.float32))

    def dates(filters: Filters) -> set[str | None]:
        found = rank_photos(gallery, query, 1000, filters)
        return {gallery.photo(candidate.photo_id).record.taken_at for candidate in found}

    assert dates(Filters(until="2023-05-17")) == set(DATES[1:4])
    assert dates(Filters(since="2023-05-17", until="2023-05-17")) == {DATES[3]}
    assert dates(Filters(since="2023", until="2023")) == set(DATES[2:4])
    assert dates(Filters(until="2022-12-31T23:59:58")) == set()
    assert dates(Filters(since="2024-02-29T00:00:02")) == set()
    assert None in dates(Filters())


def test_a_size_is_that_of_objects() -> None:
    assert Filters(min_size=0.2).is_sized
    assert not Filters(whole=False).is_sized
    assert [Filters(min_size=0.2, max_size=0.5).fits(share) for share in (0.1, 0.2, 0.5, 0.6)] == [
        *(False, True, True, False)
    ]
    assert replace(Filters(), max_size=0.0).fits(0.0)


@pytest.mark.parametrize("size", [-0.1, 1.1, float("nan")])
def test_a_size_is_a_share(size: float) -> None:
    with pytest.raises(OutOfRange):
        Filters(min_size=size)
    with pytest.raises(OutOfRange):
        Filters(max_size=size)


@pytest.mark.parametrize("near", [(91, 0), (0, -181), (math.nan, 0)])
def test_a_place_beyond_the_earth_is_refused(near: tuple[float, float]) -> None:
    with pytest.raises(OutOfRange):
        Filters(near=near)
    for metres in (0, -1, math.nan):
        with pytest.raises(OutOfRange, match="within"):
            Filters(near=(0, 0), within=metres)

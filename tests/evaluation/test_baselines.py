import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.errors import EngineFailed, OutputError
from matir_cli.evaluation.baselines.vectors import (
    BASELINES,
    CLUSTER_CLIP,
    CROPPING,
    DENSE_CLIP,
    WHOLE_IMAGE,
    _first_centroids,
    _settle,
    cluster,
    cluster_clip,
    cut,
    score,
)
from matir_cli.gallery.score_store import ScoreStore, run_key
from matir_cli.records import Box, FloatArray, ImageArray


def unit(rows: np.ndarray) -> FloatArray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class MeanColours:
    """A picture's vector is its mean colour; its places are its four quarters, several times over."""

    def encode_whole(self, images: Sequence[ImageArray]) -> FloatArray:
        return unit(np.array([image.mean(axis=(0, 1)) for image in images]).reshape(-1, 3))

    def encode_dense(self, image: ImageArray) -> FloatArray:
        height, width = (length // 2 for length in image.shape[:2])
        quarters = [image[rows, columns] for rows in (slice(height), slice(height, None))
                    for columns in (slice(width), slice(width, None))]  # fmt: skip
        return self.encode_whole(quarters * 10)


def checkered() -> ImageArray:
    """Red, green, blue and red again, 20 x 30 each; blue is the quarter at the bottom left."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30, 0] = image[20:, 30:, 0] = 200
    image[:20, 30:, 1] = 200
    image[20:, :30, 2] = 200
    return image


COLOURS = np.eye(3, dtype=np.float32)


# -- The four --------------------------------------------------------------------------------


def test_each_baseline_sees_what_it_should() -> None:
    encoder, image = MeanColours(), checkered()
    boxes = [Box(0, 0, 30, 20), Box(0.4, 19.2, 29.7, 39)]
    found = {b.name: score(b.vectors(encoder, image, boxes), COLOURS) for b in BASELINES}
    assert list(found) == ["whole image", "Dense-CLIP", "Cluster-CLIP", "cropping + CLIP"]
    assert np.allclose(found["whole image"], np.array([2, 1, 1]) / 6**0.5)
    assert np.allclose(found["Dense-CLIP"], 1)
    assert np.allclose(found["Cluster-CLIP"], 1)
    # Of green, no box has any; the second is a twentieth red, 0.4 of a pixel being a whole one.
    assert found["cropping + CLIP"] == pytest.approx([1, 0, 1], abs=0.06)
    assert len(CROPPING.vectors(encoder, image, boxes)) == 2
    assert len(DENSE_CLIP.vectors(encoder, image, ())) == 40
    assert len(CLUSTER_CLIP.vectors(encoder, image, ())) == 3


def test_a_photo_without_regions_comes_last() -> None:
    vectors = CROPPING.vectors(MeanColours(), checkered(), [])
    assert np.array_equal(score(vectors, COLOURS), [-1, -1, -1])


def test_scores_are_the_best_cosines() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng.normal(size=(70, 16))), unit(rng.normal(size=(9, 16)))
    expected = [max(float(np.dot(query, vector)) for vector in vectors) for query in queries]
    found = score(vectors, queries)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_vectors_that_are_no_numbers_are_an_error() -> None:
    broken = np.full((30, 3), np.nan, np.float32)
    broken[:29] = unit(np.random.default_rng(1).normal(size=(29, 3)))
    with pytest.raises(EngineFailed):
        score(broken, COLOURS)
    with pytest.raises(EngineFailed):
        cluster(broken, 25, 0)


@given(*[st.floats(-30, 90, allow_nan=False)] * 4)
def test_cuts_lie_in_the_photo(x0: float, y0: float, x1: float, y1: float) -> None:
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    found = cut(image, Box(x0, y0, x1, y1))
    assert min(found.shape[:2]) >= 1
    if 0 <= x0 < x1 <= 60 and 0 <= y0 < y1 <= 40:
        assert found[0, 0, 0] == int(y0)
        assert found[0, 0, 1] == int(x0)
        assert found[-1, -1, 0] == int(np.ceil(y1)) - 1
        assert found[-1, -1, 1] == int(np.ceil(x1)) - 1


# -- k-means ---------------------------------------------------------------------------------


def inertia(vectors: FloatArray, centroids: np.ndarray) -> float:
    distances = np.square(vectors[:, None].astype(np.float64) - centroids[None]).sum(axis=2)
    return float(distances.min(axis=1).sum())


def test_clusters_that_are_there_are_found() -> None:
    rng = np.random.default_rng(2)
    centres = unit(rng.normal(size=(25, 32)))
    vectors = unit(centres[rng.permutation(np.repeat(np.arange(25), 10))] + rng.normal(0, 0.01, (250, 32)))
    for seed in range(5):
        found = cluster(vectors, 25, seed)
        nearest = (found @ centres.T).argmax(axis=1)
        assert found.shape == (25, 32)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        # k-means++ may put two first centroids into one of 25; hardly ever into several.
        assert len(set(nearest)) >= 22
        assert np.median((found @ centres.T).max(axis=1)) > 0.999


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 12))
def test_rounds_never_make_it_worse(seed: int, count: int, clusters: int) -> None:
    """Against the inertia of every earlier round, computed the long way; and a fixed point at the end."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(count, 4))).astype(np.float64)
    centroids = _first_centroids(vectors, min(clusters, count), rng)
    found = _settle(vectors, centroids)
    assert inertia(vectors, found) <= inertia(vectors, centroids) + 1e-9
    owner = np.square(vectors[:, None] - found[None]).sum(axis=2).argmin(axis=1)
    for number in set(owner):
        assert np.allclose(found[number], vectors[owner == number].mean(axis=0), atol=1e-9)


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    vectors = unit(np.random.default_rng(3).normal(size=(196, 16)))
    first, again, other = (cluster(vectors, 25, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert CLUSTER_CLIP.settings != cluster_clip(seed=1).settings


def test_few_different_vectors_are_their_own_centroids() -> None:
    vectors = unit(np.random.default_rng(4).normal(size=(7, 16)))
    found = cluster(np.repeat(vectors, 30, axis=0), 25, 0)
    assert found.shape == (7, 16)
    assert np.allclose(np.sort(found @ vectors.T, axis=1)[:, -1], 1, atol=1e-6)
    assert cluster(np.empty((0, 16), np.float32), 25, 0).shape == (0, 16)
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    assert cluster(opposite, 1, 0).shape == (0, 2)


# -- Scores that are kept --------------------------------------------------------------------


PHOTOS = [bytes([n]) * 32 for n in range(6)]


def row(index: int) -> FloatArray:
    return np.array([index, index / 3], np.float32)


class Stopped(Exception):
    """What ends a run in the middle."""


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    key, asked, done = run_key("whole image", "ab", "", ["dog", "cat"]), [], []

    def compute(index: int) -> FloatArray:
        if index == 3 and not done.count("stopped"):
            done.append("stopped")
            raise Stopped
        asked.append(index)
        return row(index)

    with pytest.raises(Stopped), ScoreStore.open(tmp_path / "new" / "scores.db") as store:
        store.scores_of(key, PHOTOS, 2, compute, lambda: done.append("photo"))
    assert done == ["photo"] * 3 + ["stopped"]
    with ScoreStore.open(tmp_path / "new" / "scores.db") as store:
        assert store.missing(key, PHOTOS, 2) == 3
        found = store.scores_of(key, PHOTOS, 2, compute, lambda: done.append("photo"))
        assert store.missing(key, PHOTOS, 2) == 0
    assert asked == [0, 1, 2, 3, 4, 5], "no photo twice"
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([row(n) for n in range(6)]))


def test_photos_are_known_by_name_and_not_by_place(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path / "scores.db") as store:
        store.scores_of("run", PHOTOS, 2, row)
        found = store.scores_of("run", [PHOTOS[4], b"new", PHOTOS[1]], 2, lambda index: row(10 + index))
    assert np.array_equal(found, np.stack([row(4), row(11), row(1)]))


def test_runs_do_not_mix(tmp_path: Path) -> None:
    keys = {
        run_key("whole image", "ab", "", ["dog", "cat"]),
        run_key("Dense-CLIP", "ab", "", ["dog", "cat"]),
        run_key("whole image", "cd", "", ["dog", "cat"]),
        run_key("whole image", "ab", "seed 1", ["dog", "cat"]),
        run_key("whole image", "ab", "", ["cat", "dog"]),
        run_key("whole image", "ab", "", ["dogcat"]),
        run_key("whole image", "a", "b", ["dog", "cat"]),
    }
    assert len(keys) == 7
    with ScoreStore.open(tmp_path / "scores.db") as store:
        for number, key in enumerate(keys):
            store.scores_of(key, PHOTOS, 2, lambda index, number=number: row(index + number))
        for number, key in enumerate(keys):
            found = store.scores_of(key, PHOTOS, 2, lambda _: row(99))
            assert np.array_equal(found[0], row(number))


def test_what_is_not_whole_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    with ScoreStore.open(path) as store:
        store.scores_of("run", PHOTOS, 2, row)
        with pytest.raises(ValueError, match="scores for 3 queries"):
            store.scores_of("run", PHOTOS, 3, row)
    with sqlite3.connect(path) as db:
        db.execute("update scores set scores = x'00' where photo = ?", (PHOTOS[2],))
    with ScoreStore.open(path) as store:
        assert store.missing("run", PHOTOS, 2) == 1
        assert np.array_equal(store.scores_of("run", PHOTOS, 2, row)[2], row(2))


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database " * 100)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("create table t (x)")
    for name in ("text.db", "other.db"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OutputError):
            ScoreStore.open(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(OutputError):
        ScoreStore.open(tmp_path)
    with pytest.raises(OutputError):
        ScoreStore.open(tmp_path / "text.db" / "scores.db")


def test_whole_image_needs_no_boxes() -> None:
    assert WHOLE_IMAGE.vectors(MeanColours(), checkered(), []).shape == (1, 3)

"""k-means against clusters that are known and the long way round."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from matir_cli.errors import EngineFailed
from matir_cli.evaluation.baselines.clip import CLUSTER_CLIP, cluster_clip
from matir_cli.evaluation.baselines.k_means import cluster_centroids, initial_centroids, refine_centroids
from tests.evaluation.baselines.vectors import unit_rows


def inertia(vectors: NDArray[np.floating], centroids: NDArray[np.floating]) -> float:
    distances = np.square(vectors[:, None].astype(np.float64) - centroids[None]).sum(axis=2)
    return float(distances.min(axis=1).sum())


def test_separate_clusters_are_found() -> None:
    rng = np.random.default_rng(2)
    centres = unit_rows(rng.normal(size=(25, 32)))
    vectors = unit_rows(
        centres[rng.permutation(np.repeat(np.arange(25), 10))] + rng.normal(0, 0.01, (250, 32))
    )
    for seed in range(5):
        found = cluster_centroids(vectors, 25, seed)
        nearest = (found @ centres.T).argmax(axis=1)
        assert found.shape == (25, 32)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        # k-means++ may put two first centroids into one of 25; hardly ever into several.
        assert len(set(nearest)) >= 22
        assert np.median((found @ centres.T).max(axis=1)) > 0.999


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 12))
def test_rounds_never_increase_the_inertia(seed: int, count: int, clusters: int) -> None:
    """Compare with the inertia at the start, computed naively; the end is a fixed point."""
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng.normal(size=(count, 4))).astype(np.float64)
    centroids = initial_centroids(vectors, min(clusters, count), rng)
    found = refine_centroids(vectors, centroids)
    assert inertia(vectors, found) <= inertia(vectors, centroids) + 1e-9
    owner = np.square(vectors[:, None] - found[None]).sum(axis=2).argmin(axis=1)
    for number in set(owner):
        assert np.allclose(found[number], vectors[owner == number].mean(axis=0), atol=1e-9)


def test_the_result_depends_on_the_seed_alone() -> None:
    vectors = unit_rows(np.random.default_rng(3).normal(size=(196, 16)))
    first, again, other = (cluster_centroids(vectors, 25, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert CLUSTER_CLIP.settings != cluster_clip(seed=1).settings


def test_few_different_vectors_are_their_own_centroids() -> None:
    vectors = unit_rows(np.random.default_rng(4).normal(size=(7, 16)))
    found = cluster_centroids(np.repeat(vectors, 30, axis=0), 25, 0)
    assert found.shape == (7, 16)
    assert np.allclose(np.sort(found @ vectors.T, axis=1)[:, -1], 1, atol=1e-6)
    assert cluster_centroids(np.empty((0, 16), np.float32), 25, 0).shape == (0, 16)
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    assert cluster_centroids(opposite, 1, 0).shape == (0, 2)


def test_vectors_that_are_not_numbers_are_an_error() -> None:
    broken = np.full((30, 3), np.nan, np.float32)
    broken[:29] = unit_rows(np.random.default_rng(1).normal(size=(29, 3)))
    with pytest.raises(EngineFailed):
        cluster_centroids(broken, 25, 0)

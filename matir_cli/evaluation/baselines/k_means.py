"""k-means clustering of one photo's vectors, for Cluster-CLIP.

k-means++ (Arthur and Vassilvitskii, 2007) chooses the first centroids, Lloyd's algorithm moves them.
"""

import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import EngineFailed
from matir_cli.records import FloatArray

_MAX_ROUNDS = 100


def cluster_centroids(vectors: FloatArray, clusters: int, seed: int) -> FloatArray:
    """(m, d) float32: unit centroids of (n, d) unit vectors; m < `clusters` if fewer vectors differ.

    Lloyd's rounds go on until no vector changes its cluster. The same seed gives the same centroids.
    Clusters whose vectors cancel each other out have no direction and are left out.

    Raises:
        EngineFailed: a value is not a number.
    """
    check_finite(vectors)
    points = np.unique(vectors, axis=0) if len(vectors) else vectors
    if len(points) > clusters:
        all_vectors = vectors.astype(np.float64)
        centroids = initial_centroids(all_vectors, clusters, np.random.default_rng(seed))
        points = refine_centroids(all_vectors, centroids).astype(np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    has_direction = lengths[:, 0] > 0
    return np.asarray(points[has_direction] / lengths[has_direction], dtype=np.float32)


def check_finite(values: FloatArray) -> None:
    """Make sure that all values are numbers.

    Raises:
        EngineFailed: one is not.
    """
    if not np.isfinite(values).all():
        raise EngineFailed("a vector holds a value that is not a number: the weights may be damaged")


def initial_centroids(
    vectors: NDArray[np.float64], clusters: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(clusters, d) vectors chosen by k-means++.

    Each is drawn with a probability proportional to its squared distance from the nearest one before it.
    """
    chosen = [vectors[rng.integers(len(vectors))]]
    nearest = np.full(len(vectors), np.inf)
    for _ in range(clusters - 1):
        nearest = np.minimum(nearest, np.square(vectors - chosen[-1]).sum(axis=1))
        chosen.append(vectors[rng.choice(len(vectors), p=nearest / nearest.sum())])
    return np.stack(chosen)


def refine_centroids(vectors: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, d) centroids after Lloyd's rounds on (n, d) vectors, starting from (k, d) `centroids`."""
    before = np.full(len(vectors), -1)
    for _ in range(_MAX_ROUNDS):
        distances = _squared_distances(vectors, centroids)  # (n, k)
        owner = distances.argmin(axis=1)
        if np.array_equal(owner, before):
            break
        members = np.eye(len(centroids))[owner]  # (n, k)
        counts = members.sum(axis=0)
        centroids = members.T @ vectors / np.maximum(counts, 1)[:, np.newaxis]
        # An empty cluster restarts at the vector that lies furthest from its centroid.
        worst = np.argsort(distances.min(axis=1), kind="stable")[::-1]
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = vectors[worst[: len(empty)]]
        before = owner
    return centroids


def _squared_distances(vectors: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) squared Euclidean distances."""
    lengths = np.square(vectors).sum(axis=1)[:, np.newaxis] + np.square(centroids).sum(axis=1)
    return np.asarray(lengths - 2 * vectors @ centroids.T)

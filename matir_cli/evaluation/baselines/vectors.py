"""CLIP's baselines of the paper's tables: what vectors each makes of a photo.

A photo's score for a query is the highest cosine of its vectors with the query's, so a
baseline is a way from a photo to (n, d) vectors and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from matir_cli.engines.protocols import DenseEncoder
from matir_cli.errors import EngineFailed
from matir_cli.records import Box, FloatArray, ImageArray

CLUSTERS = 25
"""k of Cluster-CLIP in the paper."""

_ROUNDS = 100

_NO_VECTOR = -1.0

Vectors: TypeAlias = Callable[[DenseEncoder, ImageArray, Sequence[Box]], FloatArray]
"""From an encoder, a photo ((h, w, 3) uint8 RGB, working pixels) and its regions' boxes
(working pixels) to (n, d) float32 vectors of unit length."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A row of the tables that any `DenseEncoder` can fill."""

    name: str
    """As the paper calls it."""
    vectors: Vectors
    settings: str = ""
    """What the vectors depend on beside encoder, photo and boxes; names a run of it, see `scores.run_key`."""


def score(vectors: FloatArray, queries: FloatArray) -> FloatArray:
    """(q,) float32: for each of (q, d) unit queries the highest cosine of (n, d) unit vectors; -1 if n is 0.

    Raises:
        EngineFailed: a value is not a number.
    """
    if not len(vectors):
        return np.full(len(queries), _NO_VECTOR, np.float32)
    found = (queries @ vectors.T).max(axis=1)
    _refuse_nan(found)
    return np.asarray(found, dtype=np.float32)


def cut(image: ImageArray, box: Box) -> ImageArray:
    """The pixels of `image` that `box` touches, at least one; not copied."""
    height, width = image.shape[:2]
    left = min(max(int(np.floor(box.x0)), 0), width - 1)
    top = min(max(int(np.floor(box.y0)), 0), height - 1)
    right, bottom = (max(int(np.ceil(end)), start + 1) for end, start in ((box.x1, left), (box.y1, top)))
    return image[top:bottom, left:right]


def cluster(vectors: FloatArray, clusters: int, seed: int) -> FloatArray:
    """(m, d) float32: unit centroids of (n, d) unit vectors by k-means; m < `clusters` if so few differ.

    k-means++ (Arthur and Vassilvitskii, 2007), then Lloyd's rounds until no vector changes its
    cluster. The same seed gives the same centroids.

    Raises:
        EngineFailed: a value is not a number.
    """
    _refuse_nan(vectors)
    points = np.unique(vectors, axis=0) if len(vectors) else vectors
    if len(points) > clusters:
        all_vectors = vectors.astype(np.float64)
        centroids = _first_centroids(all_vectors, clusters, np.random.default_rng(seed))
        points = _settle(all_vectors, centroids).astype(np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    # Vectors that cancel each other out have no direction in common.
    kept = lengths[:, 0] > 0
    return np.asarray(points[kept] / lengths[kept], dtype=np.float32)


def _refuse_nan(values: FloatArray) -> None:
    if not np.isfinite(values).all():
        raise EngineFailed("a vector is not of numbers: the weights may be damaged")


def _first_centroids(
    vectors: NDArray[np.float64], clusters: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(clusters, d): each drawn among the vectors by the square of its distance to those before it."""
    chosen = [vectors[rng.integers(len(vectors))]]
    nearest = np.full(len(vectors), np.inf)
    for _ in range(clusters - 1):
        nearest = np.minimum(nearest, np.square(vectors - chosen[-1]).sum(axis=1))
        chosen.append(vectors[rng.choice(len(vectors), p=nearest / nearest.sum())])
    return np.stack(chosen)


def _settle(vectors: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, d) centroids after Lloyd's rounds from `centroids`."""
    before = np.full(len(vectors), -1)
    for _ in range(_ROUNDS):
        distances = _squared_distances(vectors, centroids)  # (n, k)
        owner = distances.argmin(axis=1)
        if np.array_equal(owner, before):
            break
        members = np.eye(len(centroids))[owner]  # (n, k)
        counts = members.sum(axis=0)
        centroids = members.T @ vectors / np.maximum(counts, 1)[:, np.newaxis]
        # A cluster that lost its last vector begins anew at the one that lies worst.
        worst = np.argsort(distances.min(axis=1), kind="stable")[::-1]
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = vectors[worst[: len(empty)]]
        before = owner
    return centroids


def _squared_distances(vectors: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k)."""
    lengths = np.square(vectors).sum(axis=1)[:, np.newaxis] + np.square(centroids).sum(axis=1)
    return np.asarray(lengths - 2 * vectors @ centroids.T)


def cluster_clip(clusters: int = CLUSTERS, seed: int = 0) -> Baseline:
    """k-means over one photo's dense vectors."""

    def vectors(encoder: DenseEncoder, image: ImageArray, _boxes: Sequence[Box]) -> FloatArray:
        return cluster(encoder.encode_dense(image), clusters, seed)

    return Baseline("Cluster-CLIP", vectors, f"clusters {clusters}, seed {seed}")


def _whole(encoder: DenseEncoder, image: ImageArray, _boxes: Sequence[Box]) -> FloatArray:
    return encoder.encode_whole([image])


def _dense(encoder: DenseEncoder, image: ImageArray, _boxes: Sequence[Box]) -> FloatArray:
    return encoder.encode_dense(image)


def _crops(encoder: DenseEncoder, image: ImageArray, boxes: Sequence[Box]) -> FloatArray:
    return encoder.encode_whole([cut(image, box) for box in boxes])


WHOLE_IMAGE = Baseline("whole image", _whole)

DENSE_CLIP = Baseline("Dense-CLIP", _dense)

CLUSTER_CLIP = cluster_clip()

CROPPING = Baseline("cropping + CLIP", _crops)

BASELINES = (WHOLE_IMAGE, DENSE_CLIP, CLUSTER_CLIP, CROPPING)
"""In the order of the paper's tables."""

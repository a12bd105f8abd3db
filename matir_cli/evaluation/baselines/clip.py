"""CLIP baselines of the paper's tables: how each turns a photo into vectors.

A photo's score for a query is the highest cosine of its vectors with the query's vector, so a
baseline is a function from a photo to (n, d) vectors and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from matir_cli.engines.protocols import DenseEncoder
from matir_cli.evaluation.baselines.k_means import check_finite, cluster_centroids
from matir_cli.records import Box, FloatArray, ImageArray

CLUSTERS = 25
"""k of Cluster-CLIP in the paper."""

_SCORE_WITHOUT_VECTORS = -1.0

PhotoVectors: TypeAlias = Callable[[DenseEncoder, ImageArray, Sequence[Box]], FloatArray]
"""Function from an encoder, a photo ((h, w, 3) uint8 RGB, working pixels) and its regions' boxes
(working pixels) to (n, d) float32 vectors of unit length."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A row of the tables that any `DenseEncoder` can fill."""

    name: str
    """Name in the paper."""
    vectors: PhotoVectors
    settings: str = ""
    """What the vectors depend on apart from encoder, photo and boxes; part of a run's key, see
    `gallery.score_store.run_key`."""


def best_cosines(vectors: FloatArray, queries: FloatArray) -> FloatArray:
    """(q,) float32: the highest cosine of each of (q, d) unit queries with (n, d) unit vectors; -1 if n is 0.

    Raises:
        EngineFailed: a value is not a number.
    """
    if not len(vectors):
        return np.full(len(queries), _SCORE_WITHOUT_VECTORS, np.float32)
    cosines = (queries @ vectors.T).max(axis=1)
    check_finite(cosines)
    return np.asarray(cosines, dtype=np.float32)


def crop(image: ImageArray, box: Box) -> ImageArray:
    """Return the pixels of `image` that `box` (in its pixels) touches, at least one, as a view."""
    height, width = image.shape[:2]
    left = min(max(int(np.floor(box.x0)), 0), width - 1)
    top = min(max(int(np.floor(box.y0)), 0), height - 1)
    right, bottom = (max(int(np.ceil(end)), start + 1) for end, start in ((box.x1, left), (box.y1, top)))
    return image[top:bottom, left:right]


def cluster_clip(clusters: int = CLUSTERS, seed: int = 0) -> Baseline:
    """Cluster-CLIP: the unit centroids of one photo's dense vectors by k-means."""

    def vectors(encoder: DenseEncoder, image: ImageArray, _boxes: Sequence[Box]) -> FloatArray:
        return cluster_centroids(encoder.encode_dense(image), clusters, seed)

    return Baseline("Cluster-CLIP", vectors, f"clusters {clusters}, seed {seed}")


def _whole_image(encoder: DenseEncoder, image: ImageArray, _boxes: Sequence[Box]) -> FloatArray:
    return encoder.encode_whole([image])


def _dense(encoder: DenseEncoder, image: ImageArray, _boxes: Sequence[Box]) -> FloatArray:
    return encoder.encode_dense(image)


def _crops(encoder: DenseEncoder, image: ImageArray, boxes: Sequence[Box]) -> FloatArray:
    return encoder.encode_whole([crop(image, box) for box in boxes])


WHOLE_IMAGE = Baseline("whole image", _whole_image)

DENSE_CLIP = Baseline("Dense-CLIP", _dense)

CLUSTER_CLIP = cluster_clip()

CROPPING = Baseline("cropping + CLIP", _crops)

BASELINES = (WHOLE_IMAGE, DENSE_CLIP, CLUSTER_CLIP, CROPPING)
"""In the order of the paper's tables."""

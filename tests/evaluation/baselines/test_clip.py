"""The four CLIP baselines on pictures whose vectors are known."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matir_cli.errors import EngineFailed
from matir_cli.evaluation.baselines.clip import (
    BASELINES,
    CLUSTER_CLIP,
    CROPPING,
    DENSE_CLIP,
    WHOLE_IMAGE,
    best_cosines,
    crop,
)
from matir_cli.records import Box, FloatArray, ImageArray
from tests.evaluation.baselines.vectors import unit_rows


class MeanColours:
    """The vector of an image is its mean colour; dense vectors are those of its quarters, ten times each."""

    def encode_whole(self, images: Sequence[ImageArray]) -> FloatArray:
        return unit_rows(np.array([image.mean(axis=(0, 1)) for image in images]).reshape(-1, 3))

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


def test_each_baseline_sees_its_part_of_the_image() -> None:
    encoder, image = MeanColours(), checkered()
    boxes = [Box(0, 0, 30, 20), Box(0.4, 19.2, 29.7, 39)]
    found = {b.name: best_cosines(b.vectors(encoder, image, boxes), COLOURS) for b in BASELINES}
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
    assert np.array_equal(best_cosines(vectors, COLOURS), [-1, -1, -1])


def test_scores_are_the_best_cosines() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = unit_rows(rng.normal(size=(70, 16))), unit_rows(rng.normal(size=(9, 16)))
    expected = [max(float(np.dot(query, vector)) for vector in vectors) for query in queries]
    found = best_cosines(vectors, queries)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_scores_that_are_not_numbers_are_an_error() -> None:
    broken = np.full((30, 3), np.nan, np.float32)
    broken[:29] = unit_rows(np.random.default_rng(1).normal(size=(29, 3)))
    with pytest.raises(EngineFailed):
        best_cosines(broken, COLOURS)


@given(*[st.floats(-30, 90, allow_nan=False)] * 4)
def test_cuts_lie_in_the_photo(x0: float, y0: float, x1: float, y1: float) -> None:
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    found = crop(image, Box(x0, y0, x1, y1))
    assert min(found.shape[:2]) >= 1
    if 0 <= x0 < x1 <= 60 and 0 <= y0 < y1 <= 40:
        assert found[0, 0, 0] == int(y0)
        assert found[0, 0, 1] == int(x0)
        assert found[-1, -1, 0] == int(np.ceil(y1)) - 1
        assert found[-1, -1, 1] == int(np.ceil(x1)) - 1


def test_whole_image_needs_no_boxes() -> None:
    assert WHOLE_IMAGE.vectors(MeanColours(), checkered(), []).shape == (1, 3)

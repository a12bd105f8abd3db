"""The rotation, the stored form of vectors and the cosines of stored vectors."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.search.quantisation import (
    QUERY_LEVEL,
    TOP_LEVEL,
    cosines,
    quantise,
    quantise_finely,
    refine,
    restore,
    rotate,
    rounding_error,
)
from tests.search.vectors import like_clip, unit

SIZES = (1, 3, 64, 100, 512, 768)


@pytest.mark.parametrize("dimensions", SIZES)
def test_the_rotation_keeps_lengths_and_angles(dimensions: int) -> None:
    turned = rotate(np.eye(dimensions, dtype=np.float32))
    assert np.abs(turned @ turned.T - np.eye(dimensions)).max() < 1e-5


def test_the_rotation_is_the_same_for_ever() -> None:
    # Stored vectors and queries only compare while this holds, to the last bit, everywhere.
    turned = rotate(np.eye(768, dtype=np.float32)[::100]).astype("<f4")
    assert hashlib.sha256(turned.tobytes()).hexdigest()[:16] == "9f5cb8cbccf7df78"


def test_the_rotation_leaves_no_dimension_out() -> None:
    turned = rotate(np.eye(768, dtype=np.float32))
    assert np.abs(turned).max() < 0.25
    assert (turned**2).mean(axis=0).max() * 768 < 1.001


def test_what_is_rotated_stays_as_it_was() -> None:
    rows = like_clip(2, 64)
    before = rows.copy()
    rotate(rows)
    assert (rows == before).all()


@pytest.mark.parametrize("dimensions", SIZES[1:])
def test_a_stored_vector_comes_back_in_its_own_frame(dimensions: int) -> None:
    rows = like_clip(50, dimensions, seed=3)
    restored = restore(quantise(rows))
    assert restored.dtype == np.float32
    assert np.abs(np.linalg.norm(restored, axis=1) - 1).max() < 1e-5
    assert np.einsum("nd,nd->n", restored, rows).min() > 0.9998
    assert np.abs(restored - rows).max() < 0.02
    with pytest.raises(ValueError, match="zeros"):
        restore(np.zeros((1, dimensions), np.int8))


def test_cosines_of_stored_vectors_are_near_the_exact_ones() -> None:
    rows, query = like_clip(2000, 768), like_clip(1, 768, seed=9)[0]
    error = cosines(quantise(rows), query) - rows @ query
    assert error.std() < 0.0004
    assert np.abs(error).max() < 0.002
    # What the rotation is for: the same eight bits on the vectors as they come.
    plain = np.rint(rows * (127 / np.abs(rows).max(axis=1, keepdims=True)))
    plain_error = unit(plain) @ query - rows @ query
    assert plain_error.std() > 3 * error.std()


@given(st.integers(0, 2**32 - 1), st.sampled_from(SIZES), st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_the_error_of_a_stored_vector_is_bounded(seed: int, dimensions: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    rows = np.asarray(size * rng.standard_normal((5, dimensions)) ** 3 + 1e-6, np.float32)
    query = unit(rng.standard_normal(dimensions))
    error = np.abs(cosines(quantise(rows), query) - unit(rows) @ query)
    # No level is off by more than a half, neither the rows' nor (far finer) the query's.
    largest = np.abs(rotate(unit(rows))).max(axis=1)
    bound = np.sqrt(dimensions) * (largest / (2 * TOP_LEVEL) + 1 / (2 * QUERY_LEVEL))
    assert (error <= 2 * bound + 1e-5).all()


def test_equal_vectors_score_equally_wherever_they_stand() -> None:
    rows = quantise(like_clip(300, 768))
    query = like_clip(1, 768, seed=5)[0]
    together = cosines(rows, query)
    assert together.tolist() == [cosines(row[np.newaxis], query)[0] for row in rows]


def test_the_error_of_rounding_is_foretold() -> None:
    rows, queries = like_clip(200, 768), like_clip(50, 768, seed=7)
    stored = quantise(rows)
    left = stored / np.linalg.norm(stored.astype(np.float64), axis=1, keepdims=True)
    errors = []
    for query in queries:
        rounded = quantise(query[np.newaxis])[0].astype(np.float64)
        errors.append(left @ rounded / np.linalg.norm(rounded) - rows @ query)
    assert np.abs(errors).max() < 6 * rounding_error(768)
    assert 0.5 < np.std(errors) / rounding_error(768) < 1.2


@pytest.mark.parametrize("dimensions", SIZES[1:])
def test_residuals_tell_a_level_to_a_sixteenth(dimensions: int) -> None:
    rows, queries = like_clip(300, dimensions), like_clip(20, dimensions, seed=7)
    stored, residuals = quantise_finely(rows)
    assert (stored == quantise(rows)).all()
    assert residuals.shape == (300, -(-dimensions // 2))
    refined = refine(stored, residuals)
    assert np.abs(refined / 32 - stored).max() < 0.5
    turned = rotate(rows)
    exact = turned * (TOP_LEVEL / np.abs(turned).max(axis=1, keepdims=True))
    assert np.abs(refined / 32 - exact).max() <= 1 / 32 + 1e-4
    fine = np.std([cosines(refined, query) - rows @ query for query in queries])
    coarse = np.std([cosines(stored, query) - rows @ query for query in queries])
    assert fine < coarse / 10


@pytest.mark.parametrize("dimensions", SIZES)
def test_a_stored_vector_uses_all_levels(dimensions: int) -> None:
    rows = like_clip(20, dimensions) if dimensions > 1 else np.ones((20, 1), np.float32)
    stored = quantise(rows)
    assert stored.dtype == np.int8
    assert (np.abs(stored.astype(int)).max(axis=1) == TOP_LEVEL).all()
    assert (quantise(1024 * rows) == stored).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused(value: float) -> None:
    rows = like_clip(3, 64)
    rows[1, 5] = value
    with pytest.raises(ValueError, match="not finite"):
        quantise(rows)


def test_a_vector_of_zeros_is_refused() -> None:
    with pytest.raises(ValueError, match="no direction"):
        quantise(np.zeros((1, 64), np.float32))


def test_no_vectors_are_no_vectors() -> None:
    assert quantise(np.zeros((0, 64), np.float32)).shape == (0, 64)

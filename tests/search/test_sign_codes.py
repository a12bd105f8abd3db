"""Sign codes: their bytes, their estimates of cosines and the error of these."""

import numpy as np
import pytest
from numpy.typing import NDArray

from matir_cli.records import FloatArray
from matir_cli.search.quantisation import (
    quantise,
)
from matir_cli.search.sign_codes import VECTORS_AT_ONCE, SignCodes, encode_signs, sign_queries
from tests.search.vectors import like_clip, unit


def codes_of(rows: FloatArray) -> tuple[FloatArray, SignCodes]:
    return encode_signs(quantise(rows))


def test_codes_are_read_as_they_were_written() -> None:
    _, codes = codes_of(like_clip(37, 100))
    raw = codes.tobytes()
    assert len(raw) == SignCodes.size(37, 100)
    read = SignCodes.over(np.frombuffer(raw + b"beyond", np.uint8), 37, 100)
    assert (read.words == codes.words).all()
    assert (read.along == codes.along).all()
    assert (read.spread == codes.spread).all()


@pytest.mark.parametrize("dimensions", [64, 100, 768])
def test_an_estimate_is_what_the_signs_say(dimensions: int) -> None:
    rows, query = like_clip(VECTORS_AT_ONCE + 50, dimensions), like_clip(1, dimensions, seed=3)[0]
    centre, codes = codes_of(rows)
    ready = sign_queries(query, centre[np.newaxis])[0]
    signs = np.where(unpacked(codes.words, dimensions), 1.0, -1.0)
    odd = sum(
        2.0**p * np.where(unpacked(w[:, np.newaxis], dimensions)[0], 1.0, -1.0)
        for p, w in enumerate(ready.planes)
    )
    expected = codes.along * ready.centre_score + codes.spread * (signs @ odd) * ready.scale
    assert ready.upper_bounds(codes, 0.0) == pytest.approx(expected, abs=1e-5)
    bounds = ready.upper_bounds(codes, 2.0)
    assert bounds == pytest.approx(expected + 2.0 * codes.spread * ready.error, abs=1e-5)


def unpacked(words: NDArray[np.uint64], dimensions: int) -> NDArray[np.uint8]:
    """(n, d) bits of (w, n) words."""
    return np.unpackbits(np.ascontiguousarray(words.T).view(np.uint8), axis=1)[:, :dimensions]


@pytest.mark.parametrize("dimensions", [64, 768])
@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_the_error_of_estimates_is_as_foretold(dimensions: int, alike: float) -> None:
    rows, others = like_clip(2000, dimensions), like_clip(200, dimensions, seed=8)
    rest = rows - rows.mean(axis=0)
    centre, codes = codes_of(rows)
    missed = []
    for number, other in enumerate(others):
        # With `alike`, a query that lies in the direction of one vector: what a search is after.
        query = unit((1 - alike) * other + alike * unit(rest[number]))
        ready = sign_queries(query, centre[np.newaxis])[0]
        error = (ready.upper_bounds(codes, 0.0) - rows @ query) / (ready.error * codes.spread)
        missed.append(error[number] if alike else error)
    # Two bits of a query overstate what is very much alike: never a reason to miss it.
    assert -0.1 < np.mean(missed) < (2.0 if alike else 0.1)
    assert np.std(missed) < 1.1
    assert np.mean(np.array(missed) < -3) < 0.003


def test_a_lone_vector_is_its_own_centre() -> None:
    row, query = like_clip(1, 64), like_clip(1, 64, seed=2)[0]
    centre, codes = codes_of(row)
    ready = sign_queries(query, centre[np.newaxis])[0]
    assert ready.upper_bounds(codes, 0.0) == pytest.approx(row @ query, abs=0.01)


def test_vectors_without_a_common_direction_have_codes() -> None:
    row = like_clip(1, 64)
    centre, codes = codes_of(np.concatenate([row, -row]))
    ready = sign_queries(row[0], centre[np.newaxis])[0]
    assert np.isfinite(ready.upper_bounds(codes, 3.0)).all()
    assert ready.upper_bounds(codes, 0.0) == pytest.approx([1.0, -1.0], abs=0.4)

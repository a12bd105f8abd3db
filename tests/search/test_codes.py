"""Codes: their bytes, their estimates of cosines and the error of these."""

import numkong
import numpy as np
import pytest
from numpy.typing import NDArray

from matir_cli.records import FloatArray
from matir_cli.search.codes import (
    BlockQueries,
    CodeQuery,
    Codes,
    encode_block,
    prepare_query,
    read_scales,
    row_bytes,
    scales_bytes,
)
from matir_cli.search.quantisation import quantise, rotate
from tests.search.vectors import like_clip, unit

SIZES = [1, 2, 3, 64, 101, 768]


def codes_of(rows: FloatArray) -> tuple[FloatArray, Codes]:
    return encode_block(quantise(rows))


def bounds_of(query: CodeQuery, codes: Codes, deviations: float) -> FloatArray:
    return np.asarray(table_of([query], codes, deviations)[0])


def table_of(queries: list[CodeQuery], codes: Codes, deviations: float) -> FloatArray:
    """(k, n) upper bounds."""
    scales = read_scales(codes.tobytes()[: scales_bytes(len(codes.levels))])
    table = np.empty((len(queries), len(codes.levels)), np.float32)
    compared = BlockQueries(queries, scales, deviations)
    compared.bound(compared.multiply(codes.levels), table)
    return table


def levels_of(codes: Codes, dimensions: int) -> NDArray[np.float64]:
    """(n, d) the levels of codes: -7.5 to 7.5."""
    digits = np.concatenate([codes.levels >> 4, codes.levels & 15], axis=1)
    return digits[:, :dimensions] - 7.5


@pytest.mark.parametrize("dimensions", SIZES)
def test_codes_are_read_as_they_were_written(dimensions: int) -> None:
    _, codes = codes_of(like_clip(37, max(dimensions, 3))[:, :dimensions])
    raw = codes.tobytes()
    assert len(raw) == Codes.size(37, dimensions)
    along, spread = read_scales(raw[: scales_bytes(37)])
    assert (along == codes.along).all()
    assert (spread == codes.spread).all()
    assert raw[scales_bytes(37) :] == codes.levels.tobytes()
    assert codes.levels.shape == (37, row_bytes(dimensions))


@pytest.mark.parametrize("dimensions", SIZES)
def test_an_estimate_is_what_the_levels_say(dimensions: int) -> None:
    rows, query = like_clip(50, 1000)[:, :dimensions], like_clip(1, 1000, seed=3)[0, :dimensions]
    centre, codes = codes_of(rows)
    (ready,) = prepare_query(query, centre[np.newaxis])
    turned = unit(rotate(query[np.newaxis])[0])
    across = turned - ready.centre_score * centre
    expected = codes.along * ready.centre_score + codes.spread * (levels_of(codes, dimensions) @ across)
    rounding = 6 * codes.spread * ready.error / 10  # int8 factors are ten times as exact as 4-bit levels
    assert (np.abs(bounds_of(ready, codes, 0.0) - expected) <= rounding + 1e-5).all()
    difference = bounds_of(ready, codes, 2.0) - bounds_of(ready, codes, 0.0)
    assert difference == pytest.approx(2.0 * codes.spread * ready.error, abs=1e-6)


@pytest.mark.parametrize("dimensions", [64, 512, 768])
@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_the_error_of_estimates_is_as_foretold(dimensions: int, alike: float) -> None:
    rows, others = like_clip(2000, dimensions), like_clip(200, dimensions, seed=8)
    rest = rows - rows.mean(axis=0)
    centre, codes = codes_of(rows)
    missed = []
    for number, other in enumerate(others):
        # With `alike`, a query that lies in the direction of one vector: what a search is after.
        query = unit((1 - alike) * other + alike * unit(rest[number]))
        (ready,) = prepare_query(query, centre[np.newaxis])
        error = (bounds_of(ready, codes, 0.0) - rows @ query) / (ready.error * codes.spread)
        missed.append(error[number] if alike else error)
    assert abs(np.mean(missed)) < (0.3 if alike else 0.05)
    assert (0.2 if alike else 0.8) < np.std(missed) < 1.1
    assert np.mean(np.array(missed) < -4) < 0.0005


def test_a_lone_vector_is_its_own_centre() -> None:
    row, query = like_clip(1, 64), like_clip(1, 64, seed=2)[0]
    centre, codes = codes_of(row)
    (ready,) = prepare_query(query, centre[np.newaxis])
    assert bounds_of(ready, codes, 0.0) == pytest.approx(row @ query, abs=0.01)


def test_vectors_without_a_common_direction_have_codes() -> None:
    row = like_clip(1, 64)
    centre, codes = codes_of(np.concatenate([row, -row]))
    (ready,) = prepare_query(row[0], centre[np.newaxis])
    assert np.isfinite(bounds_of(ready, codes, 3.0)).all()
    assert bounds_of(ready, codes, 0.0) == pytest.approx([1.0, -1.0], abs=0.1)


def test_a_query_along_the_centre_has_no_error_of_levels() -> None:
    centre, codes = codes_of(like_clip(100, 64))
    ready = CodeQuery(np.full((2, 32), [[0x88], [0x00]], np.uint8), 0.001, 0.0, 0.5, 0.0)
    assert bounds_of(ready, codes, 4.0) == pytest.approx(0.5 * codes.along, abs=1e-6)
    assert centre.shape == (64,)


def test_queries_are_compared_together_as_one_by_one() -> None:
    rows, queries = like_clip(300, 101), like_clip(19, 101, seed=4)
    centre, codes = codes_of(rows)
    ready = [prepare_query(query, centre[np.newaxis])[0] for query in queries]
    one_by_one = np.stack([bounds_of(each, codes, 3.0) for each in ready])
    for count in (2, 3, 19):
        assert table_of(ready[:count], codes, 3.0) == pytest.approx(one_by_one[:count], abs=1e-6)


@pytest.mark.parametrize("dimensions", SIZES)
def test_products_are_those_of_the_digits(dimensions: int) -> None:
    """The library's kernels for this processor are exact, also for rows of lengths that no register has."""
    rng = np.random.default_rng(5)
    levels = rng.integers(0, 256, (70, row_bytes(dimensions)), np.uint8)
    queries = rng.integers(0, 256, (6, row_bytes(dimensions)), np.uint8)
    products = np.asarray(numkong.dots_packed(levels, numkong.dots_pack(queries, dtype="uint4")))
    digits = [np.concatenate([rows >> 4, rows & 15], axis=1).astype(np.int64) for rows in (levels, queries)]
    assert (products == digits[0] @ digits[1].T).all()


def test_bounds_of_exact_codes_lie_above_by_the_least_error() -> None:
    row, query = like_clip(1, 64), like_clip(1, 64, seed=2)[0]
    centre, codes = codes_of(np.repeat(row, 3, axis=0))
    (ready,) = prepare_query(query, centre[np.newaxis])
    table = np.empty((1, 3), np.float32)
    scales = read_scales(codes.tobytes()[: scales_bytes(3)])
    compared = BlockQueries([ready], scales, 3.0, 0.01)
    compared.bound(compared.multiply(codes.levels), table)
    assert table[0] - bounds_of(ready, codes, 0.0) == pytest.approx(0.03, abs=1e-5)

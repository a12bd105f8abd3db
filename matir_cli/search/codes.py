"""Four-bit codes of region vectors, for a fast first pass.

A code holds four bits per dimension of a rotated vector (`quantisation.rotate`), at a scale of its own. Each
vector's component along the mean direction of its block, for CLIP most of the vector, is removed beforehand
and kept as a number. The scale makes the estimate of a cosine unbiased, and the estimate's error is known, as
in RaBitQ (Gao et al., "Practical and asymptotically optimal quantization of high-dimensional vectors", SIGMOD
2025). Codes are compared with queries, eight bits per dimension, by integer products of SIMD instructions
(NumKong). These multiply values of four bits, so that codes need not be unpacked: a query is two such rows,
its high and its low digits. They multiply a code with four rows in the time of one.

One bit per dimension, as in the first RaBitQ, is too few for texts: the cosines of a text with all regions
spread by little more than the error of such an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numkong
import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray
from matir_cli.search.quantisation import Int8Array, rotate

_LEVELS = 16
"""Values of a dimension: -7.5, -6.5, ..., 7.5 steps."""

_STEP = 0.3352
"""Step, in standard deviations, of the optimal uniform quantiser of a normal variable with 16 levels, and its
error: Max, "Quantizing for minimum distortion", 1960."""

_STEP_ERROR = 0.01154**0.5 / _STEP
"""Standard deviation of the error of a dimension, in steps."""

_QUERY_LEVEL = 127
"""Largest level of a query."""

LAYOUT = b"4b.2"
"""Mark at the start of a block's codes. Blocks with another one come from a version that laid out codes in
another way, and are made anew (`index.foreign_blocks`). The first layout, in no release, had no mark."""

_ONE_THREAD = 1 << 18
"""Multiplications of a matrix product that OpenBLAS does in the calling thread: its own threads would only
wait for those that compare codes."""

_SCALES = 8
"""Bytes per code besides the levels: two float32 numbers."""


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes of n vectors: four bits per dimension, and two numbers per vector.

    Vector i is `along[i]` * centre plus a rest orthogonal to the centre; the rest is estimated as
    `spread[i]` * (its levels).
    """

    along: FloatArray
    """(n,) float32, component along the block's centre."""
    spread: FloatArray
    """(n,) float32, factor of the levels that makes the estimate unbiased."""
    levels: NDArray[np.uint8]
    """(n, ceil(d / 2)) digits, 0..15 for -7.5..7.5. The high half of byte j is dimension j, the low half is
    dimension j + ceil(d / 2); 0 where there is no such dimension."""

    @staticmethod
    def size(count: int, dimensions: int) -> int:
        """Return the size in bytes of the codes of `count` vectors."""
        return scales_bytes(count) + count * row_bytes(dimensions)

    def tobytes(self) -> bytes:
        """Return `LAYOUT`, `along` and `spread` as little-endian float32, and `levels`."""
        scales = np.stack([self.along, self.spread]).astype("<f4")
        return LAYOUT + scales.tobytes() + self.levels.tobytes()


def row_bytes(dimensions: int) -> int:
    """Return the number of bytes of a vector's levels."""
    return -(-dimensions // 2)


def scales_bytes(count: int) -> int:
    """Return the number of bytes before the levels of `count` vectors."""
    return len(LAYOUT) + _SCALES * count


def read_scales(blob: bytes) -> FloatArray:
    """Return `along` and `spread`, (2, n), from the first `scales_bytes(n)` bytes of codes."""
    return np.frombuffer(blob, "<f4", offset=len(LAYOUT)).reshape(2, -1)


def encode_block(stored: Int8Array) -> tuple[FloatArray, Codes]:
    """Encode (n, d) stored vectors as a block.

    Returns:
        The block's centre, (d,) float32 of unit length in the rotated frame, and the codes.
    """
    rest = stored.astype(np.float32)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    centre = rest.mean(axis=0)
    centre /= max(float(np.linalg.norm(centre)), np.finfo(np.float32).tiny)
    along = rest @ centre
    rest -= along[:, np.newaxis] * centre
    square = np.einsum("nd,nd->n", rest, rest)
    step = np.maximum(_STEP * np.sqrt(square / rest.shape[1]), np.finfo(np.float32).tiny)
    level = np.clip(np.floor(rest / step[:, np.newaxis]), -_LEVELS // 2, _LEVELS // 2 - 1)
    explained = np.einsum("nd,nd->n", level + np.float32(0.5), rest)
    spread = np.divide(square, explained, out=np.zeros_like(square), where=explained > 0)
    digits = (level + _LEVELS // 2).astype(np.uint8)
    return centre, Codes(along, spread, _pack_digits(digits))


def _pack_digits(digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack (..., d) digits, 0..15, as `Codes.levels` are: (..., ceil(d / 2))."""
    d = digits.shape[-1]
    half = row_bytes(d)
    packed = np.asarray(digits[..., :half] << 4, np.uint8)
    packed[..., : d - half] |= digits[..., half:]
    return packed


@dataclass(frozen=True, slots=True)
class CodeQuery:
    """A query prepared for one block of codes.

    The part of the query across the block's centre is `scale` * (q - 128), with (d,) integers q of 1..255.
    """

    digits: NDArray[np.uint8]
    """(2, ceil(d / 2)): the high digits of q, then the low ones, packed as the levels of codes are."""
    scale: float
    constant: float
    """Amount that belongs to every product of levels and query."""
    centre_score: float
    """Inner product of query and centre."""
    error: float
    """Standard deviation of the estimate's error for a vector whose `spread` is 1."""


class BlockQueries:
    """Queries to compare with one block of codes."""

    def __init__(
        self, queries: Sequence[CodeQuery], scales: FloatArray, deviations: float, least_error: float = 0.0
    ) -> None:
        """Prepare k queries for upper bounds that lie `deviations` standard deviations above estimates.

        Args:
            scales: (2, n), from `read_scales`.
            least_error: standard deviation of the error at least, also of codes that are more exact.
        """
        # The product with a row of ones is what all levels of a query, 128 too large, add to its products.
        ones = np.full((1, queries[0].digits.shape[1]), 0x11, np.uint8)
        digits = np.concatenate([*(each.digits for each in queries), ones])
        self._packed = numkong.dots_pack(digits, dtype="uint4")
        count = len(queries)
        steps = np.array([each.scale for each in queries], np.float32)
        self._weights = np.zeros((2 * count + 1, count), np.float32)
        self._weights[np.arange(0, 2 * count, 2), np.arange(count)] = _LEVELS * steps
        self._weights[np.arange(1, 2 * count, 2), np.arange(count)] = steps
        self._weights[-1] = -(_QUERY_LEVEL + 1) * steps
        _, self._spread = scales
        error = max(min(each.error for each in queries), float(np.finfo(np.float32).tiny))
        self._scales = np.stack([*scales, np.maximum(self._spread, np.float32(least_error / error))])
        self._factors = np.array(
            [[each.centre_score, each.constant, deviations * each.error] for each in queries], np.float32
        )

    @property
    def rows(self) -> int:
        """Number of products per code: 2k + 1."""
        return len(self._weights)

    def multiply(self, levels: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """Return (m, `rows`) products of the queries with (m, ceil(d / 2)) levels of `Codes`."""
        return np.asarray(numkong.dots_packed(levels, self._packed))

    def bound(self, products: NDArray[np.uint32], out: FloatArray) -> None:
        """Compute estimated cosines of the block's n codes plus some standard deviations of their errors.

        Args:
            products: (n, `rows`), from `multiply`.
            out: (k, n) for the result.
        """
        rows = max(1, _ONE_THREAD // self._weights.size)
        for start in range(0, len(products), rows):
            each = slice(start, start + rows)
            weighted = products[each].astype(np.float32) @ self._weights
            np.multiply(weighted.T, self._spread[each], out=out[:, each])
            out[:, each] += self._factors @ self._scales[:, each]


def prepare_query(query: FloatArray, centres: FloatArray) -> list[CodeQuery]:
    """Prepare the (d,) `query`, in the encoder's frame, for each block, given the blocks' (b, d) centres."""
    turned = rotate(query[np.newaxis])[0]
    turned /= np.linalg.norm(turned)
    centre_scores = centres @ turned
    across = turned - centre_scores[:, np.newaxis] * centres  # (b, d)
    scale = np.maximum(np.abs(across).max(axis=1) / _QUERY_LEVEL, np.finfo(np.float32).tiny)
    rounded = np.rint(across / scale[:, np.newaxis])
    raised = (rounded + (_QUERY_LEVEL + 1)).astype(np.uint8)
    digits = np.stack([_pack_digits(raised >> 4), _pack_digits(raised & 15)], axis=1)
    constant = -(_LEVELS - 1) / 2 * scale * rounded.sum(axis=1)
    # Rounding adds the error of a uniform variable to each factor.
    squares = np.einsum("bd,bd->b", across, across)
    error = np.sqrt(_STEP_ERROR**2 * squares + across.shape[1] * _STEP**-2 / 12 * scale**2)
    numbers = zip(scale, constant, centre_scores, error, strict=True)
    return [CodeQuery(rows, *map(float, each)) for rows, each in zip(digits, numbers, strict=True)]

"""Four-bit codes of region vectors, for a fast first pass.

A code holds four bits per dimension of a rotated vector (`quantisation.rotate`), at a scale of its own. Each
vector's component along the mean direction of its block, for CLIP most of the vector, is removed beforehand
and kept as a number. The scale makes the estimate of a cosine unbiased, and the estimate's error is known, as
in RaBitQ (Gao et al., "Practical and asymptotically optimal quantization of high-dimensional vectors", SIGMOD
2025). Codes are compared with a query by integer products of SIMD instructions (NumKong).

One bit per dimension, as in the first RaBitQ, is too few for texts: the cosines of a text with all regions
spread by little more than the error of such an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numkong
import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray
from matir_cli.search.quantisation import TOP_LEVEL, Int8Array, rotate

_LEVELS = 16
"""Values of a dimension: -7.5, -6.5, ..., 7.5 steps."""

_STEP = 0.3352
"""Step, in standard deviations, of the optimal uniform quantiser of a normal variable with 16 levels, and its
error: Max, "Quantizing for minimum distortion", 1960."""

_STEP_ERROR = 0.01154**0.5 / _STEP
"""Standard deviation of the error of a dimension, in steps."""

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
    """(n, ceil(d / 2)). The high half of byte j is dimension j in two's complement, -8..7 for -7.5..7.5; the
    low half is dimension j + ceil(d / 2), 0..15 for -7.5..7.5."""

    @staticmethod
    def size(count: int, dimensions: int) -> int:
        """Return the size in bytes of the codes of `count` vectors."""
        return count * (_SCALES + row_bytes(dimensions))

    def tobytes(self) -> bytes:
        """Return `along` and `spread` as little-endian float32, then `levels`: what `read_scales` reads."""
        return np.stack([self.along, self.spread]).astype("<f4").tobytes() + self.levels.tobytes()


def row_bytes(dimensions: int) -> int:
    """Return the number of bytes of a vector's levels."""
    return -(-dimensions // 2)


def scales_bytes(count: int) -> int:
    """Return the number of bytes before the levels of `count` vectors."""
    return _SCALES * count


def read_scales(blob: bytes) -> tuple[FloatArray, FloatArray]:
    """Return `along` and `spread`, (n,) each, from the first `scales_bytes(n)` bytes of codes."""
    along, spread = np.frombuffer(blob, "<f4").reshape(2, -1)
    return along, spread


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
    d = rest.shape[1]
    square = np.einsum("nd,nd->n", rest, rest)
    step = np.maximum(_STEP * np.sqrt(square / d), np.finfo(np.float32).tiny)
    level = np.clip(np.floor(rest / step[:, np.newaxis]), -_LEVELS // 2, _LEVELS // 2 - 1)
    explained = np.einsum("nd,nd->n", level + np.float32(0.5), rest)
    spread = np.divide(square, explained, out=np.zeros_like(square), where=explained > 0)
    half = row_bytes(d)
    packed = (level[:, :half].astype(np.int8) << 4).view(np.uint8)
    packed[:, : d - half] |= (level[:, half:] + _LEVELS // 2).astype(np.uint8)
    return centre, Codes(along, spread, packed)


@dataclass(frozen=True, slots=True)
class CodeQuery:
    """A query prepared for one block of codes.

    With the bytes of a code read as int8, b, and their low halves, l, the sum over all dimensions of level
    times query is that of b times `whole` plus l times `low`, each at its scale, plus a constant.
    """

    whole: NDArray[np.int8]
    """(ceil(d / 2),) factors of the bytes."""
    low: NDArray[np.int8]
    """(ceil(d / 2),) factors of the low halves."""
    whole_scale: float
    low_scale: float
    constant: float
    centre_score: float
    """Inner product of query and centre."""
    error: float
    """Standard deviation of the estimate's error for a vector whose `spread` is 1."""

    def upper_bounds(
        self, codes: Codes, low_halves: NDArray[np.uint8], deviations: float
    ) -> NDArray[np.float64]:
        """Return (n,): estimated cosines plus `deviations` standard deviations of their errors.

        Args:
            low_halves: `codes.levels & 15`, which is the same for all queries.
        """
        bounds = np.asarray(numkong.dot(codes.levels.view(np.int8), self.whole), np.float64)
        bounds *= self.whole_scale
        bounds += self.low_scale * np.asarray(numkong.dot(low_halves.view(np.int8), self.low), np.float64)
        bounds += self.constant + deviations * self.error
        bounds *= codes.spread
        bounds += codes.along * np.float32(self.centre_score)
        return bounds


def prepare_query(query: FloatArray, centres: FloatArray) -> list[CodeQuery]:
    """Prepare the (d,) `query`, in the encoder's frame, for each block, given the blocks' (b, d) centres."""
    turned = rotate(query[np.newaxis])[0]
    turned /= np.linalg.norm(turned)
    centre_scores = centres @ turned
    across = turned - centre_scores[:, np.newaxis] * centres  # (b, d)
    half = row_bytes(query.size)
    high, low = across[:, :half], np.zeros((len(across), half), np.float32)
    low[:, : query.size - half] = across[:, half:]
    # A byte, b = 16 h + l, stands for the levels h + 0.5 = (b + 0.5 - (l - 7.5)) / 16 and l - 7.5.
    whole, whole_scale = _round(high / _LEVELS)
    rest, low_scale = _round(low - high / _LEVELS)
    constant = 0.5 * whole_scale * whole.sum(axis=1) - 7.5 * low_scale * rest.sum(axis=1)
    # Rounding to int8 adds the error of a uniform variable to each factor.
    squares = np.einsum("bd,bd->b", across, across)
    levels = half * (_STEP**-2) / 12 * ((_LEVELS * whole_scale) ** 2 + low_scale**2)
    error = np.sqrt(_STEP_ERROR**2 * squares + levels)
    numbers = zip(whole_scale, low_scale, constant, centre_scores, error, strict=True)
    return [
        CodeQuery(w.astype(np.int8), r.astype(np.int8), *map(float, each))
        for w, r, each in zip(whole, rest, numbers, strict=True)
    ]


def _round(factors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (b, n) integers -127..127 and the (b,) scales that make (b, n) `factors` of them, rounded."""
    scale = np.abs(factors).max(axis=1) / TOP_LEVEL
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    return np.asarray(np.rint(factors / scale[:, np.newaxis])), scale

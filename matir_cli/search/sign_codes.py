"""Sign codes: one bit per dimension of a region's vector, for a fast first pass.

The codes and the error of their estimates follow RaBitQ (Gao and Long, SIGMOD 2024) with one difference:
each vector's component along the mean direction of its block, for CLIP most of the vector, is removed
beforehand and kept as a number. Codes are made of rotated vectors (`quantisation.rotate`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray
from matir_cli.search.quantisation import Int8Array, rotate

QUERY_PLANES = 2
"""Bits per dimension of a query that is compared with sign codes. If nothing in a gallery stands out, one bit
leaves three times as many vectors to score, and a third bit saves only a quarter of them."""

_PLANE_STEP = 0.9957
"""Step, in standard deviations, of the optimal uniform two-bit quantiser of a normal variable
(Max, "Quantizing for minimum distortion", 1960)."""

VECTORS_AT_ONCE = 8192
"""Codes compared at once: the intermediate results still fit a core's cache."""

_SIGN_VARIANCE = 1.0 - 2.0 / np.pi
"""Fraction of a rotated vector's squared length that its signs, optimally scaled, leave unexplained."""


@dataclass(frozen=True, slots=True)
class SignCodes:
    """Sign codes of a block of n vectors: one bit per dimension, and two numbers per vector.

    Vector i is `along[i]` * centre plus a rest orthogonal to the centre; the rest is estimated as
    `spread[i]` * (its signs, +1 or -1).
    """

    words: NDArray[np.uint64]
    """(ceil(d / 64), n), column-wise: word w of all vectors side by side. Unused bits are 0."""
    along: FloatArray
    """(n,) float32, component along the block's centre."""
    spread: FloatArray
    """(n,) float32, factor of the signs that makes the estimate unbiased."""

    @staticmethod
    def size(count: int, dimensions: int) -> int:
        """Return the size in bytes of the codes of `count` vectors."""
        return count * (8 * _words(dimensions) + 8)

    @classmethod
    def over(cls, buffer: NDArray[np.uint8], count: int, dimensions: int) -> SignCodes:
        """Read the codes in the first `size(count, dimensions)` bytes of `buffer`, without copying them."""
        split = 8 * _words(dimensions) * count
        words = buffer[:split].view(np.uint64).reshape(_words(dimensions), count)
        floats = buffer[split : split + 8 * count].view("<f4").reshape(2, count)
        return cls(words, floats[0], floats[1])

    def tobytes(self) -> bytes:
        """Return the bytes that `over` reads: `words`, then `along` and `spread` as little-endian float32."""
        floats = np.stack([self.along, self.spread]).astype("<f4")
        return self.words.tobytes() + floats.tobytes()


def encode_signs(stored: Int8Array) -> tuple[FloatArray, SignCodes]:
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
    total = np.abs(rest).sum(axis=1)
    square = np.einsum("nd,nd->n", rest, rest)
    spread = np.divide(square, total, out=np.zeros_like(total), where=total > 0)
    return centre, SignCodes(_pack(rest > 0), along, spread)


@dataclass(frozen=True, slots=True)
class SignQuery:
    """A query prepared for one block of sign codes: one odd integer per dimension, as bit planes.

    With P planes the integers range from -(2**P - 1) to 2**P - 1. Multiplied by `scale` they approximate
    the rotated query without its component along the block's centre.
    """

    planes: NDArray[np.uint64]
    """(P, ceil(d / 64)), least significant plane first; a bit of plane p means +2**p if set, else -2**p."""
    dimensions: int
    centre_score: float
    """Inner product of query and centre."""
    scale: float
    """Factor of the integers."""
    error: float
    """Standard deviation of the estimate's error for a vector whose `spread` is 1."""

    def upper_bounds(self, codes: SignCodes, deviations: float) -> FloatArray:
        """Return (n,) float32: estimated cosines plus `deviations` standard deviations of their errors."""
        count = codes.along.size
        starts = range(0, count, VECTORS_AT_ONCE)
        parts = [self._differing(codes.words[:, at : at + VECTORS_AT_ONCE]) for at in starts]
        differing = np.concatenate(parts)
        # In plane p, a bit that agrees counts +2**p and a bit that differs -2**p.
        agreeing = self.dimensions * (2 ** len(self.planes) - 1)
        bounds = differing * np.float32(-2 * self.scale)
        bounds += np.float32(agreeing * self.scale + deviations * self.error)
        bounds *= codes.spread
        bounds += codes.along * np.float32(self.centre_score)
        return bounds

    def _differing(self, words: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """Count in (ceil(d / 64), n) words the bits that differ from the planes: (n,), plane p times 2**p."""
        total = np.zeros(words.shape[1], np.uint16)
        for plane in self.planes[::-1]:  # from the most significant: double the sum, then add
            bits = np.bitwise_count(words ^ plane[:, np.newaxis])
            total <<= np.uint16(1)
            total += np.add.reduce(bits, axis=0, dtype=np.uint16)
        return total


def sign_queries(query: FloatArray, centres: FloatArray) -> list[SignQuery]:
    """Prepare the (d,) `query`, in the encoder's frame, for each block, given the blocks' (b, d) centres."""
    turned = rotate(query[np.newaxis])[0]
    turned /= np.linalg.norm(turned)
    centre_scores = centres @ turned
    across = turned - centre_scores[:, np.newaxis] * centres  # (b, d)
    top = 2**QUERY_PLANES
    step = _PLANE_STEP * np.sqrt(np.mean(across**2, axis=1, keepdims=True))
    step = np.maximum(step, np.finfo(np.float32).tiny)
    level = np.clip(np.floor(across / step), -top // 2, top // 2 - 1) + top // 2  # 0 .. top - 1
    odd = 2 * level - (top - 1)
    # This scale, unlike that of the least-squares fit, leaves estimates unbiased: <scale * odd, across> is
    # exactly |across|**2.
    scale = np.sum(across**2, axis=1) / np.sum(odd * across, axis=1)
    missed = np.sum((across - scale[:, np.newaxis] * odd) ** 2, axis=1)
    error = np.sqrt(_SIGN_VARIANCE * np.sum(across**2, axis=1) + missed)
    bits = level.astype(np.uint8) >> np.arange(QUERY_PLANES, dtype=np.uint8)[:, np.newaxis, np.newaxis] & 1
    packed = np.stack([_pack(plane).T for plane in bits], axis=1)  # (b, P, words)
    numbers = zip(packed, centre_scores.tolist(), scale.tolist(), error.tolist(), strict=True)
    return [SignQuery(p, query.size, along, size, deviation) for p, along, size, deviation in numbers]


def _words(dimensions: int) -> int:
    return -(-dimensions // 64)


def _pack(bits: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Pack (n, d) bits into (ceil(d / 64), n) words; any bit order will do as long as it is fixed."""
    count, dimensions = bits.shape
    packed = np.zeros((count, 8 * _words(dimensions)), np.uint8)
    packed[:, : -(-dimensions // 8)] = np.packbits(bits, axis=1)
    return np.ascontiguousarray(packed.view(np.uint64).T)

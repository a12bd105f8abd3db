"""Region vectors as int8: a fixed rotation, quantisation, and cosines of quantised vectors.

Vectors are rotated before they are quantised. CLIP's vectors have a few dimensions far larger than the
others, which would leave the others hardly any of the eight bits. A rotation spreads them evenly over all
dimensions and keeps all cosines. It consists of random signs and Walsh-Hadamard transforms, as in "The
fast Johnson-Lindenstrauss transform" (Ailon and Chazelle, 2009), and depends on no data: a vector always
gets the same stored form.
"""

from __future__ import annotations

import math
from functools import cache
from hashlib import shake_256

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray

ROTATION_ROUNDS = 4
"""Rounds of the rotation, in turn over head and tail of a vector: each dimension reaches all others."""

TOP_LEVEL = 127
"""Largest level of a stored vector; -128 is left out, so that the levels are symmetric."""

QUERY_LEVEL = 32767
"""Largest level of a query in `cosines`, where the query's own rounding must not matter."""

RESIDUAL_STEPS = 16
"""Values of a residual: a level is known to a sixteenth."""

ROWS_AT_ONCE = 256
"""Vectors converted at once: as float64 they still fit a core's cache."""

_ODD_STEPS = (2 * np.stack(np.divmod(np.arange(256), 16), axis=1) - 15).astype(np.int16).view(np.int32)[:, 0]
"""(256,) by byte of a residual: its two values in units of 1/32 level, int16, side by side."""

Int8Array = NDArray[np.int8]
"""Stored vectors: (n, d) levels of -127..127 in the rotated frame, each row at a scale of its own."""

ResidualArray = NDArray[np.uint8]
"""What rounding to int8 leaves of stored vectors: (n, ceil(d / 2)), 4 bits per dimension."""


def rotate(vectors: FloatArray) -> FloatArray:
    """Rotate (n, d) float32 vectors by an orthonormal map that depends on d alone; return a new array.

    It uses only sums, differences and products with constants in a fixed order, so the result is the same
    to the last bit on any machine.
    """
    turned = vectors.astype(np.float32)
    d = turned.shape[1]
    width = 1 << (d.bit_length() - 1)  # the largest power of two that fits
    for number in range(ROTATION_ROUNDS):
        turned *= _signs(d, number)
        part = turned[:, :width] if number % 2 == 0 else turned[:, d - width :]
        part[...] = _hadamard(part)
    return turned


def quantise(vectors: FloatArray) -> Int8Array:
    """Quantise (n, d) float32 vectors of any length but zero to (n, d) int8, the form they are stored in.

    Each rotated vector is scaled so that its largest absolute value becomes 127, and rounded. The scale is
    not kept, since only cosines are compared.

    Raises:
        ValueError: a vector holds a value that is not finite, or only zeros.
    """
    return _levels(vectors, TOP_LEVEL).astype(np.int8)


def restore(stored: Int8Array) -> FloatArray:
    """Undo `quantise` as far as int8 permits: return (n, d) float32 of unit length in the encoder's frame.

    Raises:
        ValueError: a stored vector is all zeros.
    """
    turned = stored.astype(np.float32)
    lengths = np.linalg.norm(turned, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError("a vector of zeros has no direction")
    turned /= lengths
    d = turned.shape[1]
    width = 1 << (d.bit_length() - 1)
    for number in reversed(range(ROTATION_ROUNDS)):  # `rotate` backwards: each step is its own inverse
        part = turned[:, :width] if number % 2 == 0 else turned[:, d - width :]
        part[...] = _hadamard(part)
        turned *= _signs(d, number)
    return turned


def quantise_finely(vectors: FloatArray) -> tuple[Int8Array, ResidualArray]:
    """Quantise (n, d) float32 vectors as `quantise` does, and what it rounds off: (n, ceil(d / 2)) uint8.

    A residual, -0.5..0.5 levels, is kept in 4 bits as one of the values -15/32, -13/32, ..., 15/32. The
    dimensions 2i and 2i + 1 are the high and the low half of byte i.

    Raises:
        ValueError: as `quantise`.
    """
    exact = _scaled(vectors, TOP_LEVEL)
    levels = np.rint(exact)
    count, d = exact.shape
    steps = np.full((count, d + d % 2), RESIDUAL_STEPS // 2, np.uint8)
    steps[:, :d] = np.clip(np.floor((exact - levels + 0.5) * RESIDUAL_STEPS), 0, RESIDUAL_STEPS - 1)
    return levels.astype(np.int8), np.asarray(steps[:, ::2] << 4 | steps[:, 1::2])


def refine(stored: Int8Array, residuals: ResidualArray) -> NDArray[np.int16]:
    """Add residuals to stored vectors: return (n, d) int16 in units of 1/32 level, for `cosines`."""
    levels = np.empty(stored.shape, np.int16)
    for start in range(0, len(levels), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        levels[part] = unrefined(stored[part])
        levels[part] += _ODD_STEPS[residuals[part]].view(np.int16)[:, : stored.shape[1]]
    return levels


def unrefined(stored: Int8Array) -> NDArray[np.int16]:
    """Return (n, d) stored vectors in the units of `refine`, for those whose residuals are not known."""
    return np.multiply(stored, np.int16(2 * RESIDUAL_STEPS), dtype=np.int16)


def rounding_error(dimensions: int) -> float:
    """Return the standard deviation of the error that quantising a query and a vector causes in their cosine.

    The rounding error of a level is uniform, and has no preferred direction in the rotated frame. The largest
    of a rotated vector's d values is taken to be four times their root mean square: in practice it is less.
    """
    step = 4.0 / math.sqrt(dimensions) / TOP_LEVEL
    return step * math.sqrt(2 / 12)


def cosines(stored: Int8Array | NDArray[np.int16], query: FloatArray) -> NDArray[np.float64]:
    """Return the (n,) float64 cosines of (n, d) stored vectors with the (d,) `query`, rounded to 16 bits.

    The vectors may be those of `quantise` or of `refine`.

    Dot products are sums of integers below 2 ** 53, so equal vectors have equal scores regardless of the
    other rows and the machine.

    Raises:
        ValueError: the query holds a value that is not finite, or only zeros.
    """
    return np.asarray(cosine_table(stored, query[np.newaxis])[0])


def cosine_table(stored: Int8Array | NDArray[np.int16], queries: FloatArray) -> NDArray[np.float64]:
    """Return the (k, n) float64 cosines of (n, d) stored vectors with (k, d) `queries`, as `cosines` does."""
    return level_cosines(stored, query_levels(queries))


def query_levels(queries: FloatArray) -> NDArray[np.float64]:
    """Return (k, d) `queries` as `level_cosines` takes them: rotated, and rounded to 16 bits.

    Raises:
        ValueError: a query holds a value that is not finite, or only zeros.
    """
    return _levels(queries, QUERY_LEVEL).astype(np.float64)


def level_cosines(stored: Int8Array | NDArray[np.int16], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (k, n) float64 cosines of (n, d) stored vectors with the queries of `query_levels`."""
    scores = np.empty((len(levels), len(stored)))
    for start in range(0, len(stored), ROWS_AT_ONCE):
        rows = stored[start : start + ROWS_AT_ONCE].astype(np.float64)
        scores[:, start : start + len(rows)] = levels @ rows.T / np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return np.asarray(scores / np.sqrt(np.einsum("kd,kd->k", levels, levels))[:, np.newaxis])


def _levels(vectors: FloatArray, top: int) -> FloatArray:
    """Return (n, d) integers -top..top: the rotated vectors, each scaled by its largest absolute value."""
    return np.asarray(np.rint(_scaled(vectors, top)))


def _scaled(vectors: FloatArray, top: int) -> FloatArray:
    """Return (n, d) float32 -top..top: as `_levels`, not rounded."""
    if not np.isfinite(vectors).all():
        raise ValueError("a vector holds a value that is not finite")
    turned = rotate(vectors)
    largest = np.abs(turned).max(axis=1, keepdims=True, initial=0.0)
    if not largest.all():
        raise ValueError("a vector of zeros has no direction")
    return np.asarray(turned * (top / largest))


def _hadamard(rows: FloatArray) -> FloatArray:
    """Apply the orthonormal Walsh-Hadamard transform to (n, width) rows, width a power of two."""
    count, width = rows.shape
    columns = np.ascontiguousarray(rows.T)  # so that each step works on long rows
    half = 1
    while half < width:
        pairs = columns.reshape(width // (2 * half), 2, half, count)
        turned = np.empty_like(pairs)
        np.add(pairs[:, 0], pairs[:, 1], out=turned[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=turned[:, 1])
        columns = turned
        half *= 2
    return columns.reshape(width, count).T * np.float32(width**-0.5)


@cache
def _signs(dimensions: int, number: int) -> FloatArray:
    """Return (d,) float32 of +1 and -1, taken from a hash so that they never change."""
    stream = shake_256(b"matir-cli rotation %d %d" % (dimensions, number)).digest(-(-dimensions // 8))
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=dimensions)
    return np.where(bits, np.float32(1), np.float32(-1))

"""How a region's vector is stored: eight bits a dimension, and one more, its sign, for a quick first look.

Both forms are made of the *rotated* vector. CLIP's vectors have a few dimensions far larger
than the rest, which would leave the others hardly any of their bits, and signs of dimensions
that always lean one way tell nothing. A fixed random rotation spreads both evenly; it keeps
all cosines. It is made of random signs and Walsh-Hadamard transforms, as in "Fast Johnson-
Lindenstrauss" (Ailon and Chazelle, 2009), never of data, so that one vector always gets one form.

The sign codes and the error of what they estimate follow RaBitQ (Gao and Long, SIGMOD 2024),
with one difference: the common direction of a block's vectors, which for CLIP is most of each
vector, is taken out beforehand and kept as a number.
"""

from __future__ import annotations

import math
from functools import cache
from hashlib import shake_256

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray

ROTATION_ROUNDS = 4
"""Two over the head of a vector and two over its tail, in turn: each dimension reaches all others."""

TOP_LEVEL = 127
"""Largest level of a stored vector; -128 is left out, so that the levels are symmetric."""

QUERY_LEVEL = 32767
"""Largest level of a query in the final score, where its own rounding must not count."""

Int8Array = NDArray[np.int8]


def rotate(vectors: FloatArray) -> FloatArray:
    """(n, d) float32 in the rotated frame: an orthonormal map that depends on d alone.

    Only sums, differences and one product a round, in a fixed order: the same bits on any machine.
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
    """(n, d) levels -127..127 of (n, d) float32 vectors of any length: what is stored of them.

    A level is a rotated value in 127ths of its vector's largest. The scale itself is not kept:
    what is compared is cosines.

    Raises:
        ValueError: a vector holds a value that is not finite, or nothing but zeros.
    """
    return _levels(vectors, TOP_LEVEL).astype(np.int8)


def restore(stored: Int8Array) -> FloatArray:
    """(n, d) float32 of unit length in the encoder's own frame, as near as eight bits keep it.

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
    for number in reversed(range(ROTATION_ROUNDS)):  # `rotate` backwards: both its steps undo themselves
        part = turned[:, :width] if number % 2 == 0 else turned[:, d - width :]
        part[...] = _hadamard(part)
        turned *= _signs(d, number)
    return turned


def rounding_error(query: FloatArray) -> float:
    """Standard deviation of what quantising the (d,) `query` shifts its cosine with a stored vector by.

    A level's rounding error is uniform, and points any way in the rotated frame.
    """
    turned = rotate(query[np.newaxis])
    step = float(np.abs(turned).max() / np.linalg.norm(turned)) / TOP_LEVEL
    return step * math.sqrt(1 / 12)


def cosines(stored: Int8Array, query: FloatArray) -> NDArray[np.float64]:
    """(n,) cosine of (n, d) stored vectors with the (d,) `query`, which is hardly rounded.

    All products and sums are of whole numbers below 2 ** 53, so that equal vectors have equal
    scores whatever stands beside them, on any machine.
    """
    asked = _levels(query[np.newaxis], QUERY_LEVEL)[0].astype(np.float64)
    rows = stored.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows) * (asked @ asked))
    return np.asarray(rows @ asked / lengths)


def _levels(vectors: FloatArray, top: int) -> FloatArray:
    """(n, d) whole numbers -top..top: the rotated vectors, each scaled by its own largest value."""
    if not np.isfinite(vectors).all():
        raise ValueError("a vector holds a value that is not finite")
    turned = rotate(vectors)
    largest = np.abs(turned).max(axis=1, keepdims=True, initial=0.0)
    if not largest.all():
        raise ValueError("a vector of zeros has no direction")
    return np.asarray(np.rint(turned * (top / largest)))


def _hadamard(rows: FloatArray) -> FloatArray:
    """The orthonormal Walsh-Hadamard transform of (n, width) rows, width a power of two."""
    count, width = rows.shape
    half = 1
    while half < width:
        pairs = rows.reshape(count, width // (2 * half), 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        rows = np.stack([left + right, left - right], axis=2)
        half *= 2
    return rows.reshape(count, width) * np.float32(width**-0.5)


@cache
def _signs(dimensions: int, number: int) -> FloatArray:
    """(d,) of +1 and -1, from a hash: the same for ever."""
    stream = shake_256(b"matir-cli rotation %d %d" % (dimensions, number)).digest(-(-dimensions // 8))
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=dimensions)
    return np.where(bits, np.float32(1), np.float32(-1))

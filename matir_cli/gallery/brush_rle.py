"""Label Studio's run-length encoding of brush masks: bits of an RGBA picture, row by row.

Format: thi.ng/rle-pack, which Label Studio's frontend uses and `label_studio_sdk.converter.brush` reads: 32
bits number of values, 5 bits word size - 1, 4 times 4 bits size of a count - 1, then blocks. A block is a bit
that says whether its values are equal, 2 bits which size its count has, the count - 1, and its value or
values. The mask is the alpha channel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import MaskArray

CHANNELS = 4

WORD_BITS = 8

COUNT_BITS = (3, 4, 8, 16)
"""Sizes of counts that are written."""

OPAQUE = 128
"""Least alpha, 0..255, of a pixel inside the mask: brushes have soft edges."""

LONGEST_RUN = 1 << COUNT_BITS[-1]
"""Values in a block at most."""


def encode_brush(mask: MaskArray) -> list[int]:
    """Encode a (h, w) bool mask: bytes as a list of integers, as they stand in Label Studio's JSON."""
    flat = np.ascontiguousarray(mask).ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = (np.diff(starts, append=flat.size) * CHANNELS).tolist()
    bits = [f"{flat.size * CHANNELS:032b}{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in COUNT_BITS)]
    value = bool(flat[0])
    for length in lengths:
        word = "1" * WORD_BITS if value else "0" * WORD_BITS
        for start in range(0, length, LONGEST_RUN):
            part = min(length - start, LONGEST_RUN)
            which = next(number for number, size in enumerate(COUNT_BITS) if part <= 1 << size)
            bits.append(f"1{which:02b}{part - 1:0{COUNT_BITS[which]}b}{word}")
        value = not value
    joined = "".join(bits)
    padded = joined + "0" * (8 - len(joined) % 8)
    return [*np.packbits(np.frombuffer(padded.encode(), np.uint8) - ord("0")).tolist()]


def decode_brush(encoded: bytes, width: int, height: int) -> MaskArray:
    """Decode the mask of a picture of `width` x `height` pixels: (height, width) bool.

    Raises:
        ValueError: it is no such encoding, of another size, or cut off.
    """
    bits = _Bits(encoded)
    total = bits.read(32)
    if total != width * height * CHANNELS:
        raise ValueError(f"a brush mask of {total} values for a picture of {width} x {height} pixels")
    if bits.read(5) + 1 != WORD_BITS:
        raise ValueError("a brush mask of words that are no bytes")
    sizes = [bits.read(4) + 1 for _ in range(4)]
    alpha = np.zeros(width * height, np.uint8)
    at = 0
    while at < total:
        is_run, which = bits.read(1), bits.read(2)
        end = at + bits.read(sizes[which]) + 1
        if end > total:
            raise ValueError("a brush mask of too many values")
        # Of the values at, at + 1, ..., end - 1, the alphas are those at 4 i + 3.
        first, past = at // CHANNELS, end // CHANNELS
        if is_run:
            alpha[first:past] = bits.read(WORD_BITS)
        else:
            values = bits.read_bytes(end - at)
            alpha[first:past] = values[CHANNELS * first + CHANNELS - 1 - at :: CHANNELS]
        at = end
    return np.asarray(alpha >= OPAQUE).reshape(height, width)


class _Bits:
    """A stream of bits, the highest bit of each byte first."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def read(self, count: int) -> int:
        """Return the next bits, at most 32, as a number."""
        return int.from_bytes(self._take(count)) >> (-self._at % 8) & ((1 << count) - 1)

    def read_bytes(self, count: int) -> NDArray[np.uint8]:
        """Return the next (count,) bytes, which need not begin at a byte."""
        shift = self._at % 8
        raw = np.frombuffer(self._take(8 * count), np.uint8)
        if not shift:
            return raw
        return np.asarray(raw[:-1] << shift | raw[1:] >> (8 - shift))

    def _take(self, bits: int) -> bytes:
        """Return the bytes that hold the next bits, and go on behind these."""
        start, self._at = self._at, self._at + bits
        if self._at > 8 * len(self._content):
            raise ValueError("a brush mask that is cut off")
        return self._content[start // 8 : -(-self._at // 8)]

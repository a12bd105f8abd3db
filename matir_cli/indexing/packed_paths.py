"""Many paths in little memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

_LENGTH_BYTES = 4
"""Bytes of the number before each path: its length."""

_READ_AT_ONCE = 1 << 16
"""Packed bytes that are unpacked at a time."""


class PackedPaths:
    """A list of paths that grows at its end, compressed: of a folder's files, some ten bytes each."""

    def __init__(self) -> None:
        """Start with none."""
        self._compressor = zlib.compressobj(1)
        self._packed = bytearray()
        self._count = 0

    def __len__(self) -> int:
        """Return the number of paths."""
        return self._count

    @property
    def packed_bytes(self) -> int:
        """Size in memory."""
        return len(self._packed)

    def append(self, path: Path) -> None:
        """Add a path."""
        name = os.fsencode(path)
        self._packed += self._compressor.compress(len(name).to_bytes(_LENGTH_BYTES) + name)
        self._count += 1

    def __iter__(self) -> Iterator[Path]:
        """Yield the paths in their order; none must be added meanwhile."""
        self._packed += self._compressor.flush(zlib.Z_SYNC_FLUSH)
        unpack = zlib.decompressobj().decompress
        rest = b""
        for start in range(0, len(self._packed), _READ_AT_ONCE):
            rest += unpack(self._packed[start : start + _READ_AT_ONCE])
            at = 0
            while len(rest) - at >= _LENGTH_BYTES:
                first = at + _LENGTH_BYTES
                end = first + int.from_bytes(rest[at:first])
                if end > len(rest):
                    break
                yield Path(os.fsdecode(rest[first:end]))
                at = end
            rest = rest[at:]

"""Tensors of a .safetensors file, mapped into memory: only what is read is ever loaded.

The library's own reader copies each tensor; a text tower of 340 MB is ready sooner
without. Format: https://github.com/huggingface/safetensors#format: the length of the
header (8 bytes, little-endian), a JSON header of name to dtype, shape and offsets, the bytes.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import CheckpointInvalid
from matir_cli.records import FloatArray

_HEADER_LIMIT = 16 * 1024 * 1024

_STORED: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class NamedTensors(Protocol):
    """Tensors by name, each checked as it is asked for."""

    @property
    def path(self) -> Path:
        """Where they are from, for errors."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """As `MappedTensors.shape`."""
        ...

    def read(self, name: str, *shape: int) -> FloatArray:
        """As `MappedTensors.read`."""
        ...

    def rows(self, name: str, shape: tuple[int, int], index: NDArray[np.intp]) -> FloatArray:
        """As `MappedTensors.rows`."""
        ...


class MappedTensors:
    """A .safetensors file from a stranger: every offset is checked before it is followed."""

    def __init__(self, path: Path) -> None:
        """Map the file at `path` and read its header.

        Raises:
            CheckpointInvalid: no such file, or not a .safetensors file.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
        except ValueError as error:
            raise CheckpointInvalid(path, "the file is empty") from error
        header = int.from_bytes(self._bytes[:8], "little")
        self._start = 8 + header
        if header > _HEADER_LIMIT or self._start > len(self._bytes):
            raise CheckpointInvalid(path, "not a safetensors file")
        try:
            # Entries are checked one by one as they are asked for: most belong to the other tower.
            self._entries = msgspec.json.decode(self._bytes[8 : self._start], type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CheckpointInvalid(path, "not a safetensors file") from error

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._entries if name != "__metadata__")

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor `name`.

        Raises:
            CheckpointInvalid: it is not there, or is malformed.
        """
        return self._entry(name).shape

    def read(self, name: str, *shape: int) -> FloatArray:
        """Tensor `name` as float32: a view of the file if it is stored so, else a copy.

        Raises:
            CheckpointInvalid: it is not there, is malformed, or does not have `shape`.
        """
        return _float32(self._stored(name, shape))

    def rows(self, name: str, shape: tuple[int, int], index: NDArray[np.intp]) -> FloatArray:
        """(len(index), shape[1]) float32: the given rows of a matrix; the others are not touched.

        Raises:
            CheckpointInvalid: it is not there, is malformed, or does not have `shape`.
        """
        return _float32(self._stored(name, shape)[index])

    def _entry(self, name: str) -> _Entry:
        try:
            return msgspec.json.decode(self._entries[name], type=_Entry)
        except KeyError as error:
            raise CheckpointInvalid(self.path, f"{name} is missing") from error
        except msgspec.DecodeError as error:
            raise CheckpointInvalid(self.path, f"{name} has a malformed header") from error

    def _stored(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        entry = self._entry(name)
        if entry.shape != shape:
            raise CheckpointInvalid(
                self.path, f"{name} has shape {list(entry.shape)}, expected {list(shape)}"
            )
        if entry.dtype not in _STORED:
            raise CheckpointInvalid(self.path, f"{name} is {entry.dtype}, expected {', '.join(_STORED)}")
        dtype = _STORED[entry.dtype]
        begin, end = entry.data_offsets
        if not 0 <= begin <= end <= len(self._bytes) - self._start:
            raise CheckpointInvalid(self.path, f"{name} lies outside the file")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise CheckpointInvalid(self.path, f"{name} has {end - begin} bytes, too many or too few")
        try:
            return np.frombuffer(self._bytes, dtype, math.prod(shape), self._start + begin).reshape(shape)
        except ValueError as error:  # a length below zero, or more axes than an array can have
            raise CheckpointInvalid(self.path, f"{name} has the shape {list(shape)}") from error


def _float32(stored: NDArray[Any]) -> FloatArray:
    if stored.dtype == np.uint16:
        # bfloat16 is the upper half of a float32.
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)

"""Memory-mapped reader of .safetensors files: loads only the tensors that are read.

The safetensors library copies each tensor; without copies a text tower of 340 MB is ready sooner.
Format (https://github.com/huggingface/safetensors#format): the length of the header (8 bytes,
little-endian), a JSON header of name to dtype, shape and offsets, then the tensors' bytes.
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
"""Bytes; a longer header is refused."""

_AXES_LIMIT = 32

_JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Exceptions for bytes that are not JSON of the expected form."""

_STORED_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
"""Dtypes to read from the file; numpy has no bfloat16, so its bits are read as uint16."""


class _HeaderEntry(msgspec.Struct, frozen=True):
    """One tensor in the file's header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]
    """First byte and end, counted from the end of the header."""


class NamedTensors(Protocol):
    """Tensors by name, each checked when it is read."""

    @property
    def path(self) -> Path:
        """File that the tensors are from, for error messages."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """See `MappedTensors.shape`."""
        ...

    def read(self, name: str, *shape: int) -> FloatArray:
        """See `MappedTensors.read`."""
        ...

    def read_rows(self, name: str, shape: tuple[int, int], index: NDArray[np.intp]) -> FloatArray:
        """See `MappedTensors.read_rows`."""
        ...


class MappedTensors:
    """An untrusted .safetensors file, mapped into memory; every offset is checked before use."""

    def __init__(self, path: Path) -> None:
        """Map the file at `path` and read its header.

        Raises:
            CheckpointInvalid: the file is missing, or not a .safetensors file.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
        except ValueError as error:
            raise CheckpointInvalid(path, "the file is empty") from error
        header_length = int.from_bytes(self._bytes[:8], "little")
        self._start = 8 + header_length
        if header_length > _HEADER_LIMIT or self._start > len(self._bytes):
            raise CheckpointInvalid(path, "not a safetensors file")
        try:
            # Entries are checked one by one when their tensors are read: most belong to the other tower.
            self._entries = msgspec.json.decode(self._bytes[8 : self._start], type=dict[str, msgspec.Raw])
        except _JSON_ERRORS as error:
            raise CheckpointInvalid(path, "not a safetensors file") from error

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._entries if name != "__metadata__")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of tensor `name`.

        Raises:
            CheckpointInvalid: the tensor is missing, or its header entry is malformed.
        """
        return self._entry(name).shape

    def read(self, name: str, *shape: int) -> FloatArray:
        """Return tensor `name` as float32: a view of the file if it is stored as float32, else a copy.

        Raises:
            CheckpointInvalid: the tensor is missing, malformed, or does not have `shape`.
        """
        return _float32(self._stored_array(name, shape))

    def read_rows(self, name: str, shape: tuple[int, int], index: NDArray[np.intp]) -> FloatArray:
        """Return (len(index), shape[1]) float32: the rows `index` of a matrix; other rows are not read.

        Raises:
            CheckpointInvalid: the matrix is missing, malformed, or does not have `shape`.
        """
        return _float32(self._stored_array(name, shape)[index])

    def _entry(self, name: str) -> _HeaderEntry:
        """Return the header entry of tensor `name`; CheckpointInvalid if missing or malformed."""
        try:
            entry = msgspec.json.decode(self._entries[name], type=_HeaderEntry)
        except KeyError as error:
            raise CheckpointInvalid(self.path, f"{name} is missing") from error
        except _JSON_ERRORS as error:
            raise CheckpointInvalid(self.path, f"{name} has a malformed header") from error
        # More axes than an array can have would make a product of endless length.
        if len(entry.shape) > _AXES_LIMIT or min(entry.shape, default=0) < 0:
            raise CheckpointInvalid(self.path, f"{name} has the shape {list(entry.shape[:8])}")
        return entry

    def _stored_array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a view of tensor `name` in its stored dtype, after checking its header entry."""
        entry = self._entry(name)
        if entry.shape != shape:
            raise CheckpointInvalid(
                self.path, f"{name} has shape {list(entry.shape)}, expected {list(shape)}"
            )
        if entry.dtype not in _STORED_DTYPES:
            expected = ", ".join(_STORED_DTYPES)
            raise CheckpointInvalid(self.path, f"{name} is {entry.dtype}, expected {expected}")
        dtype = _STORED_DTYPES[entry.dtype]
        begin, end = entry.data_offsets
        if not 0 <= begin <= end <= len(self._bytes) - self._start:
            raise CheckpointInvalid(self.path, f"{name} lies outside the file")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise CheckpointInvalid(self.path, f"{name} has {end - begin} bytes, too many or too few")
        try:
            return np.frombuffer(self._bytes, dtype, math.prod(shape), self._start + begin).reshape(shape)
        except ValueError as error:  # a negative length, or more axes than an array can have
            raise CheckpointInvalid(self.path, f"{name} has the shape {list(shape)}") from error


def _float32(stored: NDArray[Any]) -> FloatArray:
    """Convert a stored array to float32, without a copy if it is float32 already."""
    if stored.dtype == np.uint16:
        # bfloat16 is the upper half of a float32.
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)

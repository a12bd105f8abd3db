"""Reader of GGUF headers: metadata and tensor shapes, without loading the model.

llama.cpp's own reader (`gguf.h`) does the parsing. It reads the header alone, so it accepts a truncated
file; this module also requires every tensor to lie within the file. llama.cpp does not check that for a
vision projector, and would compute with undefined weights.
"""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_cpp.llama_cpp import _lib

from matir_cli.errors import CheckpointInvalid

MAGIC = b"GGUF"

_UINT32, _BOOL, _STRING = 4, 7, 8
"""Value types (`enum gguf_type`) of the metadata that is read."""


class _InitParams(ctypes.Structure):
    """`struct gguf_init_params`; tensor data is read only if `ctx` is given."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


_SIGNATURES: dict[str, tuple[list[object], object]] = {
    "gguf_init_from_file": ([ctypes.c_char_p, _InitParams], ctypes.c_void_p),
    "gguf_free": ([ctypes.c_void_p], None),
    "gguf_get_data_offset": ([ctypes.c_void_p], ctypes.c_size_t),
    "gguf_get_n_kv": ([ctypes.c_void_p], ctypes.c_int64),
    "gguf_get_key": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_char_p),
    "gguf_get_kv_type": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_int),
    "gguf_get_val_u32": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_uint32),
    "gguf_get_val_bool": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_bool),
    "gguf_get_val_str": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_char_p),
    "gguf_get_n_tensors": ([ctypes.c_void_p], ctypes.c_int64),
    "gguf_get_tensor_offset": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t),
    "gguf_get_tensor_name": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_char_p),
    "gguf_get_tensor_ne": ([ctypes.c_void_p, ctypes.c_int64], ctypes.POINTER(ctypes.c_int64)),
    "gguf_get_tensor_size": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t),
}

for _name, (_arguments, _result) in _SIGNATURES.items():
    getattr(_lib, _name).argtypes = _arguments
    getattr(_lib, _name).restype = _result


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Header of one GGUF file, whose tensors all lie within the file."""

    texts: Mapping[str, str]
    """String values by key, such as "general.architecture"."""
    numbers: Mapping[str, int]
    """Unsigned 32-bit and boolean values by key."""
    shapes: Mapping[str, tuple[int, int, int, int]]
    """Extents of each tensor by name, fastest-varying axis first, 1 for an axis it does not have."""


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of the GGUF file at `path`.

    Raises:
        CheckpointInvalid: the file cannot be read, is not a GGUF file, has a damaged header, or ends
            before the end of its last tensor.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    if magic != MAGIC:
        raise CheckpointInvalid(path, "not a GGUF file")
    with _open_header(path) as handle:
        end = _tensors_end(handle)
        if end > size:
            raise CheckpointInvalid(path, f"cut short: {size} bytes of {end}")
        return GgufHeader(*_read_values(handle), _read_shapes(handle))


@contextmanager
def _open_header(path: Path) -> Iterator[int]:
    """Yield llama.cpp's handle to the parsed header, and free it afterwards."""
    handle = _lib.gguf_init_from_file(str(path).encode(), _InitParams(True, None))
    if not handle:
        raise CheckpointInvalid(path, "its header is damaged or cut short")
    try:
        yield handle
    finally:
        _lib.gguf_free(handle)


def _tensors_end(handle: int) -> int:
    """Return the offset of the first byte after the last tensor, from the start of the file."""
    ends = (
        _lib.gguf_get_tensor_offset(handle, number) + _lib.gguf_get_tensor_size(handle, number)
        for number in range(_lib.gguf_get_n_tensors(handle))
    )
    return int(_lib.gguf_get_data_offset(handle) + max(ends, default=0))


def _read_shapes(handle: int) -> dict[str, tuple[int, int, int, int]]:
    """Return extents by tensor name."""
    shapes: dict[str, tuple[int, int, int, int]] = {}
    for number in range(_lib.gguf_get_n_tensors(handle)):
        e0, e1, e2, e3 = _lib.gguf_get_tensor_ne(handle, number)[:4]
        shapes[_lib.gguf_get_tensor_name(handle, number).decode(errors="replace")] = (e0, e1, e2, e3)
    return shapes


def _read_values(handle: int) -> tuple[dict[str, str], dict[str, int]]:
    """Return strings and numbers by key.

    The type is checked first: reading a value as another type aborts the process.
    """
    texts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for number in range(_lib.gguf_get_n_kv(handle)):
        key = _lib.gguf_get_key(handle, number).decode(errors="replace")
        kind = _lib.gguf_get_kv_type(handle, number)
        if kind == _STRING:
            texts[key] = _lib.gguf_get_val_str(handle, number).decode(errors="replace")
        elif kind == _UINT32:
            numbers[key] = _lib.gguf_get_val_u32(handle, number)
        elif kind == _BOOL:
            numbers[key] = int(_lib.gguf_get_val_bool(handle, number))
    return texts, numbers

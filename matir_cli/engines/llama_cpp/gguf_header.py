"""Reader of GGUF headers: metadata, tensor shapes and types, without loading the model.

llama.cpp's own reader (`gguf.h`) does the parsing. It reads the header alone, so it accepts a truncated
file; this module also requires every tensor to lie within the file. llama.cpp does not check that for a
vision projector, and would compute with undefined weights.
"""

import ctypes
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from llama_cpp.llama_cpp import _lib

from matir_cli.errors import CheckpointInvalid

MAGIC = b"GGUF"

_STRING, _ARRAY = 8, 9

_SCALARS: Mapping[int, tuple[str, Any]] = {
    0: ("u8", ctypes.c_uint8),
    1: ("i8", ctypes.c_int8),
    2: ("u16", ctypes.c_uint16),
    3: ("i16", ctypes.c_int16),
    4: ("u32", ctypes.c_uint32),
    5: ("i32", ctypes.c_int32),
    6: ("f32", ctypes.c_float),
    7: ("bool", ctypes.c_bool),
    10: ("u64", ctypes.c_uint64),
    11: ("i64", ctypes.c_int64),
    12: ("f64", ctypes.c_double),
}
"""Names and C types of the numeric value types (`enum gguf_type`)."""

_SHORT_ARRAY = 64
"""Largest array of numbers whose elements are read; of longer ones, only the length is."""

Number: TypeAlias = int | float


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
    "gguf_get_val_data": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_void_p),
    "gguf_get_val_str": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_char_p),
    "gguf_get_arr_type": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_int),
    "gguf_get_arr_n": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t),
    "gguf_get_arr_data": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_void_p),
    "gguf_get_arr_str": ([ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t], ctypes.c_char_p),
    "gguf_get_n_tensors": ([ctypes.c_void_p], ctypes.c_int64),
    "gguf_get_tensor_offset": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t),
    "gguf_get_tensor_name": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_char_p),
    "gguf_get_tensor_ne": ([ctypes.c_void_p, ctypes.c_int64], ctypes.POINTER(ctypes.c_int64)),
    "gguf_get_tensor_size": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t),
    "gguf_get_tensor_type": ([ctypes.c_void_p, ctypes.c_int64], ctypes.c_int),
}

for _name, (_arguments, _result) in _SIGNATURES.items():
    getattr(_lib, _name).argtypes = _arguments
    getattr(_lib, _name).restype = _result


@dataclass(frozen=True, slots=True)
class GgufValue:
    """One value of the metadata."""

    kind: str
    """Type: "u8" to "i64", "f32", "f64", "bool" or "str"; in brackets if it is an array, as "[i32]"."""
    value: Number | str | tuple[Number, ...] | tuple[bytes, ...]
    """The value; of an array, its elements, or () if they were not read."""
    length: int = 1
    """Number of elements of an array."""

    @property
    def number(self) -> Number:
        """The value if it is a number or a boolean, else 0."""
        return self.value if isinstance(self.value, int | float) else 0

    @property
    def text(self) -> str:
        """The value if it is a string, else an empty one."""
        return self.value if isinstance(self.value, str) else ""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One entry of the table of tensors."""

    shape: tuple[int, int, int, int]
    """Extents, fastest-varying axis first, 1 for an axis that it does not have."""
    type: int
    """Type of its numbers (`enum ggml_type`)."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Header of one GGUF file, whose tensors all lie within the file."""

    values: Mapping[str, GgufValue]
    """Metadata by key, such as "general.architecture"."""
    tensors: Mapping[str, GgufTensor]
    """Tensors by name."""

    def number(self, key: str) -> Number:
        """Return the number of `key`; 0 if it is missing or none."""
        value = self.values.get(key)
        return 0 if value is None else value.number

    def text(self, key: str) -> str:
        """Return the string of `key`; an empty one if it is missing or none."""
        value = self.values.get(key)
        return "" if value is None else value.text


def read_gguf_header(path: Path, string_arrays: Collection[str] = ()) -> GgufHeader:
    """Read the header of the GGUF file at `path`.

    Args:
        path: the file.
        string_arrays: keys of the arrays of strings to read, which can be long.

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
        return GgufHeader(_read_values(handle, string_arrays), _read_tensors(handle))


@contextmanager
def _open_header(path: Path) -> Iterator[int]:
    """Yield llama.cpp's handle to the parsed header, and free it afterwards."""
    handle = _lib.gguf_init_from_file(os.fsencode(path), _InitParams(True, None))
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


def _read_tensors(handle: int) -> dict[str, GgufTensor]:
    """Return shapes and types by tensor name."""
    tensors: dict[str, GgufTensor] = {}
    for number in range(_lib.gguf_get_n_tensors(handle)):
        e0, e1, e2, e3 = _lib.gguf_get_tensor_ne(handle, number)[:4]
        name = _lib.gguf_get_tensor_name(handle, number).decode(errors="replace")
        tensors[name] = GgufTensor((e0, e1, e2, e3), _lib.gguf_get_tensor_type(handle, number))
    return tensors


def _read_values(handle: int, string_arrays: Collection[str]) -> dict[str, GgufValue]:
    """Return the metadata by key."""
    return {
        (key := _lib.gguf_get_key(handle, number).decode(errors="replace")): _read_value(
            handle, number, strings=key in string_arrays
        )
        for number in range(_lib.gguf_get_n_kv(handle))
    }


def _read_value(handle: int, number: int, *, strings: bool) -> GgufValue:
    """Return value `number`; an array of strings only if `strings` is True.

    The type is checked first: reading a value as another type aborts the process.
    """
    kind = _lib.gguf_get_kv_type(handle, number)
    if kind == _STRING:
        return GgufValue("str", _lib.gguf_get_val_str(handle, number).decode(errors="replace"))
    if kind != _ARRAY:
        name, c_type = _SCALARS[kind]
        return GgufValue(name, c_type.from_address(_lib.gguf_get_val_data(handle, number)).value)
    kind, length = _lib.gguf_get_arr_type(handle, number), _lib.gguf_get_arr_n(handle, number)
    if kind == _STRING:
        texts = tuple(
            _lib.gguf_get_arr_str(handle, number, element) for element in range(length if strings else 0)
        )
        return GgufValue("[str]", texts, length)
    name, c_type = _SCALARS[kind]
    if not 0 < length <= _SHORT_ARRAY:
        return GgufValue(f"[{name}]", (), length)
    numbers = (c_type * length).from_address(_lib.gguf_get_arr_data(handle, number))
    return GgufValue(f"[{name}]", tuple(numbers), length)

"""Safe reading of untrusted pickles: plain values, no code.

An unpickler calls the functions that a pickle names. This one accepts only the few names that a
pickled numpy array or scalar consists of, with harmless stand-ins in their place, and refuses every
other name. Before that, it checks the opcodes, because CPython's unpickler allocates memory for
whatever length or memo slot a pickle claims.
"""

import io
import pickle
import pickletools
from collections.abc import Callable

import numpy as np

_SCALARS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})

_DAMAGED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, MemoryError, RecursionError, AssertionError),
)
"""Exceptions that unpicklers raise on damaged input."""


class Array:
    """Stand-in for a numpy array; its values are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Drop the state."""


class _DataType:
    """Stand-in for a numpy dtype: its code, such as "f8", and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _array(*_: object) -> Array:
    return Array()


def _scalar(kind: _DataType, data: bytes) -> object:
    if kind.code not in _SCALARS:
        raise pickle.UnpicklingError(f"a scalar of type {kind.code!r}")
    return np.frombuffer(data, f"{kind.order}{kind.code}", count=1)[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as pickles of protocol 2 encode them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): _DataType,
    ("_codecs", "encode"): _latin1,
}

for _package in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_package}.multiarray", "_reconstruct"] = _array
    _STAND_INS[f"{_package}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_package}.numeric", "_frombuffer"] = _array


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """Return the stand-in for a name; UnpicklingError for any other name."""
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which could run code") from None


def load_pickle(content: bytes) -> object:
    """Read a pickle of containers, text, bytes and numbers; each numpy array becomes an `Array`.

    Raises:
        ValueError: the pickle refers to anything that could run, or is damaged.
    """
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name.endswith("PUT") and int(argument or 0) > len(content):
                raise ValueError(f"memo slot {argument}")
        return _Unpickler(io.BytesIO(content)).load()
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"not a pickle of plain values: {reason}") from error

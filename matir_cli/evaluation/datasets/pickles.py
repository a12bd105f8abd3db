"""Reading pickles of strangers: values only, nothing that runs.

An unpickler calls what a pickle names. This one knows the handful of names that a pickled
numpy array or scalar consists of and puts harmless stand-ins in their places; every other
name is refused. Before that, the opcodes are walked through once, because CPython's
unpickler makes room for whatever length or memo slot a pickle claims.
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
"""What unpicklers were seen to raise on damaged input."""


class Array:
    """Stands where a numpy array was; its values are not kept."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Nothing of it is needed."""


class _DataType:
    """Stands for a numpy dtype: its code such as "f8", and the order of its bytes."""

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
    """Bytes as pickles of protocol 2 have them."""
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
        """The stand-in for a name; UnpicklingError for one without."""
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which could run code") from None


def load_pickle(content: bytes) -> object:
    """The value of a pickle: containers, text, bytes, numbers; an `Array` for each numpy array.

    Raises:
        ValueError: it names anything that could run, or is damaged.
    """
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name.endswith("PUT") and int(argument or 0) > len(content):
                raise ValueError(f"memo slot {argument}")
        return _Unpickler(io.BytesIO(content)).load()
    except _DAMAGED as error:
        raise ValueError(f"not a pickle of plain values: {str(error) or type(error).__name__}") from error

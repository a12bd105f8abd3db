"""Tensors out of a TorchScript archive, the format of OpenAI's own CLIP files, without running it.

Such an archive is a zip of code, of numbers in "data/" and of a pickle, "data.pkl", that says
which numbers are which attribute of which module (torch/csrc/jit/serialization/pickler.cpp). Of
these the code is not looked at, and the pickle is read with harmless stand-ins for all that it
names; anything else that it names is refused.
"""

import io
import math
import pickle
import pickletools
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from matir_cli.engines.tensors.torch_checkpoint import DAMAGE, refuse_repetition
from matir_cli.errors import CheckpointInvalid

_PICKLE_LIMIT = 64 * 1024 * 1024

_DEPTH_LIMIT = 64

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class _Module:
    """Stands where a module was: its attributes, and none of its code."""


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: torch.dtype
    key: str
    """Name of the file in "data/"."""


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: what part of a storage it is."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _view(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, shape, strides)


def _list(values: object, *_: object) -> object:
    """A list that carries its type."""
    return values


_STAND_INS: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("collections", "OrderedDict"): dict,
    **{("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "tensor", "double", "bool")},
    ("torch.jit._pickle", "restore_type_tag"): _list,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        """The stand-in for a name; UnpicklingError for one without."""
        if module.partition(".")[0] == "__torch__":
            return _Module
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> _Storage:
        """A storage: ("storage", type, key, device, numbers)."""
        _, dtype, key, _, _ = pid
        return _Storage(dtype, key)


def is_torchscript(path: Path) -> bool:
    """Whether the file at `path` is such an archive; torch.save's zips have no "constants.pkl"."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_torchscript_tensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of the archive at `path` whose names, as in a state dict, are `wanted`; on the CPU.

    Raises:
        CheckpointInvalid: the file is absent, damaged, or names what is no tensor or module.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
            module = _unpickle(_member(archive, root, _PICKLE_LIMIT))
            views = {name: view for name, view in _tensors(module, "", 0, set()) if wanted(name)}
            refuse_repetition(path, sum(math.prod(view.shape) for view in views.values()))
            folder = PurePosixPath(root).parent / "data"
            return _materialise(archive, folder, views, path.stat().st_size)
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    except (*DAMAGE, zipfile.BadZipFile, zlib.error, StopIteration) as error:
        reason = f"not a TorchScript archive that can be read: {error}; save its state_dict() as .safetensors"
        raise CheckpointInvalid(path, reason) from error


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A file of the archive; ValueError if it would unpack to more than `limit` bytes."""
    size = archive.getinfo(name).file_size
    if size > limit:
        raise ValueError(f"{name} would unpack to {size} bytes")
    return archive.read(name)


def _unpickle(content: bytes) -> object:
    for opcode, argument, _ in pickletools.genops(content):
        # CPython makes room for whatever memo slot a pickle claims.
        if opcode.name.endswith("PUT") and int(argument or 0) > len(content):
            raise ValueError(f"memo slot {argument}")
    return _Unpickler(io.BytesIO(content)).load()


def _tensors(module: object, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, _View]]:
    """Names and views of a module's tensors and of those of the modules in it, each module once."""
    if depth > _DEPTH_LIMIT:
        raise ValueError(f"modules {depth} deep")
    seen.add(id(module))
    for name, value in vars(module).items():
        if isinstance(value, _View):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module) and id(value) not in seen:
            yield from _tensors(value, f"{prefix}{name}.", depth + 1, seen)


def _materialise(
    archive: zipfile.ZipFile, folder: PurePosixPath, views: dict[str, _View], limit: int
) -> dict[str, Tensor]:
    """The tensors; their storages, each read once, together have at most `limit` bytes."""
    numbers: dict[_Storage, Tensor] = {}
    state = {}
    for name, view in views.items():
        if view.storage not in numbers:
            stored = bytearray(_member(archive, str(folder / view.storage.key), limit))
            limit -= len(stored)
            numbers[view.storage] = torch.frombuffer(stored, dtype=view.storage.dtype)
        # Raises where it would reach beyond the storage.
        state[name] = numbers[view.storage].as_strided(view.shape, view.strides, view.offset)
    return state

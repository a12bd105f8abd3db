"""Tensors from TorchScript archives, OpenAI's CLIP format, without running them.

An archive is a zip with code, with numbers in "data/" and with a pickle, "data.pkl", that maps the
attributes of modules to these numbers (torch/csrc/jit/serialization/pickler.cpp). The code is never
read. The pickle is loaded with harmless stand-ins for the classes and functions that it names; any
other name is refused.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from matir_cli.engines.tensors.torch_checkpoint import DAMAGE_ERRORS, check_claimed_size
from matir_cli.errors import CheckpointInvalid

_PICKLE_LIMIT = 64 * 1024 * 1024
"""Bytes of "data.pkl", unpacked."""

_DEPTH_LIMIT = 64
"""Levels of nested modules."""

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class _Module:
    """Stand-in for a module: its attributes, and none of its code."""


@dataclass(frozen=True, slots=True)
class _Storage:
    """A run of numbers in the archive."""

    dtype: torch.dtype
    key: str
    """Name of the file in "data/"."""


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor as a strided part of a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _make_view(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _View:
    """Stand in for `torch._utils._rebuild_tensor_v2`."""
    return _View(storage, offset, shape, strides)


def _drop_type(values: object, *_: object) -> object:
    """Stand in for functions that attach a type to a list or dict; return it as it is."""
    return values


_LIST_KINDS = ("int", "tensor", "double", "bool")

_STAND_INS: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor_v2"): _make_view,
    ("collections", "OrderedDict"): dict,
    **{("torch.jit._pickle", f"build_{kind}list"): _drop_type for kind in _LIST_KINDS},
    ("torch.jit._pickle", "restore_type_tag"): _drop_type,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}
"""Objects to use for the (module, name) pairs that a pickle may contain."""


class _Unpickler(pickle.Unpickler):
    """Unpickler that resolves names to stand-ins and imports nothing."""

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in for a name; UnpicklingError if there is none."""
        if module.partition(".")[0] == "__torch__":
            return _Module
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> _Storage:
        """Return the storage for `pid`: ("storage", type, key, device, count of numbers)."""
        _, dtype, key, _, _ = pid
        return _Storage(dtype, key)


def is_torchscript(path: Path) -> bool:
    """Return True for a TorchScript archive, known by its "constants.pkl"; torch.save writes none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, *DAMAGE_ERRORS):
        return False


def read_torchscript_tensors(path: Path, keep: Callable[[str], bool]) -> dict[str, Tensor]:
    """Read tensors from the archive at `path`, on the CPU, in their stored dtypes.

    Args:
        path: the archive.
        keep: returns True for the names, as in a state dict, of the tensors to read.

    Raises:
        CheckpointInvalid: the file is missing or damaged, or names anything but tensors and modules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
            module = _unpickle(_read_member(archive, root, _PICKLE_LIMIT))
            views = {name: view for name, view in _iterate_views(module, "", 0, set()) if keep(name)}
            check_claimed_size(path, sum(math.prod(view.shape) for view in views.values()))
            folder = PurePosixPath(root).parent / "data"
            return _materialise(archive, folder, views, path.stat().st_size)
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    except (*DAMAGE_ERRORS, zipfile.BadZipFile, StopIteration) as error:
        reason = f"not a TorchScript archive that can be read: {error}; save its state_dict() as .safetensors"
        raise CheckpointInvalid(path, reason) from error


def _read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a file of the archive; ValueError if it would unpack to more than `limit` bytes."""
    size = archive.getinfo(name).file_size
    if size > limit:
        raise ValueError(f"{name} would unpack to {size} bytes")
    return archive.read(name)


def _unpickle(content: bytes) -> object:
    """Load a pickle with stand-ins, after checking the memo slots that it uses."""
    for opcode, argument, _ in pickletools.genops(content):
        # CPython allocates memory for any memo slot that a pickle claims.
        if opcode.name.endswith("PUT") and int(argument or 0) > len(content):
            raise ValueError(f"memo slot {argument}")
    return _Unpickler(io.BytesIO(content)).load()


def _iterate_views(module: object, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, _View]]:
    """Yield names and views of the tensors of a module and of its submodules, each module once."""
    if depth > _DEPTH_LIMIT:
        raise ValueError(f"modules {depth} deep")
    seen.add(id(module))
    for name, value in vars(module).items():
        if isinstance(value, _View):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module) and id(value) not in seen:
            yield from _iterate_views(value, f"{prefix}{name}.", depth + 1, seen)


def _materialise(
    archive: zipfile.ZipFile, folder: PurePosixPath, views: dict[str, _View], limit: int
) -> dict[str, Tensor]:
    """Return the tensors of `views`; each storage is read once.

    ValueError if the storages together would unpack to more than `limit` bytes.
    """
    numbers: dict[_Storage, Tensor] = {}
    state = {}
    for name, view in views.items():
        if view.storage not in numbers:
            stored = bytearray(_read_member(archive, str(folder / view.storage.key), limit))
            limit -= len(stored)
            numbers[view.storage] = torch.frombuffer(stored, dtype=view.storage.dtype)
        # RuntimeError if the view reaches beyond its storage.
        state[name] = numbers[view.storage].as_strided(view.shape, view.strides, view.offset)
    return state

"""State dicts from untrusted weight files: torch's zip format or safetensors.

No code in a file is run, and nothing is allocated that is much larger than the file.
"""

import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from matir_cli.engines.tensors.safetensors_mmap import MappedTensors
from matir_cli.errors import CheckpointInvalid

DAMAGE_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    ImportError,
    struct.error,
    zlib.error,
)
"""Exceptions that torch.load or its unpickler raises for a file whose bytes were changed."""


def read_tensors(
    path: Path, key: str | None, keep: Callable[[str], bool] = lambda _: True
) -> dict[str, Tensor]:
    """Read the state dict in `path`, on the CPU.

    Args:
        path: a .safetensors file, whose tensors are converted to float32, or a file of torch.save,
            whose tensors keep their dtypes.
        key: entry of the saved dict that holds the state dict, such as "model"; None if the saved dict
            is the state dict itself. Not used for a .safetensors file.
        keep: returns True for the names of the tensors to read.

    Raises:
        CheckpointInvalid: the file is missing or damaged, has no state dict there, or holds more than
            tensors.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path, keep)
    content = _load_torch_file(path)
    if key is None:
        state, fault = content, "not a state dict: names and tensors"
    else:
        state = content.get(key) if isinstance(content, dict) else None
        fault = f'holds no table of tensors under "{key}"'
    if not _is_state_dict(state):
        raise CheckpointInvalid(path, fault)
    check_claimed_size(path, sum(value.numel() for value in state.values()))
    return {name: value for name, value in state.items() if keep(name)}


def _read_safetensors(path: Path, keep: Callable[[str], bool]) -> dict[str, Tensor]:
    mapped = MappedTensors(path)
    shapes = {name: mapped.shape(name) for name in mapped if keep(name)}
    check_claimed_size(path, sum(math.prod(shape) for shape in shapes.values()))
    return {name: torch.from_numpy(mapped.read(name, *shape).copy()) for name, shape in shapes.items()}


def _load_torch_file(path: Path) -> object:
    """Load a file of torch.save, an uncompressed zip; the format from before 2020 is refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size:
            raise CheckpointInvalid(path, "would unpack to more than the file's size")
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    except zipfile.BadZipFile as error:
        reason = "neither a .safetensors file nor one of torch.save, or not all of one"
        raise CheckpointInvalid(path, reason) from error
    except DAMAGE_ERRORS as error:
        raise CheckpointInvalid(path, "damaged, or holds more than tensors") from error
    return content


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Return True for a dict of names to dense CPU tensors.

    A meta tensor has no numbers, and a sparse one can claim many numbers and hold few.
    """
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.is_cpu and value.layout == torch.strided
        for name, value in content.items()
    )


def check_claimed_size(path: Path, numbers: int) -> None:
    """Check that tensors of `numbers` numbers in all can come from the file at `path`.

    With strides of 0 one stored number can stand for a whole tensor, and several tensors can share a
    storage, so that a small file could claim more numbers than fit into memory.

    Raises:
        CheckpointInvalid: more numbers than the file has bytes.
    """
    if numbers > path.stat().st_size:
        raise CheckpointInvalid(path, "claims more numbers than the file has bytes")


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Describe why the state dict `found` cannot be loaded where `expected` is needed; "" if it can.

    Tensors must have the same names and shapes, and be of floating point.
    """
    wrong = {
        name
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape or not found[name].is_floating_point()
    }
    faults = (
        ("no", expected.keys() - found.keys()),
        ("unexpected", found.keys() - expected.keys()),
        ("wrong shape or type of", wrong),
    )
    return "; ".join(f"{fault} {_first_names(names)}" for fault, names in faults if names)


def load_weights(path: Path, model: nn.Module, state: Mapping[str, Tensor], role: str) -> None:
    """Assign the tensors in `state` to `model`, created on the meta device, and prepare it for inference.

    Raises:
        CheckpointInvalid: `state`, read from `path`, is not that of a `role`; the reason names tensors that
            are missing, unexpected or of another shape.
    """
    if mismatch := describe_mismatch(model.state_dict(), state):
        raise CheckpointInvalid(path, f"not {role}: {mismatch}")
    model.load_state_dict(state, assign=True)
    model.eval().requires_grad_(False)


def _first_names(names: Iterable[str]) -> str:
    """Return the first three names, sorted, and the number of others."""
    first, rest = sorted(names)[:3], len(set(names)) - 3
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")

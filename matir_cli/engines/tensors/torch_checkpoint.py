"""Weight files from strangers, read as tensors by name: torch's zip format or safetensors.

No code in a file is run, and nothing is made in memory that is much larger than the file.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from matir_cli.engines.tensors.safetensors_mmap import MappedTensors
from matir_cli.errors import CheckpointInvalid

# What torch.load was seen to raise, or its unpickler can, when bytes of a file are changed.
DAMAGE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
)


def read_tensors(
    path: Path, under: str | None, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Tensor]:
    """The state dict in `path`, on the CPU: its tensors whose names are `wanted`.

    A .safetensors file is one as a whole, in float32. A file of torch.save is one itself
    (`under` None), or keeps it at the key `under`, each tensor in its own type.

    Raises:
        CheckpointInvalid: the file is absent, damaged, no such table, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path, wanted)
    content = _load(path)
    if under is None:
        state, fault = content, "not a state dict: names and tensors"
    else:
        state = content.get(under) if isinstance(content, dict) else None
        fault = f'holds no table of tensors under "{under}"'
    if not _is_state(state):
        raise CheckpointInvalid(path, fault)
    refuse_repetition(path, sum(value.numel() for value in state.values()))
    return {name: value for name, value in state.items() if wanted(name)}


def _read_safetensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    mapped = MappedTensors(path)
    shapes = {name: mapped.shape(name) for name in mapped if wanted(name)}
    refuse_repetition(path, sum(math.prod(shape) for shape in shapes.values()))
    return {name: torch.from_numpy(mapped.read(name, *shape).copy()) for name, shape in shapes.items()}


def _load(path: Path) -> object:
    """What a file of torch.save holds: an uncompressed zip; no zip is a format of before 2020."""
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
    except DAMAGE as error:
        raise CheckpointInvalid(path, "damaged, or holds more than tensors") from error
    return content


def _is_state(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Names and tensors; on the meta device a tensor has no numbers, and a sparse one few of them."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.is_cpu and value.layout == torch.strided
        for name, value in content.items()
    )


def refuse_repetition(path: Path, numbers: int) -> None:
    """Raise CheckpointInvalid: one stored number may stand for a whole tensor, or one tensor for many."""
    if numbers > path.stat().st_size:
        raise CheckpointInvalid(path, "claims more numbers than the file has bytes")

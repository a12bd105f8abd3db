"""Weight files from strangers, read as tensors by name: torch's zip format or safetensors.

No code in a file is run, and nothing is made in memory that is larger than the file.
"""

import pickle
import struct
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from matir_cli.errors import CheckpointInvalid

# What torch.load was seen to raise, or its unpickler can, when bytes of a file are changed.
_DAMAGE = (
    SafetensorError,
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


def read_tensors(path: Path, under: str) -> dict[str, Tensor]:
    """The state dict in `path`: the whole of a .safetensors file, else what a torch file keeps at `under`.

    Raises:
        CheckpointInvalid: the file is absent, damaged, no such table, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _refuse_what_unpacks(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    except zipfile.BadZipFile as error:
        raise CheckpointInvalid(path, "not a file of torch.save, or not all of one") from error
    except _DAMAGE as error:
        raise CheckpointInvalid(path, "damaged, or holds more than tensors") from error
    state = content.get(under) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointInvalid(path, f'holds no table of tensors under "{under}"')
    return state


def _refuse_what_unpacks(path: Path) -> None:
    """A file of torch.save is a zip that stores and does not compress; no zip is a format of before 2020."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > path.stat().st_size:
        raise CheckpointInvalid(path, "would unpack to more than the file's size")

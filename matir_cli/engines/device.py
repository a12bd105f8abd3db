"""Choice of the device that the torch engines run on, and of the precision in which they compute there."""

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import cast

import torch

from matir_cli.engines.options import PRECISION_VARIABLE, Precision
from matir_cli.errors import DeviceUnavailable

_LEAST_WIDTH = 384
"""Length of a transformer's longest token from which bfloat16 pays on a CPU that multiplies it."""

_BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")
"""Names in torch's capabilities of a CPU: Intel's tiles, x86's vectors, and Arm's."""


def choose_device(name: str) -> str:
    """Return the torch device for `name`, one of "auto", "cuda", "mps" and "cpu".

    "auto" takes the first available of CUDA, MPS and CPU.

    Raises:
        DeviceUnavailable: `name` is none of these, or this machine does not have it.
    """
    availability = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, available in availability.items() if available)
    if not availability.get(name, False):
        raise DeviceUnavailable(name)
    return name


def choose_dtype(precision: Precision, device: str, width: int) -> torch.dtype:
    """Return the dtype in which an image tower computes on `device`.

    "auto" is float16 on CUDA, in which upstream runs; bfloat16 on a CPU with instructions for it, if the
    tower is wide enough for that to be faster; and float32 elsewhere, and with `PRECISION_VARIABLE`.

    Args:
        precision: the option of the model set.
        device: "cuda", "mps" or "cpu".
        width: length of a token of the tower's transformer; 0 for a network of another kind.
    """
    if precision != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[precision]
    kind = torch.device(device).type
    if os.environ.get(PRECISION_VARIABLE) == "float32" or kind not in ("cuda", "cpu"):
        return torch.float32
    if kind == "cuda":
        return torch.float16
    return torch.bfloat16 if width >= _LEAST_WIDTH and multiplies_bfloat16() else torch.float32


@cache
def multiplies_bfloat16() -> bool:
    """Return True if this CPU has instructions for products of bfloat16 and torch was built to use them.

    Without them, oneDNN emulates these products several times as slowly as those of float32.
    """
    # Older versions of torch have no such function, and stay in float32.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    has_onednn = cast("Callable[[], bool]", torch.backends.mkldnn.is_available)
    return has_onednn() and any(map(capabilities.get, _BFLOAT16_INSTRUCTIONS))

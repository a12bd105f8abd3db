"""Choice of the device that the torch engines run on."""

import torch

from matir_cli.errors import DeviceUnavailable


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

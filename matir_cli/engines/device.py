"""Which device the torch engines run on."""

import torch

from matir_cli.errors import DeviceUnavailable


def choose_device(name: str) -> str:
    """The torch device for `name`, one of "auto", "cuda", "mps" and "cpu".

    "auto" takes the first there is of CUDA, MPS and CPU.

    Raises:
        DeviceUnavailable: `name` is none of these, or not on this machine.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, there in present.items() if there)
    if not present.get(name, False):
        raise DeviceUnavailable(name)
    return name

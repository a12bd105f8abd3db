"""Choice of the torch device."""

import pytest
import torch

from matir_cli.engines.device import choose_device
from matir_cli.errors import DeviceUnavailable


class TestDevice:
    def test_automatic(self) -> None:
        assert torch.zeros(1, device=choose_device("auto")).device.type == choose_device("auto")
        assert choose_device("cpu") == "cpu"

    @pytest.mark.parametrize("name", ["gpu", "", "cuda:99"])
    def test_no_such_device(self, name: str) -> None:
        with pytest.raises(DeviceUnavailable) as caught:
            choose_device(name)
        assert caught.value.device == name

    @pytest.mark.parametrize("name", ["cuda", "mps"])
    def test_by_name(self, name: str) -> None:
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[name]
        if available:
            assert choose_device(name) == name
        else:
            with pytest.raises(DeviceUnavailable):
                choose_device(name)

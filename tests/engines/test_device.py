"""Choice of the torch device, and of the precision on it."""

import platform
from pathlib import Path
from typing import get_args

import pytest
import torch

from matir_cli.engines.device import choose_device, choose_dtype, multiplies_bfloat16
from matir_cli.engines.options import PRECISION_VARIABLE, Precision
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


class TestPrecision:
    def test_bfloat16_only_where_the_processor_has_it(self) -> None:
        """The same answer as Linux gives."""
        cpuinfo = Path("/proc/cpuinfo")
        if not cpuinfo.exists() or not hasattr(torch.cpu, "get_capabilities"):
            pytest.skip("nothing to compare with")
        flags = {"x86_64": {"avx512_bf16", "amx_bf16"}, "aarch64": {"bf16"}}[platform.machine()]
        assert multiplies_bfloat16() == bool(flags & {*cpuinfo.read_text().split()})

    def test_chosen_by_device_and_width(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(PRECISION_VARIABLE, raising=False)
        large = torch.bfloat16 if multiplies_bfloat16() else torch.float32
        assert [choose_dtype("auto", "cpu", width) for width in (0, 128, 768, 1152)] == [
            *(torch.float32, torch.float32),
            *(large, large),
        ]
        assert choose_dtype("auto", "cuda", 128) == torch.float16
        assert choose_dtype("auto", "mps", 1024) == torch.float32

    def test_turned_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PRECISION_VARIABLE, "float32")
        assert {choose_dtype("auto", device, 1024) for device in ("cpu", "cuda", "mps")} == {torch.float32}

    @pytest.mark.parametrize("variable", ["", "float32"])
    def test_what_a_set_says_counts_first(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        monkeypatch.setenv(PRECISION_VARIABLE, variable)
        given: list[Precision] = [each for each in get_args(Precision) if each != "auto"]
        for device in ("cpu", "cuda", "mps"):
            assert [str(choose_dtype(each, device, 8)) for each in given] == [
                f"torch.{each}" for each in given
            ]

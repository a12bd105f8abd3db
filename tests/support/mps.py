"""An emulation of Apple's MPS backend on the CPU: a guard against what that backend lacks.

Within `emulate_mps`, tensors can be moved to "mps" and made there. They say that they are on MPS, so that
engines take the branches they take there; their values are computed on the CPU. As the real backend, it has
no float64, and none of `LACKING`.

Sources of `LACKING`, of the oldest torch that the package permits, 2.5: "General MPS op coverage tracking
issue" (pytorch/pytorch, issue 77764) and its successor for 2.6 (141287); `upsample_bicubic2d` came with pull
request 136123. `ALWAYS_LACKING` is `UNIMPLEMENTED_XFAILLIST` of torch/testing/_internal/common_mps.py. The
padding modes of `grid_sampler_2d` are those of aten/src/ATen/native/mps/operations/GridSampler.mm.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

ALWAYS_LACKING = frozenset(
    {
        *("logspace", "linalg_eig", "linalg_eigvals", "put", "frexp", "heaviside", "mode"),
        *("linalg_ldl_factor", "linalg_ldl_factor_ex", "linalg_ldl_solve", "fractional_max_pool2d"),
        *("fractional_max_pool3d", "_adaptive_avg_pool3d", "adaptive_max_pool3d"),
    }
)
"""Operators that no version has."""

LACKING = ALWAYS_LACKING | {
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "upsample_bicubic2d"),
    *("_linalg_solve_ex", "max_pool3d_with_indices", "kthvalue", "linalg_lstsq", "cummax", "cummin"),
}
"""Operators that the oldest permitted version does not have."""

_BORDER = 1
"""Number of the padding mode "border" in the arguments of `grid_sampler_2d`."""


class MpsTensor(Tensor):
    """A tensor that says that it is on MPS."""

    held: Tensor
    """Its values, on the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "MpsTensor":
        """Create a tensor of the shape and strides of `held`, which may share its memory with others."""
        made: MpsTensor = cast("Any", Tensor)._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="mps",
        )
        made.held = held
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if func is Tensor.tolist:
            return args[0].held.tolist()
        try:
            with torch._C.DisableTorchFunctionSubclass():  # its results may be tensors of any class
                return func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if "not linked with support for mps" not in str(error):
                raise
            # Indexing and splitting look for the device itself before they call an operator.
            return _compute(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, *given: Any, **_: Any) -> Any:
        func, _types, args, kwargs = given
        return _compute(func, args, kwargs)


class _MovedToMps(TorchFunctionMode):
    """Catches what makes a tensor on MPS, or moves one there."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        if any(isinstance(each, torch.device | str) and _is_mps(each) for each in given) and not any(
            isinstance(each, MpsTensor) for each in given
        ):
            return _compute(func, args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def emulate_mps() -> Iterator[None]:
    """Let tensors be on MPS within the block, where no gradients are kept."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # not the data of CPU parameters
    try:
        with torch.inference_mode(), _MovedToMps():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _compute(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on the CPU; its results are on MPS if it says so, or if its arguments are."""
    given = tree_leaves((args, kwargs))
    devices = [
        torch.device(each) for each in given if isinstance(each, torch.device | str) and _is_device(each)
    ]
    on_mps = any(
        each.type == "mps" for each in devices or [at.device for at in given if isinstance(at, Tensor)]
    )
    result = func(*tree_map(_hold, args), **tree_map(_hold, kwargs))
    if on_mps:
        _check(str(func), args)
        result = tree_map(_wrap, result)
    return result


def _check(name: str, args: tuple[Any, ...]) -> None:
    """Raise the errors of the real backend."""
    operator = name.removeprefix("aten.").split(".")[0]
    if operator in LACKING:
        raise NotImplementedError(f"The operator 'aten::{operator}' is not currently implemented for MPS")
    if operator in ("grid_sampler", "grid_sampler_2d") and args[3] == _BORDER:
        raise RuntimeError("MPS: Unsupported Border padding mode")


def _is_device(value: torch.device | str) -> bool:
    return str(value) in ("cpu", "mps")


def _is_mps(value: torch.device | str) -> bool:
    return str(value) == "mps"


def _hold(value: Any) -> Any:
    if isinstance(value, torch.device | str) and _is_mps(value):
        return torch.device("cpu")
    return value.held if isinstance(value, MpsTensor) else value


def _wrap(value: Any) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, MpsTensor):
        return value
    if value.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as MPS does not support float64")
    return MpsTensor(value)

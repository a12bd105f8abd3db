"""Engine options: read from a model set's TOML, checked, and part of an identity."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias, TypeVar

import msgspec

from matir_cli.errors import ModelSetInvalid

Options = TypeVar("Options")

Precision: TypeAlias = Literal["auto", "float32", "float16", "bfloat16"]
"""Dtype in which an engine computes; "auto" chooses by device and by the model's size."""

PRECISION_VARIABLE = "MATIR_PRECISION"
"""Environment variable: "float32" lets "auto" choose nothing else."""


class EngineOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of an engine's options; every option has a default."""

    IDENTITY_OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Names of the options that change the engine's results by more than rounding."""
    METHOD: ClassVar[str] = ""
    """Fixed text that the results depend on too, such as prompts; a new text makes a different engine."""

    def identity(self) -> bytes:
        """Return the options and the method that define the engine's results, as comparable bytes.

        Empty if every such option has its default and there is no method. Defaults are left out, so
        that adding an option in a later version does not change the identity of existing galleries.
        """
        defaults = type(self)()
        changed = {
            name: value
            for name in self.IDENTITY_OPTIONS
            if (value := getattr(self, name)) != getattr(defaults, name)
        }
        if not (changed or self.METHOD):
            return b""
        return msgspec.json.encode([changed, self.METHOD], order="deterministic")


def read_options(options: Mapping[str, object], options_type: type[Options], source: str) -> Options:
    """Convert `options` to `options_type`, a frozen `msgspec.Struct` with `forbid_unknown_fields=True`.

    Raises:
        ModelSetInvalid: an unknown key, a missing one, a wrong type or a value out of
            bounds; the error names `source`, the place of the options, such as "sam2".
    """
    if (name := _not_finite(options)) is not None:  # which passes any comparison with bounds
        raise ModelSetInvalid(source, f"{name} must be a finite number")
    try:
        return msgspec.convert(dict(options), options_type)
    except msgspec.ValidationError as error:
        raise ModelSetInvalid(source, str(error)) from error


def _not_finite(options: Mapping[str, object]) -> str | None:
    """Return the name of an option that is infinite or not a number; None if there is none."""
    for name, value in options.items():
        inner = _not_finite(value) if isinstance(value, dict) else None
        if inner is not None or (isinstance(value, float) and not math.isfinite(value)):
            return name if inner is None else f"{name}.{inner}"
    return None

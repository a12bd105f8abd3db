"""Settings read from a model set's TOML into the options object of whoever they are for."""

from collections.abc import Mapping
from typing import ClassVar, TypeVar

import msgspec

from matir_cli.errors import ModelSetInvalid

Options = TypeVar("Options")


class EngineOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine's settings; each has a default."""

    SHAPING: ClassVar[tuple[str, ...]] = ()
    """The settings that what the engine gives depends on, beyond rounding."""
    METHOD: ClassVar[str] = ""
    """What it depends on that cannot be set; a change of it makes another engine."""

    def shape(self) -> bytes:
        """All of this in a form to compare; empty where everything is usual.

        Defaults are left out, so that a setting which is new in a later version changes nothing.
        """
        usual = type(self)()
        changed = {
            name: value for name in self.SHAPING if (value := getattr(self, name)) != getattr(usual, name)
        }
        if not (changed or self.METHOD):
            return b""
        return msgspec.json.encode([changed, self.METHOD], order="deterministic")


def read_options(options: Mapping[str, object], into: type[Options], source: str) -> Options:
    """`options` as an `into` (a frozen `msgspec.Struct` with `forbid_unknown_fields=True`).

    Raises:
        ModelSetInvalid: an unknown key, a missing one, a wrong type or a value out of
            bounds; `source` says where the options stand, such as "sam2".
    """
    try:
        return msgspec.convert(dict(options), into)
    except msgspec.ValidationError as error:
        raise ModelSetInvalid(source, str(error)) from error

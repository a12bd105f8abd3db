"""Settings read from a model set's TOML into the options object of whoever they are for."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from matir_cli.errors import ModelSetInvalid

Options = TypeVar("Options")


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

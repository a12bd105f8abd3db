"""Presets of a model set: names, and the way to write a set with one, such as "full:fast".

A preset replaces options of the set's parts. Since the name of a set with a preset is a name of a set, a
gallery remembers it, and all commands on the gallery go on with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec

from matir_cli.errors import ModelMismatch, PresetMismatch

PresetName: TypeAlias = Literal["fast", "thorough"]
"""Name of a preset."""

PRESETS: tuple[PresetName, ...] = get_args(PresetName)

_Options: TypeAlias = Annotated[dict[str, Any], msgspec.Meta(min_length=1)]

Presets: TypeAlias = dict[str, Annotated[dict[str, _Options], msgspec.Meta(min_length=1)]]
"""Name of each preset to part to the options that it replaces."""


def split_preset(name: str) -> tuple[str, PresetName | None]:
    """Split the name of a model set into that of the set without a preset, and the preset; None: none."""
    base, colon, preset = name.rpartition(":")
    return (base, preset) if colon and preset in PRESETS else (name, None)


def add_preset(name: str, preset: PresetName | None) -> str:
    """Return the name of a set with `preset` in place of the one that it names, if any; None keeps it."""
    return name if preset is None else f"{split_preset(name)[0]}:{preset}"


def title_of(name: str) -> str:
    """Return the name of a model set for people: "full, fast" for "full:fast"."""
    base, preset = split_preset(name)
    return base if preset is None else f"{base}, {preset}"


@contextmanager
def naming_presets(own: str | None, wanted: str) -> Iterator[None]:
    """Say so if models differ since the sets `own`, of a gallery, and `wanted` are presets of one set.

    Raises:
        PresetMismatch: in place of a ModelMismatch that is raised inside.
    """
    try:
        yield
    except ModelMismatch as error:
        if own is None or own == wanted or split_preset(own)[0] != split_preset(wanted)[0]:
            raise
        raise PresetMismatch(error.path, error.role, title_of(own), title_of(wanted)) from None

"""The options --fast and --thorough: presets of the model set of a new gallery."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import click

from matir_cli.cli.options.common import CommandFunction, where_it_applies
from matir_cli.model_sets.presets import PRESETS, PresetName


def preset_options(command: CommandFunction) -> CommandFunction:
    """Add the options to a command with a gallery, which gets `preset`, its name or None."""

    @wraps(command)
    def with_preset(*words: Any, gallery_path: Path, **others: Any) -> object:
        given = {name: others.pop(name) for name in PRESETS}
        return command(*words, gallery_path=gallery_path, preset=_choose(gallery_path, given), **others)

    decorated: CommandFunction = with_preset
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _choose(gallery_path: Path, given: dict[PresetName, bool]) -> PresetName | None:
    """Return the preset; one of the defaults file is for new galleries, and gives way to the command line."""
    asked = [name for name, value in given.items() if value]
    new = not gallery_path.exists()
    chosen = [name for name in asked if where_it_applies(name, True, False, applies=new and len(asked) == 1)]
    if len(chosen) > 1:
        raise click.UsageError("--fast and --thorough contradict each other: use only one of them.")
    return chosen[0] if chosen else None


_OPTIONS = (
    click.option(
        "--fast",
        is_flag=True,
        help="For a new gallery: the model set's preset that takes less time and finds slightly less.",
    ),
    click.option(
        "--thorough",
        is_flag=True,
        help="For a new gallery: the model set's preset that finds more and takes more time.",
    ),
)

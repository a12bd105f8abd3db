"""The user's defaults file: values of options by command, in TOML.

Only one file is read: `config.toml` in the user's configuration folder, or the one that `MATIR_CONFIG` names;
if that is empty, none. No file in a searched or current folder is ever read, since a stranger may have put it
there. The command line and environment variables come before the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from pathlib import Path

import click
import platformdirs

from matir_cli.errors import DefaultsInvalid

VARIABLE = "MATIR_CONFIG"
"""Environment variable that names another file; empty for none."""

ALL = "all"
"""Table whose options hold for every command that has them."""

SHARED_OPTIONS = ("db", "models", "device", "decode-timeout", "progress", "server")
"""Options that may be in the table `ALL`."""

WITHOUT_DEFAULTS = ("config", "help")
"""Commands that work with any file, so that it can be put right."""

Table = Mapping[str, object]


class PlacedOption(click.Option):
    """An option that means something by its place among others: no defaults file may set it."""


class GalleryOption(click.Option):
    """The option --db, which may be given repeatedly; its environment variable may be a list."""

    def value_from_envvar(self, ctx: click.Context) -> tuple[str, ...] | None:
        """Return the paths in the variable, separated as in PATH, or the one path that exists."""
        value = self.resolve_envvar_value(ctx)
        if value is None:
            return None
        is_one = os.path.exists(value)  # noqa: PTH110 - a long list is no error
        return (value,) if is_one else tuple(filter(None, value.split(os.pathsep)))


def defaults_path() -> Path | None:
    """Return the path of the file, which need not exist; None if none is to be read."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named).absolute() if named else None
    return platformdirs.user_config_path("matir", appauthor=False) / "config.toml"


def read_defaults(path: Path | None, commands: Collection[str]) -> dict[str, Table]:
    """Read the tables of the file; empty if there is none.

    Args:
        commands: names of all commands.

    Raises:
        DefaultsInvalid: it cannot be read, is not TOML, or has a table that is no command.
    """
    if path is None or not (path.exists() or os.environ.get(VARIABLE)):
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
        raise DefaultsInvalid(path, "", " ".join(reason.split())) from error
    tables: dict[str, Table] = {}
    for name, table in content.items():
        if name != ALL and (name not in commands or name in WITHOUT_DEFAULTS):
            raise DefaultsInvalid(path, name, "there is no such command")
        if not isinstance(table, dict):
            raise DefaultsInvalid(path, name, f"is no table of options; begin one with [{name}]")
        tables[name] = table
    for key in tables.get(ALL, {}):
        if key not in SHARED_OPTIONS:
            raise DefaultsInvalid(path, f"{ALL}.{key}", f"may only be one of {', '.join(SHARED_OPTIONS)}")
    return tables


def settable_options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that the file may set, by their long name without dashes."""
    found = {}
    for option in command.params:
        if isinstance(option, click.Option) and not (option.required or isinstance(option, PlacedOption)):
            names = [name for name in option.opts if name.startswith("--")]
            if names:
                found[names[0].removeprefix("--")] = option
    return found


def command_defaults(path: Path, name: str, command: click.Command, tables: Mapping[str, Table]) -> Table:
    """Return the `default_map` of a command: parameter names to checked values; for a group, its commands'.

    A flag that the file sets also gets its opposite, --no-FLAG, so that the command line can undo it.

    Raises:
        DefaultsInvalid: an option is unknown, or a value is not right.
    """
    return _defaults(path, name, command, tables.get(name, {}), tables.get(ALL, {}))


def _defaults(path: Path, name: str, command: click.Command, own: Table, shared: Table) -> Table:
    if isinstance(command, click.Group):
        context = click.Context(command)
        names = command.list_commands(context)
        if unknown := next((key for key in own if key not in names), None):
            raise DefaultsInvalid(path, f"{name}.{unknown}", "there is no such command")
        defaults: dict[str, object] = {}
        for below in names:
            child, table = command.get_command(context, below), own.get(below, {})
            if not isinstance(table, dict):
                raise DefaultsInvalid(
                    path, f"{name}.{below}", f"is no table; begin one with [{name}.{below}]"
                )
            assert child is not None
            defaults[below] = _defaults(path, f"{name}.{below}", child, table, shared)
        return defaults
    options = settable_options(command)
    if unknown := next((key for key in own if key not in options), None):
        reason = f"the command has no such option that a file may set{_suggestion(unknown, options)}"
        raise DefaultsInvalid(path, f"{name}.{unknown}", reason)
    found = {}
    for key, value in {**{k: v for k, v in shared.items() if k in options}, **own}.items():
        where = f"{name if key in own else ALL}.{key}"
        found[str(options[key].name)] = _checked(path, where, command, options[key], value)
        _add_opposite(command, key, options[key])
    return found


def _suggestion(key: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # for a mistake alone

    close = get_close_matches(key, known, 1)
    return f"; the nearest is {close[0]}" if close else ""


def _checked(path: Path, where: str, command: click.Command, option: click.Option, value: object) -> object:
    """Return a value as the command line would give it; DefaultsInvalid if it is not right."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise DefaultsInvalid(path, where, "must be true or false")
        return value
    several = option.multiple or option.nargs != 1
    if isinstance(option, GalleryOption) and not isinstance(value, list):
        value = [value]  # usually there is one
    if several != isinstance(value, list):
        raise DefaultsInvalid(path, where, "must be a list, in [ ]" if several else "must be one value")
    texts = [_text(path, where, option, each) for each in (value if isinstance(value, list) else [value])]
    given = texts if several else texts[0]
    try:
        option.process_value(click.Context(command), given)
    except click.BadParameter as error:
        raise DefaultsInvalid(path, where, error.message.rstrip(".")) from error
    return given


def _text(path: Path, where: str, option: click.Option, value: object) -> str:
    """Return one value as text; paths are relative to the file's folder, and ~ is the home folder."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | date):
        raise DefaultsInvalid(path, where, "must be a text, a number or a date")
    # Imported here: without a file, no command waits for it.
    from matir_cli.model_sets.catalogue import is_file_name

    text = str(value)
    if isinstance(option.type, click.Path) or (option.name == "model_set" and is_file_name(text)):
        return str(path.parent / Path(text).expanduser()) if text else text
    return text


def _add_opposite(command: click.Command, key: str, option: click.Option) -> None:
    """Let --no-FLAG turn off a flag that has no opposite; for --no-FLAG, that is --FLAG."""
    opposite = f"--{key.removeprefix('no-')}" if key.startswith("no-") else f"--no-{key}"
    taken = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    if option.is_flag and not option.secondary_opts and opposite not in taken:
        option.secondary_opts.append(opposite)

"""`matir config`: show the defaults file and where the values of options come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from click.core import ParameterSource

from matir_cli.cli.boundary import say
from matir_cli.cli.defaults import (
    VARIABLE,
    WITHOUT_DEFAULTS,
    command_defaults,
    defaults_path,
    read_defaults,
    settable_options,
)
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable

SOURCES = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
}
"""Names of the places that a value may come from; otherwise it is the default."""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """The value of an option of a command."""

    command: str
    """The command, such as "models pull"."""
    option: str
    """The option's name without dashes, as in the file."""
    value: str
    """The value in force as text; empty if there is none."""
    source: str
    """command line, environment, file or default."""


@click.command(short_help="Show the defaults file, and where values come from.")
@click.argument("words", nargs=-1, metavar="[COMMAND [OPTION]...]", type=click.UNPROCESSED)
@click.option("--edit", is_flag=True, help="Open the file in your editor (EDITOR), then check it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def config(context: click.Context, words: tuple[str, ...], edit: bool, as_json: bool) -> None:
    """Check the defaults file, and print what it and environment variables set; for COMMAND, all options.

    Each line is command, option, value and source, separated by TAB. The source is: command line,
    environment, file or default, the first of these that gives a value. Options behind -- are
    those of COMMAND. MATIR_CONFIG names another file; if it is empty, none is read.

    \b
    Exit code: 0 done, 2 an error, such as a file with a wrong value.

    \b
    Examples:
      matir config
      matir config find
      matir config -- find --limit 50
      matir config --edit
    """
    path = defaults_path()
    if edit:
        _edit(path)
    state = "none is read" if path is None else f"{path}{'' if path.exists() else ' (does not exist)'}"
    say(f"defaults file: {state}")
    rows = [*_rows(context, path, words)]
    if as_json:
        click.echo(f"[{', '.join(map(to_json, rows))}]")
        return
    for row in rows:
        click.echo("\t".join(map(printable, (row.command, row.option, row.value, row.source))))


def _edit(path: Path | None) -> None:
    if path is None:
        raise click.UsageError(f"{VARIABLE} is empty, so there is no file to edit: unset it.")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# Defaults by command; see: matir help config --page\n# [find]\n# limit = 20\n")
    click.edit(filename=str(path))


def _rows(context: click.Context, path: Path | None, words: Sequence[str]) -> Iterator[SettingRow]:
    """Yield the values of one command's options, or of those of all commands that are set."""
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    names = root.command.list_commands(root)
    tables = read_defaults(path, names)
    if words and words[0] not in names:
        raise click.UsageError(f"No such command {words[0]!r}.")
    for name in words[:1] or [each for each in names if each not in WITHOUT_DEFAULTS]:
        command = root.command.get_command(root, name)
        assert command is not None
        parent = click.Context(root.command)
        if path is not None:
            parent.default_map = {name: command_defaults(path, name, command, tables)}
        for row in _command_rows(name, command, click.Context(command, parent, name), words[1:]):
            if words or row.source != "default":
                yield row


def _command_rows(
    name: str, command: click.Command, context: click.Context, words: Sequence[str]
) -> Iterator[SettingRow]:
    if isinstance(command, click.Group):
        chosen = words[:1] if words and words[0] in command.list_commands(context) else None
        for below in chosen or command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            inner = click.Context(child, context, below)
            yield from _command_rows(f"{name} {below}", child, inner, words[1:] if chosen else ())
        return
    given, _, _ = command.make_parser(context).parse_args([*words])
    for key, option in settable_options(command).items():
        value, source = option.consume_value(context, given)
        yield SettingRow(name, key, _text(value), SOURCES.get(source, "default"))


def _text(value: object) -> str:
    """Return the value of an option as text; empty for none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value) if isinstance(value, str | int | float | Path) else ""

"""Options that choose what is indexed in folders."""

from __future__ import annotations

import click

from matir_cli.cli.options.common import CommandFunction
from matir_cli.photos.discover import FolderRules
from matir_cli.photos.excludes import PatternInvalid, check_pattern


def _set_patterns(context: click.Context, _parameter: click.Parameter, patterns: tuple[str, ...]) -> None:
    try:
        exclude = tuple(map(check_pattern, patterns))
    except PatternInvalid as error:
        raise click.BadParameter(f"{str(error)!r} is no pattern: write one as in .gitignore.") from error
    context.params["rules"] = FolderRules(exclude, raw=not context.params.pop("no_raw"))


def folder_options(command: CommandFunction) -> CommandFunction:
    """Add the options to a command, which gets `rules`, a `FolderRules`."""
    exclude = click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        expose_value=False,
        callback=_set_patterns,
        help="Leave out files and folders that match, as in .gitignore: '*.png', drafts/, /2019. Repeatable.",
    )
    # It is eager so that its value is there when the patterns are read.
    no_raw = click.option(
        "--no-raw", is_flag=True, is_eager=True, help="Pass over cameras' raw files in folders."
    )
    return exclude(no_raw(command))

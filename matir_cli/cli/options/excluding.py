"""The option that leaves files and folders out."""

from __future__ import annotations

import click

from matir_cli.photos.excludes import PatternInvalid, check_pattern


def _check(
    _context: click.Context, _parameter: click.Parameter, patterns: tuple[str, ...]
) -> tuple[str, ...]:
    try:
        return tuple(map(check_pattern, patterns))
    except PatternInvalid as error:
        raise click.BadParameter(f"{str(error)!r} is no pattern: write one as in .gitignore.") from error


exclude_option = click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    callback=_check,
    help="Leave out files and folders that match, as in .gitignore: '*.png', drafts/, /2019. Repeatable.",
)

"""The option that chooses how progress is shown."""

from __future__ import annotations

import click

from matir_cli.cli.progress import ProgressForm, set_progress_form


def _set(_context: click.Context, _parameter: click.Parameter, form: str) -> None:
    set_progress_form(ProgressForm(form))


progress_option = click.option(
    "--progress",
    type=click.Choice([form.value for form in ProgressForm]),
    default=ProgressForm.AUTO.value,
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_set,
    help="Show progress on standard error: bars on a terminal, lines of JSON, or nothing.",
)

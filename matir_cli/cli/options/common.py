"""What several commands have in common: options, their help, progress, counts in words."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import platformdirs

from matir_cli.cli.boundary import say
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET, ModelSet, load_model_set


def default_gallery() -> Path:
    """Where the gallery lies unless --db or MATIR_DB says otherwise."""
    return platformdirs.user_data_path("matir", appauthor=False) / "gallery.db"


gallery_option = click.option(
    "--db",
    "gallery_path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MATIR_DB",
    default=default_gallery,
    show_default="gallery.db in the user's data folder",
    show_envvar=True,
    metavar="FILE",
    help="The gallery.",
)

models_option = click.option(
    "--models",
    "model_set",
    envvar="MATIR_MODEL_SET",
    show_envvar=True,
    metavar="SET",
    help="Model set: a name from `matir models list`, or a TOML file."
    f"  [default: the gallery's own, for a new one {DEFAULT_MODEL_SET}]",
)

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "mps", "cpu"]),
    default="auto",
    show_default=True,
    help="Where the models run.",
)

_REST = "Other options"


class SectionedCommand(click.Command):
    """A command whose help has its options under headings."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **others: Any) -> None:
        """`sections`: heading to the names of the parameters below it; the rest comes last."""
        super().__init__(*args, **others)
        self._sections = sections
        self._heading = {name: heading for heading, names in sections.items() for name in names}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section after the other."""
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*self._sections, _REST)}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None and isinstance(parameter, click.Option):
                rows[self._heading.get(parameter.name or "", _REST)].append(row)
        for heading, below in rows.items():
            with formatter.section(heading):
                formatter.write_dl(below)


def output_form_option(into: str, form: str, *names: str, text: str) -> Callable[[Any], Any]:
    """A flag for one form of output; the command gets the form asked for as `into`, else None.

    Two of them contradict each other, but for paths: -0 says how those end.
    """

    def choose(context: click.Context, _parameter: click.Parameter, given: bool) -> None:
        before = context.params.setdefault(into, None)
        if not given or before == form:
            return
        if before is not None and {before, form} != {"paths", "null"}:
            raise click.UsageError(f"--{before} and --{form} are two forms of output: give one of them.")
        context.params[into] = form if before is None else "null"

    return click.option(
        *names, f"{into}_{form}", is_flag=True, expose_value=False, callback=choose, help=text
    )


limit_option = partial(click.option, "-n", "--limit", "limit", type=click.IntRange(1, 100_000))


def check_distinct(*targets: Path | None) -> None:
    """Make sure that no file is to be written twice; None and standard output are none."""
    seen = set[str]()
    for path in targets:
        if path is not None and path != Path("-"):
            real = os.path.realpath(path)
            if real in seen:
                raise click.UsageError(f"{path} would be written twice: give each output a file of its own.")
            seen.add(real)


def _show_log(_context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_log,
    help="Show what the models' libraries say.",
)


def choose_model_set(gallery: GalleryFile | None, wanted: str | None) -> ModelSet:
    """The set asked for, else the one the gallery was made with, else the default; its note is shown."""
    stored = gallery.model_set() if gallery is not None else None
    chosen = load_model_set(wanted or stored or DEFAULT_MODEL_SET)
    if chosen.note:
        say(f"model set {chosen.name}: {chosen.note}")
    return chosen

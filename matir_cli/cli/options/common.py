"""Options of many commands, help in sections, and the choice of the model set."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import click
import platformdirs
from click.core import ParameterSource

from matir_cli.atomic_write import STREAM
from matir_cli.cli.boundary import say
from matir_cli.cli.defaults import GalleryOption
from matir_cli.errors import GalleryDamaged, GalleryError, GalleryIOFailed
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.union import GalleryReader
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET, ModelSet
from matir_cli.model_sets.choice import choose_set

CommandFunction: TypeAlias = Callable[..., object]
"""The function of a command, which click calls with the values of its parameters."""

OptionDecorator: TypeAlias = Callable[[CommandFunction], CommandFunction]
"""Adds one or several options to a command's function."""

Value = TypeVar("Value")


class PathName(click.Path):
    """A path on the command line; one that is empty, or - where no stream can be meant, is refused.

    click itself takes an empty path for the current folder, and - for a file of that name.
    """

    def __init__(
        self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True, allow_dash: bool = False
    ) -> None:
        """Create the type; arguments as in `click.Path`.

        Files are not checked for readability: a list goes on after one that cannot be read.
        """
        super().__init__(
            exists=exists,
            file_okay=file_okay,
            dir_okay=dir_okay,
            readable=exists,
            allow_dash=allow_dash,
            path_type=Path,
        )

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the path; the command line's ./- becomes absolute, which tells it from -."""
        name = os.fspath(value)
        if not name:
            self.fail("The path is empty: write . for the current folder.", param, ctx)
        if name == "-" and not self.allow_dash:
            self.fail("- is no stream here: write ./- for a file or folder of that name.", param, ctx)
        path = super().convert(value, param, ctx)
        return path if name == "-" or path != STREAM else Path.cwd() / path


def default_gallery() -> Path:
    """Return the path of the gallery that is used without --db and MATIR_DB."""
    return platformdirs.user_data_path("matir", appauthor=False) / "gallery.db"


def _one_gallery(context: click.Context, _parameter: click.Parameter, paths: tuple[Path, ...]) -> Path:
    """Return the only path; UsageError if there are several, or a pattern that may mean several."""
    if len(paths) == 1 and (paths[0].exists() or not {"*", "?"} & {*str(paths[0])}):
        return paths[0]
    named = "several are given" if len(paths) > 1 else f"{paths[0]} is a pattern"
    raise click.BadParameter(
        f"{context.command_path} takes one gallery, and {named}: choose one with --db FILE."
    )


_db_option = partial(
    click.option,
    "--db",
    cls=GalleryOption,
    multiple=True,
    envvar="MATIR_DB",
    default=lambda: (default_gallery(),),
    show_default="gallery.db in the user's data folder",
    show_envvar=True,
)

gallery_option = _db_option(
    "gallery_path", type=PathName(dir_okay=False), callback=_one_gallery, metavar="FILE", help="The gallery."
)

galleries_option = _db_option(
    "gallery_paths",
    type=PathName(),
    metavar="PATH",
    help="The gallery. Several are searched as one: given repeatedly, as a folder of galleries, or as a "
    "pattern in quotes, such as 'shards/*.db'.",
)

skip_missing_option = click.option(
    "--skip-missing",
    is_flag=True,
    help="Of several galleries, leave out those that are missing or damaged, and say so.",
)


def say_left_out(error: GalleryError) -> None:
    """Say which gallery is left out, and why."""
    say(f"left out (--skip-missing): {error}")


def open_for_reading(paths: Sequence[Path], *, skip_missing: bool) -> GalleryReader:
    """Open the gallery, or several as one.

    Args:
        skip_missing: leave out those that are missing or damaged, and say so.

    Raises:
        GalleryError: as in `open_galleries`.
    """
    if len(paths) == 1 and paths[0].is_file() and not skip_missing:
        return GalleryFile.open(paths[0])
    # Imported here: it loads what makes and searches the index.
    from matir_cli.maintenance.many import expand_galleries, open_galleries

    skip = say_left_out if skip_missing else None
    return open_galleries(expand_galleries(paths, skip), skip)


def without_damaged(gallery: GalleryReader, read: Callable[[], Value], *, skip_missing: bool) -> Value:
    """Return what `read` returns.

    Args:
        skip_missing: of several galleries, leave out one that `read` finds damaged, say so, and call `read`
            again.

    Raises:
        GalleryDamaged, GalleryIOFailed: a gallery is damaged that is not left out.
    """
    while True:
        try:
            return read()
        except (GalleryDamaged, GalleryIOFailed) as error:
            # Imported here: it loads what makes and searches the index.
            from matir_cli.maintenance.many import leave_out_damaged

            if not (skip_missing and leave_out_damaged(gallery, error)):
                raise
            say_left_out(error)


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
    help="Device that runs the models.",
)

idle_option = click.option(
    "--idle",
    "idle_minutes",
    type=click.FloatRange(0, min_open=True),
    default=15.0,
    show_default=True,
    metavar="MINUTES",
    help="Free the models after this time without a search.",
)

limit_option = partial(click.option, "-n", "--limit", "limit", type=click.IntRange(1, 100_000))


def _show_logs(_context: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    if verbose:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_logs,
    help="Show the model libraries' logs.",
)


def null_option(text: str) -> OptionDecorator:
    """Make the flag -0/--null: paths end with NUL instead of a newline; `text` is its help."""
    return click.option("-0", "--null", is_flag=True, help=text)


_OTHER_OPTIONS = "Other options"


OPTION_ORDER = "matir_cli.option_order"
"""Key in a context's `meta`: the names of the parameters in the order in which the user gave them."""


class SectionedCommand(click.Command):
    """A command whose help lists its options in sections, and that knows in which order they were given."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **others: Any) -> None:
        """Create the command.

        Args:
            sections: heading to the names of the parameters below it. A last section has the rest.
        """
        super().__init__(*args, **others)
        self._sections = sections
        self._heading = {name: heading for heading, names in sections.items() for name in names}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of the command line, and note the order of the options."""
        # click gives a command the values of each option, not how options follow one another.
        *_, given = self.make_parser(ctx).parse_args([*args])
        ctx.meta[OPTION_ORDER] = tuple(parameter.name for parameter in given)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one section after the other."""
        rows: dict[str, list[tuple[str, str]]] = {
            heading: [] for heading in (*self._sections, _OTHER_OPTIONS)
        }
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None and isinstance(parameter, click.Option):
                rows[self._heading.get(parameter.name or "", _OTHER_OPTIONS)].append(row)
        for heading, below in rows.items():
            with formatter.section(heading):
                formatter.write_dl(below)


def output_form_option(target: str, form: str, *names: str, text: str) -> OptionDecorator:
    """Make a flag that chooses a form of output.

    The command gets the chosen form, or None, as its parameter `target`. Two forms contradict each other,
    except for paths: -0 only says how they end.

    Args:
        form: value of the parameter if the flag is given, and the option's name in messages.
        names: of the option, such as "--json".
        text: help.
    """

    def choose(context: click.Context, parameter: click.Parameter, given: bool) -> None:
        before = context.params.setdefault(target, None)
        source = context.get_parameter_source(parameter.name or "")
        if source is ParameterSource.DEFAULT_MAP and before is not None:
            return  # the command line, which comes first, has chosen another form than the defaults file
        if not given or before == form:
            return
        if before is not None and {before, form} != {"paths", "null"}:
            raise click.UsageError(f"--{before} and --{form} are two forms of output: use only one of them.")
        context.params[target] = form if before is None else "null"

    return click.option(
        *names, f"{target}_{form}", is_flag=True, expose_value=False, callback=choose, help=text
    )


def where_it_applies(name: str, value: Value, otherwise: Value, *, applies: bool) -> Value:
    """Return the value of an option that goes with others, or `otherwise` if it is set in the defaults file.

    On the command line, an option without those that it goes with is a mistake, which the caller reports. In
    the defaults file it is meant for command lines that have them.

    Args:
        name: of the parameter.
        otherwise: returned for a value of the file if the others are not given.
        applies: True if the others are given.
    """
    source = click.get_current_context().get_parameter_source(name)
    return otherwise if source is ParameterSource.DEFAULT_MAP and not applies else value


def check_distinct(*targets: Path | None) -> None:
    """Check that no file would be written twice; None and - (standard output) do not count.

    Raises:
        UsageError: two targets are the same file.
    """
    seen = set[str]()
    for path in targets:
        if path is not None and path != STREAM:
            real = os.path.realpath(path)
            if real in seen:
                raise click.UsageError(f"{path} would be written twice: give each output its own file.")
            seen.add(real)


def choose_model_set(gallery: GalleryReader | None, name: str | None) -> ModelSet:
    """Load the model set called `name`, else the gallery's own, else the default; and show its note."""
    chosen = choose_set(gallery, name)
    if chosen.note:
        say(f"model set {chosen.name}: {chosen.note}")
    return chosen
